"""Toy: a semantic hierarchy learned by a deep linear network, where influence is known exactly."""
