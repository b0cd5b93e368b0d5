from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stagewise.errors import InputError
from stagewise.runs.open import open_run
from stagewise.sweep.config import CircuitSettings
from stagewise.sweep.results import write_results
from stagewise.sweep.study import prepare_sweep, run_cells
from tests.sweep.tiny import tiny_config, tokenizer


def test_each_checkpoint_has_a_page_of_the_chosen_texts_with_the_query_outlined(checkpoints, tmp_path):
    given = tiny_config(tmp_path, checkpoints, steps=[1, 2], circuits=CircuitSettings(enabled=False))
    config = replace(given, probe=replace(given.probe, token_samples=[1, 3]), query=[3, 5])
    sweep = prepare_sweep(config)
    run_cells(sweep, lambda _: None)
    assert Path(config.output) / "tokens" in write_results(sweep)
    ids = sweep.data.observed["input_ids"][3]
    assert "".join(sweep.texts[1]) == tokenizer().decode(ids)
    run = open_run(config.output, trace=True)["token_bif"]
    assert run["chosen"].values.tolist() == [1, 3]
    events = EventAccumulator(str(Path(config.output) / "tokens"))
    events.Reload()
    (tag,) = events.Tags()["tensors"]
    assert [tensor.step for tensor in events.Tensors(tag)] == [1, 2]
    assert events.Tags()["images"] == ["influence/token_colours"]
    assert [image.step for image in events.Images("influence/token_colours")] == [1, 2]
    for step in (1, 2):
        page = (Path(config.output) / "tokens" / f"step{step}.html").read_text()
        assert page.count('class="query"') == 1
        assert f"step {step}" in page
        row = run.sel(step=step, token_part="total", chosen=3, token=4)
        assert np.isfinite(row).all()


@pytest.mark.parametrize("query", [[0, 5], [1], [1, 0], [1, 16]])
def test_a_query_outside_of_the_chosen_texts_is_refused(checkpoints, tmp_path, query):
    given = tiny_config(tmp_path, checkpoints)
    with pytest.raises(InputError, match="query"):
        replace(given, probe=replace(given.probe, token_samples=[1, 3]), query=query)
    with pytest.raises(InputError, match="query"):
        replace(given, query=query)
