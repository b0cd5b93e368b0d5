"""The whole experiment in small: what is read from the run is what the run holds, and methods meet."""

import json
import logging
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from stagewise import open_run
from stagewise.errors import InputError
from stagewise.studies.toy.stages import CHAINS, METHODS
from stagewise.studies.toy.study import run_seeds, seed_folder
from stagewise.studies.toy.validation import summarize, write_validation
from stagewise.toy.hierarchy import Hierarchy
from tests.studies.toy.small import small_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return small_config(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def lines():
    return []


@pytest.fixture(scope="module")
def results(config, lines):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run_seeds(config, lines.append)


def test_influence_is_minus_the_covariance_of_the_stored_draws(config, results):
    run = open_run(seed_folder(_path(config), 3), trace=True)
    losses = run["loss"].values.astype(np.float64)
    chains = results[0].chains
    settled = run["equilibrated"].values != 0
    assert settled.any()
    for step in (0, 5, int(settled.argmax())):
        by_chain = np.stack([-np.cov(chain.T, ddof=0) for chain in losses[step]])
        np.testing.assert_allclose(chains["bif"][step], by_chain.mean(axis=0), rtol=1e-9, atol=1e-18)
        error = by_chain.std(axis=0, ddof=1) / np.sqrt(len(by_chain))
        told = error if settled[step] else np.full_like(error, np.nan)  # no error out of equilibrium
        np.testing.assert_allclose(chains["bif_se"][step], told, rtol=1e-9, atol=1e-18)
        siblings = by_chain[:, 0, 1]
        assert chains["relation_bif"].sel(relation="sibling")[step] == pytest.approx(siblings.mean())


def test_the_run_is_the_callbacks_own(config, results):
    folder = seed_folder(_path(config), 3)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["probe_steps"] == config.probed_steps
    assert summary["min_prominence"] == config.influence.probe.min_prominence
    assert results[0].chains.attrs["windows"] == [
        [transition["start"], transition["peak"], transition["end"]] for transition in summary["transitions"]
    ]
    assert list(folder.glob("events.out.tfevents.*"))


def test_trained_and_replayed_weights_are_the_same(results):
    assert results[0].figures["replay_error"] < 1e-12


def test_methods_meet_even_in_small(results):
    figures = results[0].figures
    assert figures["sgld_gaussian_r"] > 0.9
    assert figures["tangent_error"] < 0.05
    assert figures["closed_form_error_aligned"] < 0.02


def test_every_method_has_every_pair(config, results):
    found = {(flip.method, flip.item, flip.item_j) for flip in results[0].flips}
    assert found == {
        (method, a, b) for method in METHODS for a, b in [("dog", "cat"), ("dog", "granite"), ("cat", "granite")]
    }
    assert CHAINS in METHODS


def test_validation_has_median_range_and_seeds_of_each_figure(config, results, tmp_path):
    path = write_validation(tmp_path / "validation.json", results, config)
    written = json.loads(path.read_text())
    for name in ("closed_form_error_aligned", "sgld_gaussian_r", "window_end_r", "full_loo_sign"):
        figure = written[name]
        assert figure["min"] <= figure["median"] <= figure["max"]
        assert figure["seeds"] == [3]
        assert figure["values"] == [results[0].figures[name]]
    assert written["_about"]["sgld"]["nbeta"] == 2000.0


def test_medians_are_over_the_seeds_that_have_the_figure(results):
    one = replace(results[0], seed=1, figures={"a": 1.0, "b": 5.0})
    others = [replace(results[0], seed=seed, figures={"a": float(seed)}) for seed in (2, 6)]
    table = summarize([one, *others])
    assert table["a"] == {"median": 2.0, "min": 1.0, "max": 6.0, "seeds": [1, 2, 6], "values": [1.0, 2.0, 6.0]}
    assert table["b"]["seeds"] == [1]


def test_progress_is_told_of_each_task(results, lines):
    assert len(lines) == 2
    assert lines[0].startswith("[1/2] seed 3: trained and probed; flagged: ")
    assert lines[1] == "[2/2] seed 3: retrained"


@pytest.mark.slow
def test_a_second_run_equals_the_first_and_takes_its_place(config, results):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = run_seeds(config, lambda line: None)
    xr.testing.assert_identical(again[0].chains, results[0].chains)
    xr.testing.assert_identical(again[0].exact, results[0].exact)
    assert not list(_path(config).glob(".*"))


@pytest.mark.slow
def test_two_processes_give_what_one_gives(config, results, tmp_path):
    shared = run_seeds(replace(config, output=str(tmp_path), num_workers=2), lambda line: None)
    np.testing.assert_array_equal(shared[0].chains["bif"], results[0].chains["bif"])
    np.testing.assert_array_equal(shared[0].exact["unrolled"], results[0].exact["unrolled"])


def test_folders_of_something_else_are_not_touched(config, tmp_path):
    mine = tmp_path / "seed-3" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match="holds more than a run"):
        run_seeds(replace(config, output=str(tmp_path)), lambda line: None)
    assert mine.read_text() == "mine"


def test_a_run_of_ones_own_that_has_probes_is_not_replaced(config, results, tmp_path):
    folder = tmp_path / "seed-3"
    shutil.copytree(seed_folder(_path(config), 3), folder)
    (folder / "checkpoints").mkdir()
    with pytest.raises(InputError, match="holds more than a run"):
        run_seeds(replace(config, output=str(tmp_path)), lambda line: None)


def test_curves_are_kept_beside_the_run(config, results):
    path = seed_folder(_path(config), 3) / "curves.zarr"
    for group, curves in (("chains", results[0].chains), ("exact", results[0].exact)):
        stored = xr.open_zarr(path, group=group, consolidated=False)
        for name in ("bif", "unrolled"):
            if name in curves:
                np.testing.assert_array_equal(stored[name].values, curves[name].values)


@pytest.mark.slow
def test_nothing_is_left_behind_in_the_process(config, results):
    threads = torch.get_num_threads()
    logger = logging.getLogger("lightning.pytorch")
    before = (logger.level, torch.random.get_rng_state(), list(warnings.filters))
    measure_tree(config)
    assert logger.level == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert warnings.filters == before[2]
    assert torch.get_num_threads() == threads


def _path(config):
    return Path(config.output)


@pytest.mark.slow
def test_the_smallest_tree_and_a_lopsided_one_can_be_measured(tmp_path):
    config = small_config(tmp_path)
    for name, tree in {
        "two": {"thing": ["dog", "rock"]},
        "deep": {"a": ["x", {"b": ["y", {"c": ["z", "w"]}]}]},
    }.items():
        hierarchy = Hierarchy(tree)
        result = measure_tree(replace(config, hierarchy=hierarchy, output=str(tmp_path / name)))
        assert result.exact["representation"].shape == (8, len(hierarchy.items), 3)
        assert len(result.flips) == len(METHODS) * len(hierarchy.pairs())
        assert "tangent_error" in result.figures


def measure_tree(config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run_seeds(config, lambda line: None)[0]
