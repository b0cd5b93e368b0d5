"""Experiments on the toy and on the intervention; nothing below knows them."""
