"""Configurations of suites and papers: each is parsed, holds what its paper published, and runs."""

import math
from pathlib import Path

import pandas as pd
import pytest

from stagewise import open_run
from stagewise.cli.main import main
from stagewise.cli.sweep import sweep_parser
from stagewise.sampling.preconditioners.diagonal import RMSprop
from stagewise.sweep.config import SweepConfig
from tests.sweep.tiny import save_checkpoints, write_corpus

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIGS = Path(__file__).parents[2] / "configs"
SUITE = CONFIGS / "suite.yaml"
PAPERS = CONFIGS / "papers"
BEFORE = {
    "lee_tiny": [SUITE],
    "hoogland_tiny": [SUITE],
    "wang_tiny": [SUITE],
    "baker_tiny": [SUITE, PAPERS / "wang_tiny.yaml"],
}
"""Files that go before a recipe."""

PUBLISHED = {
    "lee": {"lr": 1e-3, "nbeta": 30, "localization": 300, "batch_size": 32, "num_chains": 4, "num_draws": 100},
    "wang": {"lr": 1e-3, "nbeta": 30, "localization": 200, "batch_size": 32, "num_chains": 4, "num_draws": 200},
    "hoogland": {"lr": 1e-3, "nbeta": 30, "localization": 200, "num_chains": 4, "num_draws": 200},
    "baker": {"lr": 1e-5, "nbeta": 10, "localization": 300, "num_steps_bw_draws": 160},
}

SMALL = """
data: {context: 16, num_observed: 4, num_sampling: 8, classes: [left_delimiter, right_delimiter]}
sgld: {lr: 1.0e-4, num_chains: 2, num_draws: 3, num_burnin_steps: 2, batch_size: 4}
circuits: {num_sequences: 2, segment_length: 4}
"""


def files_of(name):
    return [*BEFORE.get(name, []), PAPERS / f"{name}.yaml"]


def settings_of(files):
    parser = sweep_parser()
    given = [part for file in files for part in ("-c", str(file))]
    values = parser.instantiate_classes(parser.parse_args(given)).as_dict()
    values.pop("config")
    return SweepConfig(**values)


RECIPES = sorted(path.stem for path in PAPERS.glob("*.yaml"))


def test_each_paper_has_both_scales():
    assert set(RECIPES) == {*PUBLISHED, *BEFORE}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_parsed_and_writes_to_a_folder_of_its_name(name):
    assert settings_of(files_of(name)).output == f"runs/{name}"


def test_the_suite_is_parsed():
    config = settings_of([SUITE])
    assert config.output == "runs/suite"
    assert config.probe.control_every == 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_at_the_scale_of_its_paper_has_the_published_sampler(name):
    sgld = settings_of(files_of(name)).sgld
    assert {field: getattr(sgld, field) for field in PUBLISHED[name]} == PUBLISHED[name]
    assert (sgld.integrator, sgld.start, sgld.drift) == ("euler", "anchor", "plain")
    expected = RMSprop(frozen=False, bias_correction=False) if name == "baker" else None
    assert sgld.preconditioner == expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("suite")
    save_checkpoints(found / "suite", steps=[512, 724, 2048])
    write_corpus(found)
    (found / "small.yaml").write_text(SMALL)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", BEFORE)
def test_a_tiny_recipe_runs_on_any_suite(name, folder, tmp_path):
    output = tmp_path / "out"
    given = [part for file in [*files_of(name), folder / "small.yaml"] for part in ("-c", str(file))]
    places = [f"--checkpoints={folder / 'suite'}", f"--corpus={folder / 'corpus.txt'}", f"--output={output}"]
    assert main(["sweep", *given, *places, "--device=cpu"]) == 0
    table = pd.read_csv(output / "groups.csv")
    heads = [f"layer{layer}.head{head}" for layer in range(2) for head in range(2)]
    assert set(table["component"]) == ({"all"} if name in ("lee_tiny", "hoogland_tiny") else set(heads))
    assert set(table["step"]) == ({724} if name == "baker_tiny" else {512, 724, 2048})
    assert table["llc_all"].map(math.isfinite).all()
    if name == "lee_tiny":
        control = open_run(output)["control_group_bif"]
        assert control.notnull().any()
