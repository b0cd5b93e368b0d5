"""Language models: data, token groups, a Lightning module, induction metrics."""
