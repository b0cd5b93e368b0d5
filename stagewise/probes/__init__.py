"""Schedule and measurement of a single probe, independent of Lightning."""
