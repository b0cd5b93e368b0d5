"""Experiments on the toy and on interventions; no lower floor imports them."""
