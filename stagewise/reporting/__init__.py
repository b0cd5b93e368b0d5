"""Output of runs: tags, TensorBoard, figures, files."""
