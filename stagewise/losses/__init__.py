"""Loss contract, and the losses of Hugging Face models."""
