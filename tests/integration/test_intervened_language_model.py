"""Interventions on stagewise's own language model, beside the influence callback."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch

from stagewise import (
    ConstantFactor,
    GroupedRows,
    InfluenceCallback,
    InterventionCallback,
    ProbeConfig,
    ProbeSchedule,
    ReweightedLoader,
    Spans,
)
from stagewise.lm import CausalLM
from stagewise.lm.data import TokenRows
from tests.lm.test_module import NEOX
from tests.quiet_trainer import quiet_trainer
from tests.short_chains import SHORT

pytestmark = pytest.mark.filterwarnings("ignore")

IDS = torch.randint(64, (200, 12), generator=torch.Generator().manual_seed(0))
GROUPS = {"first": torch.arange(200) % 5 == 0}
WEIGHTS = {"first": 6.0}
SGLD = replace(SHORT, lr=1e-4, localization=100, num_chains=2, num_draws=2, batch_size=8)


def train(folder, callbacks, groups=GROUPS):
    pl.seed_everything(5, verbose=False)
    module = CausalLM("gpt_neox", NEOX)
    trainer = quiet_trainer(max_steps=6, callbacks=callbacks, default_root_dir=folder)
    trainer.fit(module, ReweightedLoader(GroupedRows(TokenRows(IDS), groups), GROUPS, 10, seed=2))
    assert module.intervention_weights is None
    return torch.cat([weight.detach().flatten() for weight in module.parameters()])


@pytest.mark.parametrize("mechanism", ["sampling", "loss"])
def test_a_placebo_changes_nothing_and_weights_do(tmp_path, mechanism):
    plain = train(tmp_path, [])
    windows = Spans([(1, 4)])
    placebo = train(tmp_path, [InterventionCallback(ConstantFactor({"first": 1.0}), windows, mechanism=mechanism)])
    assert torch.equal(placebo, plain)
    found = train(tmp_path, [InterventionCallback(ConstantFactor(WEIGHTS), windows, mechanism=mechanism)])
    assert not torch.equal(found, plain)


def test_token_masks_of_a_whole_sequence_are_its_sample_mask(tmp_path):
    policy = ConstantFactor(WEIGHTS)
    samples = train(tmp_path, [InterventionCallback(policy, Spans([(1, 4)]), mechanism="loss")])
    tokens = {"first": GROUPS["first"][:, None].expand(-1, 11)}
    assert torch.equal(
        train(tmp_path, [InterventionCallback(policy, Spans([(1, 4)]), mechanism="loss")], tokens), samples
    )


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["sampling", "loss"])
def test_probes_leave_an_intervened_run_as_it_is(tmp_path, mechanism):
    def intervention():
        return InterventionCallback(ConstantFactor(WEIGHTS), Spans([(1, 4)]), mechanism=mechanism)

    alone = train(tmp_path / "alone", [intervention()])
    # Looks at the curvature take most of the time; only weights of the loss could reach into them.
    probe = ProbeConfig(check_curvature=mechanism == "loss")
    probes = InfluenceCallback(ProbeSchedule(every_n_steps=2), SGLD, probe)
    watched = train(tmp_path / "watched", [intervention(), probes])
    assert torch.equal(watched, alone)
    assert (probes.folder / "intervention.json").exists()
