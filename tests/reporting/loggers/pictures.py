"""A picture, a text and passed scalars, given to a writer as the reporter gives them."""

import random

import numpy as np
import torch

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
TEXT = "# Run\n\n| a | b |\n|---|---|\n| **1** | é |\n"


def write_all(writer):
    """Images at steps 7 and 9, text at 9, then a scalar at the passed steps 3 and 4."""
    for step in (7, 9):
        writer.add_image("influence/matrix/within", IMAGE, global_step=step, dataformats="HWC")
    writer.add_text("run/summary", TEXT, global_step=9)
    for step, value in ((3, 1.0), (4, 0.0)):
        writer.add_scalar("transition/in_window", value, global_step=step)
    writer.add_custom_scalars({"charts": {}})
    writer.flush()


def random_state():
    """Next numbers of the three global generators, which stay where they are."""
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), (kind, keys.tolist(), *rest), torch.get_rng_state().tolist()
