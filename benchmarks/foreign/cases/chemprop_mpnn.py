"""chemprop: a message-passing network on molecules."""

import lightning as L
from chemprop import data, models, nn

from stagewise import CollatedLoss

REQUIRES = ("chemprop==2.3.1",)
TRAINED = "MPNN on 24 molecules, batches of nested graphs"

smiles = [f"{head}{'C' * length}{tail}" for head in "CNO" for length in range(1, 5) for tail in ("O", "Cl")]
points = [data.MoleculeDatapoint.from_smi(smile, [len(smile) / 4.0 - 1]) for smile in smiles]
dataset = data.MoleculeDataset(points)
loader = data.build_dataloader(dataset, batch_size=24, shuffle=False)


# glue
def loss_fn(module, batch):
    return (module.predictor.train_step(module.fingerprint(*batch[:3])) - batch.Y).square()


# end of glue

ARGUMENTS = {"loss_fn": CollatedLoss(dataset, loss_fn, data.collate_batch)}


def train(callbacks):
    passing = nn.BondMessagePassing(d_h=16, depth=2)
    model = models.MPNN(passing, nn.MeanAggregation(), nn.RegressionFFN(input_dim=16, hidden_dim=16), batch_norm=False)
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(model, loader)
