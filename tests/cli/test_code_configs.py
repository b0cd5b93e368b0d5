"""The configurations of real text: the models they say, and the whole way to a report, made small."""

import shutil
import sysconfig
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from stagewise import open_run
from stagewise.cli.main import main
from stagewise.lm.module import CausalLM
from stagewise.probes.schedule import LogSpaced

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ("code", "code_gpu")
FILES = (
    "abc",
    "bisect",
    "calendar",
    "cmd",
    "colorsys",
    "copy",
    "glob",
    "heapq",
    "keyword",
    "sched",
    "shlex",
    "textwrap",
)


def read(name):
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def resolved(files, capsys, *more):
    """Settings as ``fit`` reads them from one file over another."""
    flags = [item for name in files for item in ("-c", str(CONFIGS / f"{name}.yaml"))]
    with pytest.raises(SystemExit) as left:
        main(["fit", *flags, *more, "--print_config"])
    assert not left.value.code
    return yaml.safe_load(capsys.readouterr().out)


def test_the_models_have_as_many_weights_as_the_page_says(capsys):
    weights = []
    for files in (NAMES[:1], NAMES):
        model = CausalLM(**resolved(files, capsys)["model"]["init_args"])
        weights.append(sum(weight.numel() for weight in model.parameters()))
    assert weights == [532_320, 1_841_920]


def test_no_repeats_are_mixed_in_and_seeds_and_context_agree(capsys):
    for files in (NAMES[:1], NAMES):
        settings = resolved(files, capsys)
        data, model = settings["data"]["init_args"], settings["model"]["init_args"]
        assert data["induction_fraction"] == 0
        assert data["context"] == model["config"]["max_position_embeddings"] == 256
        assert data["vocab_size"] == model["config"]["vocab_size"]
        assert settings["seed_everything"] == data["seed"]
        spaced, ratio = (
            settings["influence"]["schedule"]["log_spaced"],
            settings["influence"]["probe"]["reference_ratio"],
        )
        assert spaced["last"] == settings["trainer"]["max_steps"]
        steps = LogSpaced(**spaced).steps()
        assert min(later / earlier for earlier, later in pairwise(steps)) >= ratio


@pytest.fixture
def small(tmp_path):
    """``configs/code.yaml`` on twelve files of the standard library, in seconds."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in FILES:
        shutil.copy(Path(sysconfig.get_paths()["stdlib"]) / f"{name}.py", folder)
    settings = read("code")
    settings["trainer"] |= {"max_steps": 8, "enable_progress_bar": False, "enable_model_summary": False}
    settings["trainer"]["logger"]["init_args"]["save_dir"] = str(tmp_path / "runs")
    settings["trainer"]["callbacks"][0]["init_args"] |= {"every_n_steps": 2, "num_sequences": 2}
    model = settings["model"]["init_args"]
    model["config"] |= {"vocab_size": 600, "max_position_embeddings": 64, "hidden_size": 16, "intermediate_size": 32}
    model["config"]["num_hidden_layers"] = 1
    settings["data"]["init_args"] |= {
        "corpus": str(folder), "vocab_size": 600, "context": 64, "batch_size": 4, "num_observed": 24,
        "num_sampling": 8, "num_val": 4, "held_out_fraction": 0.3, "cache_dir": str(tmp_path),
    }  # fmt: skip
    settings["influence"]["schedule"] = {"at_steps": [1, 2, 4, 6, 8]}
    settings["influence"]["sgld"] |= {"num_chains": 2, "num_draws": 3, "num_burnin_steps": 1}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_small_run_has_classes_control_and_text_alone(small, tmp_path):
    assert main(["fit", "-c", str(small), "--influence.schedule.at_steps", "[1, 2]", "--trainer.max_steps", "2"]) == 0
    run = open_run(tmp_path / "runs" / "code" / "version_0")
    assert run.stagewise.groups == read("code")["data"]["init_args"]["classes"]
    assert run["step"].values.tolist() == [1, 2]
    assert (run["control_chains"] > 0).values.tolist() == [True, False]
    assert run.sizes["sample"] == 24


@pytest.mark.slow
def test_the_report_of_a_small_run_tells_its_course(small, tmp_path):
    sampler = {"num_chains": 4, "num_draws": 6, "num_burnin_steps": 8}
    assert (
        main(["fit", "-c", str(small), *(f"--influence.sgld.{name}={value}" for name, value in sampler.items())]) == 0
    )
    folder = tmp_path / "runs" / "code" / "version_0"
    assert main(["report", str(folder)]) == 0
    text = (folder / "report" / "report.md").read_text()
    assert "| prefix_matching | " in text
    assert "## Loss-free control\n\nThe chains were repeated" in text
    assert "**Course of the influence of each group on itself**" in text
    assert "Course of the influence of each group on itself" in (folder / "report" / "report.html").read_text()


def test_the_intervention_trains_the_model_and_the_text_of_the_run(capsys):
    fit, intervention = resolved(NAMES[:1], capsys), read("intervention_code")
    given = CausalLM(**fit["model"]["init_args"]).hparams
    assert CausalLM(**intervention["model"]["init_args"]).hparams == given
    assert intervention["training"]["gradient_clip_val"] == fit["trainer"]["gradient_clip_val"]
    data = {**intervention["data"]["init_args"]}
    assert f"rich_in_{data.pop('rich_class')}" == intervention["weights"]["group"]
    data.pop("rich_share")
    # Fewer classes are looked at; what is trained on is the same.
    assert set(data.pop("classes")) <= set(fit["data"]["init_args"]["classes"])
    assert data == {name: fit["data"]["init_args"][name] for name in data}
    assert {"corpus", "vocab_size", "context", "batch_size", "induction_fraction"} <= set(data)


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [("fit", "stdlib", "code"), ("intervene", "intervention_stdlib", "intervention_code")],
)
def test_the_configuration_that_it_replaces_is_named(capsys, command, old, new):
    assert main([command, "-c", f"configs/{old}.yaml"]) != 0
    said = capsys.readouterr().err
    assert f"configs/{new}.yaml" in said
    assert len(said.strip().splitlines()) == 1
