"""Processes that torchrun starts: against one process."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import xarray as xr
import yaml

from stagewise.errors import InputError
from stagewise.jobs.settings import plain_settings
from stagewise.jobs.sharing import Backend
from stagewise.runs.open import open_run
from stagewise.sampling.share import ALONE, ChainShare
from stagewise.sweep import ranks
from stagewise.sweep.measure import Task, device_of, measure_cells
from stagewise.sweep.ranks import agreed, joined_ranks
from stagewise.sweep.study import prepare_sweep
from tests.sweep.tiny import SGLD, model, swept, tiny_config

TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"),
    *("--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
]


def started(config, file: Path):
    """The command of a user, on two processes."""
    content = plain_settings(config)
    for name in ("model", "precision"):  # nothing, and the default by its member's name
        content.pop(name)
    file.write_text(yaml.safe_dump(content))
    return subprocess.Popen(
        [*TORCHRUN, "-m", "stagewise", "sweep", "-c", str(file)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process):
    said, wrong = process.communicate(timeout=300)
    return process.returncode, said, wrong


def in_one_process(config):
    lines: list[str] = []
    swept(config, lines.append)
    return lines


@pytest.fixture(scope="module")
def config(checkpoints, tmp_path_factory):
    """Three chains for two processes; tokens of a sequence, a head, scores of heads."""
    base = tiny_config(tmp_path_factory.mktemp("ranks"), checkpoints)
    return replace(
        base,
        sgld=replace(SGLD, num_chains=3, num_draws=30),
        probe=replace(base.probe, token_samples=[1]),
        components=["all", "layer1.head0"],
        query=[1, 3],
    )


def check_same_results(left: Path, right: Path):
    for name in ("groups.csv", "components.csv", "circuits.csv", "classes.md", "tokens/step4.html"):
        assert (left / name).read_text() == (right / name).read_text(), name
    for folder in (".", "components/layer1.head0"):
        runs = [open_run(item / folder).drop_vars("seconds") for item in (left, right)]
        for run in runs:
            run.attrs.pop("summary")
        xr.testing.assert_identical(*runs)


@pytest.mark.slow
def test_two_processes_find_bit_for_bit_what_one_finds_and_a_killed_sweep_goes_on_in_either(config, tmp_path):
    one, two, cut = (replace(config, output=str(tmp_path / name)) for name in ("one", "two", "cut"))
    in_one_process(one)
    code, said, wrong = ended(started(two, tmp_path / "two.yaml"))
    assert code == 0, wrong[-3000:]
    assert said.count("at best, the chains of each shared by 2 processes") == 1  # the first process alone speaks
    assert said.count("[6/6] ") == 1
    check_same_results(Path(one.output), Path(two.output))

    process = started(cut, tmp_path / "cut.yaml")
    cells = Path(cut.output) / "cells"
    until = time.monotonic() + 120
    while len(list(cells.glob("*/step*/cell.json"))) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.terminate()  # torchrun ends its processes at once, where they are
    ended(process)
    kept = len(list(cells.glob("*/step*/cell.json")))
    assert 2 <= kept < 6
    assert in_one_process(cut)[0] == f"{kept} of 6 cells are there already"
    check_same_results(Path(one.output), Path(cut.output))


@pytest.mark.slow
def test_what_one_process_would_refuse_is_said_once_and_nothing_is_written(config, tmp_path):
    bad = replace(config, output=str(tmp_path / "out"), steps=[3])
    code, _, wrong = ended(started(bad, tmp_path / "bad.yaml"))
    assert code != 0
    assert len([line for line in wrong.splitlines() if "got steps 3, of which" in line]) == 1
    assert not Path(bad.output).exists()


def test_fewer_chains_than_processes_are_refused(config):
    share = ChainShare(0, 4, lambda mine: [mine] * 4)
    with pytest.raises(InputError, match="num_chains=3; expected at least one for each of 4 processes"):
        prepare_sweep(config, share)


@pytest.mark.parametrize("changed", [{"num_workers": 2}, {"backend": Backend.dask}])
def test_checkpoints_are_not_shared_out_by_the_processes_that_share_chains(config, changed):
    share = ChainShare(0, 2, lambda mine: [mine] * 2)
    with pytest.raises(InputError, match="1 and loky under torchrun"):
        prepare_sweep(replace(config, **changed), share)


def refuse():
    raise InputError("got this")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_refusal_of_any_process_ends_all_and_the_first_says_it(rank):
    others = {0: [None, "got that"], 1: ["got that", None]}[rank]

    def gather(mine):
        return [mine if place == rank else other for place, other in enumerate(others)]

    share = ChainShare(rank, 2, gather)
    for work in (lambda: "fine", refuse):
        if rank == 0:
            said = "got this" if work is refuse else "got that"
            with pytest.raises(InputError, match=said):
                agreed(share, work)
        else:
            with pytest.raises(SystemExit) as caught:
                agreed(share, work)
            assert caught.value.code == 2
    assert agreed(ChainShare(rank, 2, lambda mine: [mine] * 2), lambda: "fine") == "fine"


def test_a_cell_that_one_process_refuses_is_refused_in_all(config, tmp_path):
    """Before any waits for the draws of the others."""

    def gather(mine):
        return [mine, "got what the other refuses"]

    def never(work):
        pytest.fail("waits for draws")

    sweep = prepare_sweep(replace(config, output=str(tmp_path / "out")))
    cells = measure_cells(sweep.config, sweep.data, model(), Task(1, ("all",)), share=ChainShare(0, 2, gather, never))
    with pytest.raises(InputError, match="at step 1: got what the other refuses"):
        next(cells)
    assert not (tmp_path / "out").exists()


def test_another_process_that_has_gone_is_told_in_one_line(monkeypatch):
    def gone(*_, **__):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    monkeypatch.setattr(ranks.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(ranks.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(ranks.dist, "all_gather_object", gone)
    monkeypatch.setattr(ranks.dist, "send_object_list", gone)
    monkeypatch.setattr(ranks.dist, "broadcast_object_list", gone)
    for exchange in (ranks._gathered, ranks._collected, ranks._decided):
        with pytest.raises(SystemExit, match="another process of this sweep has ended"):
            exchange("mine" if exchange is ranks._gathered else lambda: "mine")


def test_alone_a_refusal_is_the_error_itself():
    with joined_ranks() as share, pytest.raises(InputError, match="got this"):
        agreed(share, refuse)
    assert share is ALONE


def test_each_process_of_a_machine_has_a_gpu_of_its_own(config, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_RANK", "3")
    asked = []
    monkeypatch.setattr(torch, "zeros", lambda *_, device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, expected in (("auto", "cuda:3"), ("cuda", "cuda:3"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        assert device_of(replace(config, device=name)) == torch.device(expected)
    assert len(asked) == 4
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert device_of(replace(config, device="auto")) == torch.device("cuda")
