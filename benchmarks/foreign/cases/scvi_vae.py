"""scvi-tools: a variational autoencoder of counts, by scvi's own train()."""

import anndata
import numpy as np
import scvi
import torch

REQUIRES = ("scvi-tools==1.4.2",)
TRAINED = "SCVI on 64 cells, model.train; loader with a batch sampler"
LIMITS = "The loss draws a latent variable. The glue draws it from one seed, and fixes which cell gets which draw."

rng = np.random.default_rng(1)
cells = anndata.AnnData(rng.poisson(2.0, size=(64, 20)).astype(np.float32))
scvi.model.SCVI.setup_anndata(cells)


# glue
def loss_fn(module, batch):
    torch.manual_seed(0)
    _, _, losses = module.forward(batch, loss_kwargs={"kl_weight": 1.0})
    return losses.reconstruction_loss["reconstruction_loss"] + losses.kl_local["kl_divergence_z"]


observed = {"X": torch.from_numpy(cells.X), "batch": torch.zeros(64, 1), "labels": torch.zeros(64, 1)}
# end of glue


ARGUMENTS = {"loss_fn": loss_fn, "observed": observed}


def own_loss(module, batch):
    torch.manual_seed(0)
    return module.training_step(observed, 0)


def train(callbacks):
    # It splits cells by a seed of its own, which is none unless it is set.
    scvi.settings.seed = 7
    model = scvi.model.SCVI(cells, n_hidden=16, n_latent=4, dropout_rate=0.0)
    plan = {"n_epochs_kl_warmup": None}
    model.train(max_epochs=8, batch_size=64, train_size=1.0, plan_kwargs=plan, accelerator="cpu", callbacks=callbacks)
