"""Dense losses [sample, height, width]: the same numbers as flattened by the user, and their shape kept."""

import numpy as np
import pytest
import torch
from torch import nn

from stagewise import InputError, LossContractError, ProbeConfig, Prober, SGLDConfig, open_run
from stagewise.losses.contract import evaluate
from stagewise.probes.axes import in_axes
from stagewise.runs.store import ProbeStore
from stagewise.sampling.data import ProbeData

X = torch.randn(10, 1, 4, 6, generator=torch.Generator().manual_seed(0))
SGLD = SGLDConfig(
    lr=1e-3, nbeta=10, localization=20, num_chains=2, num_draws=4, batch_size=5, engine="sequential", drift="plain"
)
MASK = torch.rand(10, 4, 6, generator=torch.Generator().manual_seed(1)) < 0.8
TOP = torch.zeros(10, 4, 6, dtype=torch.bool)
TOP[:, :2] = True


def dense(module, batch):
    return module(batch[0])[:, 0].square(), batch[1]


def flat(module, batch):
    values, mask = dense(module, batch)
    return values.flatten(1), mask.flatten(1)


def probe(loss_fn, groups, engine="sequential", **config):
    from dataclasses import replace

    torch.manual_seed(0)
    module = nn.Conv2d(1, 1, 3, padding=1)
    data = ProbeData((X, MASK), None, groups)
    prober = Prober(module, loss_fn, data, sgld=replace(SGLD, engine=engine), config=ProbeConfig(**config))
    result, trace = prober.probe(module, 0)
    assert not trace.dropped
    return module, result


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_dense_losses_are_flattened_and_their_shape_kept(engine):
    whole = torch.ones(10, dtype=torch.bool)
    module, result = probe(dense, {"top": TOP, "rest": ~TOP, "all": whole}, engine)
    _, other = probe(flat, {"top": TOP.flatten(1), "rest": ~TOP.flatten(1), "all": whole}, engine)
    assert result.attrs["token_axes"] == [4, 6]
    assert "token_axes" not in other.attrs
    for name in ("group_bif", "bif", "group_loss", "graddot", "anchor_loss"):
        np.testing.assert_array_equal(result[name].values, other[name].values)
    expected = torch.where(MASK, module(X)[:, 0].detach().square(), 0.0)
    np.testing.assert_allclose(in_axes(result, "anchor_loss"), expected.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(in_axes(result, "mask"), MASK.numpy())
    kept = (MASK & TOP).numpy()
    assert float(result["group_loss"][0]) == pytest.approx(expected.numpy()[kept].mean(), rel=1e-5)


def test_groups_may_be_flat_or_dense():
    _, dense_groups = probe(dense, {"top": TOP, "rest": ~TOP})
    _, flat_groups = probe(dense, {"top": TOP.flatten(1), "rest": ~TOP.flatten(1)})
    np.testing.assert_array_equal(dense_groups["group_bif"].values, flat_groups["group_bif"].values)


def test_evaluate_keeps_the_axes_of_any_number():
    values = torch.rand(3, 2, 2, 2)
    losses = evaluate(lambda module, batch: values, nn.Identity(), torch.zeros(3))
    assert losses.axes == (2, 2, 2)
    torch.testing.assert_close(losses.values, values.reshape(3, 8))
    assert evaluate(lambda module, batch: values[:, 0, 0], nn.Identity(), torch.zeros(3)).axes == (2,)


def test_groups_of_another_shape_are_refused():
    wrong = torch.ones(10, 6, 4, dtype=torch.bool)
    with pytest.raises(InputError, match=r"\[10, 6, 4\] for losses of shape \[10, 4, 6\]; expected \[10\], \[10, 24\]"):
        probe(dense, {"wrong": wrong})


def test_mask_of_another_shape_is_refused():
    with pytest.raises(LossContractError, match="equal shapes"):
        evaluate(lambda module, batch: (torch.rand(3, 2, 2), torch.ones(3, 4)), nn.Identity(), torch.zeros(3))


def test_a_scalar_loss_is_still_refused():
    with pytest.raises(LossContractError, match="leave it unreduced"):
        evaluate(lambda module, batch: torch.tensor(1.0), nn.Identity(), torch.zeros(3))


def test_losses_that_are_not_dense_have_no_axes():
    _, result = probe(flat, {})
    with pytest.raises(InputError, match="expected a variable over tokens"):
        in_axes(result, "anchor_loss")


def test_shape_is_kept_on_disk_and_over_a_run(tmp_path):
    module = nn.Conv2d(1, 1, 3, padding=1)
    prober = Prober(module, dense, ProbeData((X, MASK), None, {"top": TOP}), sgld=SGLD, config=ProbeConfig())
    store = ProbeStore(tmp_path / "influence.zarr")
    losses = []
    for step in (1, 2):
        with torch.no_grad():
            module.weight.mul_(1.1)
        losses.append(torch.where(MASK, module(X)[:, 0].detach().square(), 0.0).numpy())
        store.write(prober.probe(module, step)[0])
    run = open_run(tmp_path)
    assert list(run.attrs["token_axes"]) == [4, 6]
    np.testing.assert_allclose(in_axes(run, "anchor_loss"), np.stack(losses), rtol=1e-5)
