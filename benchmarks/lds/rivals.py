"""Rivals of BIF: gradients, TracIn, exact damped influence, EK-FAC influence.

Each returns scores ``[train, test]``: the estimated change of the test loss with more weight on the training sample, up
to a positive factor. Negative = helpful, as BIF.
"""

import copy
import logging
import tempfile
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.utils.data import TensorDataset

from lds.sets import Split


def gradients(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """``[sample, weight]``: of each sample's loss."""
    weights = {name: value.detach() for name, value in module.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(module, parameters, (x[None],)), y[None])

    rows = vmap(grad(loss), (None, 0, 0))(weights, *batch)
    return torch.cat([row.flatten(1) for row in rows.values()], dim=1)


def gradient_dot(module: nn.Module, split: Split) -> Tensor:
    """Minus the dot product of the loss gradients at one checkpoint."""
    return -gradients(module, split.train) @ gradients(module, split.test).T


def tracin(run: Sequence[nn.Module], split: Split) -> Tensor:
    """Minus the gradient dot products summed over the checkpoints of a run (Pruthi et al. 2020).

    The learning rate is constant, so that it does not matter; neither does the momentum, beyond a delay.
    """
    return sum((gradient_dot(module, split) for module in run), torch.zeros(()))


def gauss_newton(module: nn.Module, split: Split) -> Tensor:
    """``[weight, weight]``: the exact Gauss-Newton matrix of the mean training loss."""
    weights = {name: value.detach() for name, value in module.named_parameters()}
    x, _ = split.train
    total = torch.zeros(())
    for chunk in x.split(50):
        jacobians = jacrev(lambda parameters, chunk=chunk: functional_call(module, parameters, (chunk,)))(weights)
        flat = torch.cat([part.flatten(2) for part in jacobians.values()], dim=2)
        p = module(chunk).softmax(1).detach()
        root = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None]
        half = (root.mT @ flat).flatten(0, 1)
        total = total + half.T @ half
    return total / len(x)


def damped_influence(module: nn.Module, split: Split, damping: float) -> Tensor:
    """Influence function with the exact Gauss-Newton matrix (Koh and Liang 2017; Martens 2020)."""
    matrix = gauss_newton(module, split)
    matrix.diagonal().add_(damping)
    return -gradients(module, split.train) @ torch.linalg.solve(matrix, gradients(module, split.test).T)


def ekfac_influence(module: nn.Module, split: Split, damping: float | None, seed: int = 0) -> Tensor:
    """EK-FAC influence (Grosse et al. 2023) by kronfluence, its own heuristic where damping is None."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Classification(Task):
        def compute_train_loss(self, batch, model, sample=False):
            logits, labels = model(batch[0]), batch[1]
            if sample:
                labels = torch.multinomial(logits.detach().softmax(-1), 1).flatten()
            return F.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch, model):
            return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    train, test = TensorDataset(*split.train), TensorDataset(*split.test)
    task = Classification()
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        analyzer = Analyzer(
            "lds",
            prepare_model(copy.deepcopy(module), task),
            task,
            cpu=True,
            output_dir=folder,
            disable_tqdm=True,
            log_level=logging.ERROR,
        )
        analyzer.fit_all_factors(
            "factors",
            train,
            per_device_batch_size=len(train),
            factor_args=FactorArguments(strategy="ekfac"),
        )
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            query_dataset=test,
            train_dataset=train,
            per_device_query_batch_size=len(test),
            per_device_train_batch_size=len(train),
            score_args=ScoreArguments(damping_factor=damping),
        )
        return -analyzer.load_pairwise_scores("scores")["all_modules"].T
