"""Parts of the linear datamodeling benchmark, datamodeling.py."""
