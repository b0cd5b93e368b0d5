"""``stagewise.bif``: one call at one checkpoint, held against closed forms and against a prober called by hand."""

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import stagewise
from stagewise.batches import take
from stagewise.errors import InputError
from stagewise.lm.components import component_masks
from stagewise.losses.collated import CollatedLoss
from stagewise.losses.contract import resolve_loss
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.preconditioners.diagonal import AdamMoments
from tests.callbacks.language_runs import HEAD, language_model, rows
from tests.sampling.test_chains import linear, regression, squared
from tests.short_chains import SHORT

quiet = pytest.mark.filterwarnings("ignore:stagewise")

SGLD = SHORT
BRIEF = ProbeConfig(check_curvature=False, gradient_dot=False)


def assert_same(left, right):
    assert set(left.variables) == set(right.variables)
    for name in set(left.variables) - {"seconds"}:
        np.testing.assert_array_equal(left[name].values, right[name].values, err_msg=name)


def test_influence_and_learning_coefficient_of_a_regression_are_those_of_the_exact_posterior():
    """Losses are quadratic in a Gaussian: Cov(l_i, l_j) = g_i S g_j + (x_i S x_j)^2 / 2, llc = sum of s_k / 2."""
    x, y = regression()
    module = linear(x, y)
    gradients = ((x @ module.weight.T - y) * x).detach()
    groups = {"up": gradients[:, 0] < 0, "down": gradients[:, 0] > 0}
    found = stagewise.bif(
        module,
        (x, y),
        groups=groups,
        loss_fn=squared,
        # Nothing else: lr, localization, drift, burn-in and spacing settle themselves.
        sgld=SGLDConfig(num_chains=16, num_draws=60, batch_size=40, engine="batched"),
    )
    nbeta, localization = found.attrs["sgld"]["nbeta"], found.attrs["sgld"]["localization"]
    hessian = x.T @ x / len(x)
    posterior = torch.linalg.inv(nbeta * hessian + localization * torch.eye(3, dtype=torch.float64))
    want = -(gradients @ posterior @ gradients.T + (x @ posterior @ x.T) ** 2 / 2).numpy()
    assert np.linalg.norm(found["bif"] - want) < 0.1 * np.linalg.norm(want)
    for row, one in enumerate(groups.values()):
        for column, other in enumerate(groups.values()):
            pairs = (one[:, None] & other[None]).numpy() & ~np.eye(len(x), dtype=bool)
            value, error = (float(found[name][row, column]) for name in ("group_bif", "group_bif_se"))
            assert abs(value - want[pairs].mean()) < 4 * error
            # Helpful among those that pull the first weight one way, harmful for those that pull it the other way.
            assert abs(value) > 4 * error
            assert (value < 0) == (row == column)
    curvature = torch.linalg.eigvalsh(hessian)
    coefficient = float((nbeta * curvature / (nbeta * curvature + localization)).sum() / 2)
    assert abs(float(found["llc"]) - coefficient) < 4 * float(found["llc_se"])
    assert float(found["llc_se"]) < 0.05 * coefficient


@quiet
def test_it_is_what_a_prober_with_the_same_numbers_finds(case):
    module, batch = case
    observed = take(batch, slice(0, 6))
    groups = {"few": torch.arange(6) < 4}
    given = SGLDConfig(num_chains=3, num_draws=4, batch_size=4, engine="sequential", seed=3, common_noise=False)
    probe = ProbeConfig(centering="chain", position_bins=None, chunk_size=4)
    found = stagewise.bif(module, batch, observed, groups=groups, loss_fn=squared, sgld=given, probe=probe, step=7)
    numbers = SGLDConfig(**found.attrs["sgld"])
    assert numbers.unresolved == ()
    assert replace(given, **{name: getattr(numbers, name) for name in given.unresolved}) == numbers

    prober = Prober(module, squared, ProbeData(observed, batch, groups), sgld=numbers, config=probe)
    by_hand, _ = prober.probe(module, 7, steepest=float(found["lr_curvature"] / found["lr"]))
    assert 0 < float(found["lr_curvature"]) <= 2.5 * 1.0001
    want = by_hand.sel(part="within", drop=True)
    assert_same(found, want[list(found.variables)])
    gone = set(want.variables) - set(found.variables)
    assert gone == {
        "shift", "shift_se", "shift_norm_se", "between_share", "flip_fraction", "z_median", "reference_equilibrated",
        "signal", "signal_se", "signal_threshold",
    }  # fmt: skip
    assert found.attrs == {name: value for name, value in by_hand.attrs.items() if name != "reference_step"}
    assert found.attrs["sign"].startswith("negative = helpful")
    assert (found["bif"].attrs["units"], found["llc"].attrs["units"], found.attrs["step"]) == ("nats^2", "1", 7)


@quiet
def test_samples_need_not_be_there(case):
    module, batch = case
    found = stagewise.bif(module, batch, loss_fn=squared, sgld=SGLD, probe=replace(BRIEF, sample_matrices="none"))
    assert not {"bif", "bif_se", "bif_correlation"} & set(found.variables)
    assert found["group_bif"].dims == ("group", "group_j")


@quiet
def test_data_sets_are_read_as_batches(case):
    module, batch = case
    how = {"loss_fn": squared, "sgld": SGLD, "probe": BRIEF}
    want = stagewise.bif(module, batch, take(batch, slice(0, 6)), **how)
    whole = TensorDataset(*batch)
    assert_same(stagewise.bif(module, whole, TensorDataset(*take(batch, slice(0, 6))), **how), want)

    class Named(TensorDataset):
        def __getitem__(self, index):
            return {"x": self.tensors[0][index], "y": self.tensors[1][index]}

    def pairs(samples):
        return tuple(torch.stack([sample[key] for sample in samples]) for key in "xy")

    named, six = Named(*batch), Named(*take(batch, slice(0, 6)))
    assert_same(stagewise.bif(module, named, six, collate_fn=pairs, **how), want)
    loss = CollatedLoss(named, squared, pairs)
    assert_same(stagewise.bif(module, torch.arange(10), torch.arange(6), **{**how, "loss_fn": loss}), want)


@quiet
def test_module_data_and_random_states_are_left_as_they_were():
    class Drawing(TensorDataset):
        def __init__(self, *tensors):
            super().__init__(*tensors)
            self.generator = torch.Generator().manual_seed(5)

        def __getitem__(self, index):
            torch.rand(1, generator=self.generator)
            return super().__getitem__(index)

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    module[1].eval()
    module[0].weight.grad = torch.ones(4, 3)
    data = Drawing(torch.randn(12, 3), torch.randn(12, 1))

    def state():
        return [
            *(value.numpy().tobytes() for value in module.state_dict().values()),
            [child.training for child in module.modules()],
            [None if value.grad is None else value.grad.numpy().tobytes() for value in module.parameters()],
            torch.get_rng_state().numpy().tobytes(),
            np.random.get_state()[1].tobytes(),
            random.getstate(),
            data.generator.get_state().numpy().tobytes(),
        ]

    before = state()
    stagewise.bif(module, data, loss_fn=squared, sgld=SGLDConfig(num_chains=2, num_draws=4, batch_size=4))
    assert state() == before
    assert module.training


@quiet
def test_it_is_the_same_whatever_was_drawn_before(case):
    module, batch = case
    how = {"loss_fn": squared, "sgld": replace(SGLD, lr="auto", localization="auto", drift="auto"), "probe": BRIEF}
    first = stagewise.bif(module, batch, **how)
    torch.rand(5), np.random.rand(5), random.random()
    module.eval()
    assert_same(stagewise.bif(module, batch, **how), first)
    other = stagewise.bif(module, batch, **{**how, "sgld": replace(how["sgld"], seed=1)})
    assert not np.array_equal(other["bif"], first["bif"])


@pytest.mark.whole_probes
def test_what_stands_against_the_result_is_told_once_in_words(case, recwarn):
    module, batch = case
    wild = replace(SGLD, lr=1.0, localization=3.9, num_draws=4, max_loss_rise=1e30)
    found = stagewise.bif(module, batch, loss_fn=squared, sgld=wild)
    told = [str(warning.message) for warning in recwarn if str(warning.message).startswith("stagewise: ")]
    assert all(warning.filename == __file__ for warning in recwarn)
    (flagged,) = (words for words in told if "the chains are flagged" in words)
    for name, words in found.attrs["flags"].items():
        assert f"\n- {name}: {words}" in flagged
    (too_large,) = (words for words in told if "lr 1 is too large" in words)
    assert "set lr to" in too_large
    assert sum("is too weak" in words for words in told) == 1
    assert len(told) == 3


def test_flags_that_are_switched_off_and_settings_that_suit_say_nothing(recwarn):
    x, y = regression()
    off = {f"{name}": None for name in ("ess_min", "sample_ess_min", "rhat_max", "sample_rhat_max")}
    probe = ProbeConfig(thresholds=stagewise.Thresholds(**off))
    sgld = SGLDConfig(num_chains=4, num_draws=20, batch_size=40, engine="sequential")
    found = stagewise.bif(linear(x, y), (x, y), loss_fn=squared, sgld=sgld, probe=probe)
    assert found.attrs["flags"] == {}
    assert not [told for told in recwarn if str(told.message).startswith("stagewise")]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


BAD = {
    "a loader": ({"data": DataLoader(TensorDataset(torch.zeros(4, 3)))}, "got a DataLoader as data; .*its dataset"),
    "an observed loader": ({"observed": DataLoader([1])}, "got a DataLoader as observed"),
    "a stream": ({"data": Stream()}, "got an iterable data set"),
    "no samples": ({"data": (torch.zeros(0, 3), torch.zeros(0, 1))}, "got a batch of 0 samples"),
    "no batch": ({"data": 3}, "got a batch without tensors"),
    "no module": ({"module": 3}, "got module=3; expected a Module"),
    "no loss": ({"loss_fn": None}, "has no per-sample loss; expected one of three"),
    "a reduced loss": ({"loss_fn": lambda owner, batch: squared(owner, batch).mean()}, "leave it unreduced"),
    "groups that are no masks": ({"groups": {"a": [1, 2]}}, "got groups="),
    "groups of another size": ({"groups": {"a": torch.ones(3, dtype=torch.bool)}}, "got group 'a' of shape"),
    "masks beside parameters": (
        {"masks": {"0.bias": torch.ones(4, dtype=torch.bool)}, "sgld": replace(SGLD, parameters=["*"])},
        "masks together with parameters",
    ),
    "a step in words": ({"step": "last"}, "got step='last'; expected a whole number"),
    "settings of another kind": ({"sgld": ProbeConfig()}, "got sgld=.*; expected an? SGLDConfig"),
    "moments that are not there": (
        {"sgld": replace(SGLD, preconditioner=AdamMoments())},
        "got AdamMoments without second_moments; expected those of Adam",
    ),
    "chains that diverge": (
        {"sgld": replace(SGLD, lr=3.0, nbeta=1e4, localization=1.0), "probe": BRIEF},
        "got chains that were all dropped .*; lower sgld.lr",
    ),
}


@quiet
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_in_words(case, name):
    module, batch = case
    given, words = BAD[name]
    with pytest.raises(InputError, match=words):
        stagewise.bif(**{"module": module, "data": batch, "loss_fn": squared, "sgld": SGLD, **given})


@pytest.mark.whole_probes
def test_a_loss_without_curvature_needs_numbers_and_is_told_of(case):
    module, batch = case

    def loss(owner, batch):
        query = owner[0](batch[0])[:, None, None]
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # has no second derivative
            mixed = F.scaled_dot_product_attention(query, query, query)[:, 0, 0]
        return (mixed - batch[1]).square().sum(dim=1)

    with pytest.raises(InputError, match=r"got lr='auto'.*the curvature at step 0 could not be measured.*set both"):
        stagewise.bif(module, batch, loss_fn=loss)
    with pytest.warns(UserWarning, match="were not checked against the curvature"):
        found = stagewise.bif(module, batch, loss_fn=loss, sgld=replace(SGLD, drift="auto"))
    assert found.attrs["sgld"]["drift"] == "control_variate"


def tiny_gpt2():
    size = {"vocab_size": 12, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    torch.manual_seed(2)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**size)).train()


@quiet
def test_groups_of_tokens_of_a_gpt2_without_any_other_word():
    model = tiny_gpt2()
    ids = rows()
    observed = {"input_ids": ids[:6]}
    repeated = ids[:6, 1:] == ids[:6, :-1]
    groups = {"repeated": repeated, "new": ~repeated}
    found = stagewise.bif(model, {"input_ids": ids}, observed, groups=groups, sgld=SGLD, probe=BRIEF)
    assert model.training
    losses = -torch.log_softmax(model.eval()(ids[:6]).logits, -1)[:, :-1].gather(2, ids[:6, 1:, None])[..., 0]
    for name, mask in groups.items():
        assert float(found["group_loss"].sel(group=name)) == pytest.approx(losses[mask].mean().item(), rel=1e-5)
    by_hand, _ = Prober(
        model,
        resolve_loss(model),
        ProbeData(observed, {"input_ids": ids}, groups),
        sgld=SGLDConfig(**found.attrs["sgld"]),
        config=BRIEF,
    ).probe(model, 0)
    np.testing.assert_array_equal(found["group_bif"], by_hand["group_bif"].sel(part="within"))
    assert np.isfinite(found["group_llc"]).all()


@quiet
def test_chains_may_move_one_head():
    module = language_model()
    masks = component_masks(module, HEAD)
    found = stagewise.bif(module, rows(), sgld=SGLD, probe=BRIEF, masks=masks)
    assert found.attrs["moved_weights"] == sum(int(mask.sum()) for mask in masks.values())


@quiet
def test_the_example_of_the_readme_works(capsys):
    section = (Path(__file__).parents[2] / "README.md").read_text().split("## One checkpoint, no Trainer")[1]
    (code,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], flags=re.DOTALL)
    ids = rows()[:6]
    names = {"model": tiny_gpt2(), "training_ids": rows(), "ids": ids, "is_repeat": ids[:, 1:] == ids[:, :-1]}
    exec(code, names)
    assert names["found"]["group_bif"].shape == (2, 2)
    assert capsys.readouterr().out.startswith("[[")
