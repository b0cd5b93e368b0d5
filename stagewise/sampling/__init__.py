"""Chains: local SGLD around the training weights, and the traces they leave."""
