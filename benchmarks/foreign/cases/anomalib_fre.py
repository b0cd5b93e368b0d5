"""anomalib: feature reconstruction on a folder of images, by anomalib's own Engine."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Fre
from PIL import Image

REQUIRES = ("anomalib==2.7.0", "torch==2.14.1", "torchvision==0.29.1")
TRAINED = "Fre (resnet18 features, tied autoencoder), Engine, batches of the ImageBatch dataclass"
LIMITS = "The pre-processor is a separate callback that changes the batch in place, so the glue calls it."

rng = np.random.default_rng(1)
images = Path(tempfile.mkdtemp())
for number in range(16):
    picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(picture).save(images / f"{number:02}.png")


# glue
def loss_fn(module, batch):
    return torch.sub(*module.model.get_features(module.pre_processor.transform(batch.image))[:2]).square().mean(1)


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    settings = {"test_split_mode": "none", "val_split_mode": "none", "num_workers": 0, "train_batch_size": 16}
    data = Folder("noise", normal_dir=images, **settings)
    pre_processor = Fre.configure_pre_processor(image_size=(64, 64))
    sizes = {"backbone": "resnet18", "layer": "layer2", "pre_trained": False, "input_dim": 2048, "latent_dim": 16}
    model = Fre(**sizes, pre_processor=pre_processor, evaluator=False, visualizer=False, post_processor=False)
    engine = Engine(max_steps=8, callbacks=callbacks, accelerator="cpu", devices=1, default_root_dir=".")
    data.setup()
    engine.fit(model, train_dataloaders=data.train_dataloader())
