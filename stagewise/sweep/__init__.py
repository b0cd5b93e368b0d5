"""BIF over the saved checkpoints of a causal language model."""
