"""The toy: hierarchical semantics in a deep linear network, by three methods that share no code."""
