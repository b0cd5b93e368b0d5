"""Writers of images, text and passed scalars: one call for TensorBoard, W&B, MLflow, Comet and folders of files."""
