"""Report on groups at the start of a run: number of losses in each, and in common to each two."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stagewise import InfluenceCallback, ProbeConfig, ProbeSchedule
from stagewise.lm.module import CausalLM
from tests.callbacks.language_runs import CONFIG, CONTEXT, SGLD, fit, language_model, rows
from tests.callbacks.runs import Regression, X, Y, regression_data
from tests.callbacks.runs import fit as fit_regression

pytestmark = pytest.mark.filterwarnings("ignore")

OBSERVED = {"input_ids": rows()[:6]}
FIRST = ProbeSchedule(at_steps=[2])
QUIET = ProbeConfig(draw_matrices=False)
TOKENS = {
    "even": OBSERVED["input_ids"][:, 1:] % 2 == 0,
    "low": OBSERVED["input_ids"][:, 1:] < 4,
}
SAMPLES = {"first": torch.arange(6) < 4, "last": torch.arange(6) >= 3}


class Padded(CausalLM):
    """Module without losses at the last two positions of each sequence."""

    def per_sample_loss(self, batch):
        losses, mask = super().per_sample_loss(batch)
        return losses, mask & (torch.arange(CONTEXT - 1) < CONTEXT - 3)


def page(folder, groups, module=None):
    callback = InfluenceCallback(FIRST, SGLD, QUIET, observed=OBSERVED, groups=groups)
    trainer = fit(folder, module or language_model(), [callback], max_steps=2)
    return Path(trainer.log_dir) / "classes.md"


def test_token_groups_are_counted_over_existing_losses(tmp_path):
    text = page(tmp_path, TOKENS, Padded("gpt_neox", config=CONFIG)).read_text()
    ids = OBSERVED["input_ids"].tolist()
    targets = [token for row in ids for token in row[1 : CONTEXT - 2]]
    even, low = sum(target % 2 == 0 for target in targets), sum(target < 4 for target in targets)
    both = sum(target % 2 == 0 and target < 4 for target in targets)
    assert text.startswith("# Tokens of the observed classes\n\n| class | targets | share |")
    for line in (f"| even | {even} |", f"| low | {low} |", f"| *in several* | {both} |", f"| low | {both} | {low} |"):
        assert line in text
    assert f"| *all targets* | {len(targets)} |" in text


def test_groups_of_samples_are_counted_in_samples_even_for_token_losses(tmp_path):
    text = page(tmp_path, SAMPLES).read_text()
    assert "token" not in text.lower()
    assert "target" not in text
    for line in ("# Samples of the observed groups", "| first | 4 | 66.7% |", "| first | 4 | 1 |", "| last | 1 | 3 |"):
        assert line in text
    callback = InfluenceCallback(FIRST, SGLD, QUIET, observed=(X[:6], Y[:6]), groups=SAMPLES)
    fit_regression(tmp_path / "regression", Regression(), regression_data(), callback, max_steps=2)
    assert (callback.folder / "classes.md").read_text() == text


def test_groups_of_samples_among_token_groups_have_all_losses_of_their_samples(tmp_path):
    text = page(tmp_path, {**TOKENS, **SAMPLES}).read_text()
    assert f"| first | {4 * (CONTEXT - 1)} |" in text
    both = int(TOKENS["even"][:4].sum())
    assert f"| first | {both} |" in text.split("in both")[1]


def test_tensorboard_has_the_same_text_once(tmp_path):
    path = page(tmp_path, TOKENS)
    events = EventAccumulator(str(path.parent), size_guidance={"tensors": 0})
    events.Reload()
    (event,) = events.Tensors("run/classes/text_summary")
    assert event.step == 0
    assert event.tensor_proto.string_val[0].decode() == path.read_text()


def test_a_run_without_groups_has_no_page_and_removes_an_old_one(tmp_path):
    assert not page(tmp_path / "none", None).exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "classes.md").write_text("of a run that was cut off")
    (tmp_path / "out" / "overview.png").write_bytes(b"of the same")
    callback = InfluenceCallback(FIRST, SGLD, QUIET, observed=OBSERVED, output_dir=str(tmp_path / "out"))
    fit(tmp_path, language_model(), [callback], max_steps=2)
    assert not (tmp_path / "out" / "classes.md").exists()
    assert not (tmp_path / "out" / "overview.png").exists()


def test_the_page_is_written_before_the_first_step(tmp_path):
    class Witness(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            self.there = (Path(trainer.log_dir) / "classes.md").is_file()

    witness = Witness()
    callback = InfluenceCallback(FIRST, SGLD, QUIET, observed=OBSERVED, groups=TOKENS)
    fit(tmp_path, language_model(), [callback, witness], max_steps=2)
    assert witness.there
