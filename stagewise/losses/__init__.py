"""Loss contract, and losses of Hugging Face models."""
