"""The callback on causal language models of three families, with token groups."""

import json
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stagewise import InductionCallback, InfluenceCallback, ProbeConfig, ProbeSchedule, SGLDConfig, open_run
from stagewise.lm.data import SyntheticData
from stagewise.lm.module import CausalLM
from tests.quiet_trainer import quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore")

SIZES = {
    "gpt_neox": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    "llama": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
}
SGLD = SGLDConfig(
    lr=5e-5,
    nbeta=30,
    localization=2000,
    num_chains=3,
    num_draws=4,
    batch_size=4,
    num_burnin_steps=2,
    num_steps_bw_draws=1,
    drift="plain",
)


def fit(folder, kind, callbacks, max_steps=4):
    pl.seed_everything(1, verbose=False)
    config = {"vocab_size": 32, "max_position_embeddings": 24, **SIZES[kind]}
    data = SyntheticData(
        vocab_size=32,
        context=24,
        batch_size=4,
        num_sequences=64,
        num_observed=5,
        num_sampling=16,
        max_segment=8,
        num_successors=4,
    )
    trainer = quiet_trainer(max_steps=max_steps, callbacks=callbacks, default_root_dir=folder)
    trainer.fit(CausalLM(model_type=kind, config=config), data)
    return trainer


@pytest.mark.parametrize("kind", SIZES)
def test_language_models_are_probed_by_token_and_group(tmp_path, kind):
    sgld = SGLD if kind == "gpt_neox" else replace(SGLD, engine="sequential")  # to trace each takes a second
    callback = InfluenceCallback(ProbeSchedule(at_steps=[1, 3, 4]), sgld, ProbeConfig(save_trace=True))
    trainer = fit(tmp_path, kind, [callback, InductionCallback(every_n_steps=2)])
    run = open_run(trainer.log_dir, trace=True)
    assert run["step"].values.tolist() == [1, 3, 4]
    assert run["group"].values.tolist() == ["induction", "background", "first_copy"]
    assert run["loss"].dims == ("step", "chain", "draw", "sample", "token")
    assert run["loss"].shape[1:] == (3, 4, 10, 23)
    parts = run["group_bif"].sel(part=["within", "drift", "between"]).sum("part")
    np.testing.assert_allclose(parts, run["group_bif"].sel(part="total"), atol=1e-10)
    assert torch.isfinite(trainer.callback_metrics["influence/within/induction~induction"])
    assert torch.isfinite(trainer.callback_metrics["induction/prefix_matching"])


@pytest.mark.slow
@pytest.mark.whole_probes
def test_event_file_and_summary_hold_what_the_contract_names(tmp_path):
    callback = InfluenceCallback(ProbeSchedule(at_steps=[1, 3, 4]), SGLD)
    trainer = fit(tmp_path, "gpt2", [callback])
    events = EventAccumulator(trainer.log_dir, size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    points = events.Scalars("influence/within/induction~background")
    assert [point.step for point in points] == [1, 3, 4]
    stored = open_run(trainer.log_dir)["group_bif"].sel(part="within", group="induction", group_j="background")
    assert [point.value for point in points] == pytest.approx(stored.values.tolist(), rel=1e-6)
    assert [point.step for point in events.Scalars("influence/between/background~background")] == [3, 4]
    for tag in (
        "sampler/overhead",
        "sampler/seconds",
        "transition/in_window",
        "transition/signal",
        "influence/loss/induction",
    ):
        assert tag in tags["scalars"]
    assert "baseline/graddot/induction~induction" in tags["scalars"]
    assert {"influence/matrix/within", "influence/matrix/between", "influence/matrix/total"} <= set(tags["images"])
    # The overview comes before all others, at the last step.
    assert min([*tags["images"], *tags["scalars"]]) == "00_overview"
    assert [image.step for image in events.Images("00_overview")] == [trainer.global_step]
    assert (callback.folder / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert "run/summary/text_summary" in tags["tensors"]
    assert "custom_scalars__config__" in tags["tensors"]
    summary = json.loads((callback.folder / "summary.json").read_text())
    for key in ("probes", "transitions", "overhead", "chains_dropped", "nbeta", "localization", "lr", "version"):
        assert key in summary
    assert summary["probes"] == 3
    assert summary["overhead"] > 0
