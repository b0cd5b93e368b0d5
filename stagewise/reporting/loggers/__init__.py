"""Writers of images, text and past scalars: one interface for TensorBoard, W&B, MLflow, Comet and folders of files."""
