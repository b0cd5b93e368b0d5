"""What people see: tags, TensorBoard, figures, files."""
