"""Toy: hierarchical semantics in a deep linear network, by chains and by methods that share no code with them."""
