"""One probe: when it is due, what it measures. Knows nothing of Lightning."""
