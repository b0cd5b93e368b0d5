"""README and documentation: every code block runs, every command parses, and tables tell what the code has."""

import importlib
import re
import shlex
from dataclasses import fields
from pathlib import Path

import lightning
import matplotlib
import pytest
import torch
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from transformers import PreTrainedTokenizerFast

import stagewise
from stagewise.cli.detect import detect_parser
from stagewise.cli.help import asks_for_help
from stagewise.cli.main import main
from stagewise.cli.report import report_parser
from stagewise.probes.flags import EQUILIBRIUM_FLAGS, FLAG_NAMES, Thresholds
from stagewise.reporting import tags
from stagewise.reporting.glossary import TERMS
from tests.lm_families import tiny_gpt2

pytestmark = pytest.mark.filterwarnings("ignore")

for name in stagewise.__all__:
    getattr(stagewise, name)  # loaded now, before a fixture changes what their defaults are made of

ROOT = Path(__file__).parents[1]
DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", "CHANGELOG.md", "benchmarks/README.md", *DOCS]

FOREIGN = "docs/foreign.md"
"""Its blocks need twenty packages, and are those of the cases that `make foreign` runs."""

OF_A_RUN = {"docs/numbers.md", "docs/files.md", "docs/gallery.md"}
"""Pages that read the run of the demo; here they read a small one."""

CHANGED = {"docs/gallery.md": {"step=645": "step=40"}}
"""What a page says of the demo, and is otherwise in the small run."""

NEEDS = {"docs/devinterp.md": "devinterp"}

SLOW = {"README.md"}
"""Pages that take more than 5 s."""


def text_of(page):
    return (ROOT / page).read_text()


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), flags=re.MULTILINE | re.DOTALL)


def pages_with(language):
    found = [page for page in sorted(PAGES) if blocks(page, language)]
    return [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page in found if page != FOREIGN]


def names_of_the_readme():
    """What the README takes as the reader's own."""
    x = torch.randn(32 * 500, 8)
    dataset = TensorDataset(x, (x[:, 0] > 0).long())
    ids = torch.randint(11, (6, 12))
    words = Tokenizer(WordLevel({word: at for at, word in enumerate("abcdef12345")}))
    words.pre_tokenizer = WhitespaceSplit()
    texts = [" ".join("abcdef12345"[token] for token in row) for row in torch.randint(11, (8, 12)).tolist()]
    return {
        "L": lightning,
        "torch": torch,
        "F": F,
        "dataset": dataset,
        "train_loader": DataLoader(dataset, batch_size=32),
        "module": Linear(),
        "model": tiny_gpt2(),
        "training_ids": torch.randint(11, (24, 12)),
        "ids": ids,
        "is_repeat": ids[:, 1:] == ids[:, :-1],
        "tokenizer": PreTrainedTokenizerFast(tokenizer_object=words),
        "texts": texts,
        "text_loader": DataLoader([{"input_ids": row} for row in torch.randint(11, (3200, 12))], batch_size=32),
    }


class Linear(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    """A folder that holds ``runs/induction/version_0``, of the demo made small."""
    folder = tmp_path_factory.mktemp("demo")
    settings = yaml.safe_load((ROOT / "configs" / "induction.yaml").read_text())
    settings["trainer"] |= {"max_steps": 40, "enable_progress_bar": False, "enable_model_summary": False}
    settings["trainer"]["logger"]["init_args"]["save_dir"] = str(folder / "runs")
    settings["model"]["init_args"]["config"] |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    settings["data"]["init_args"] |= {"num_sequences": 1600, "num_observed": 6, "num_sampling": 32, "num_val": 16}
    settings["influence"]["schedule"] = {"at_steps": [5, 10, 15, 20, 30, 40]}
    settings["influence"]["sgld"] |= {"num_chains": 3, "num_draws": 6, "batch_size": 8}
    settings["influence"]["probe"] |= {"control_every": 2, "draw_matrices": False, "check_curvature": False}
    (folder / "small.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "-c", str(folder / "small.yaml")]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_runs_block_by_block(page, tmp_path, monkeypatch, request):
    if page in NEEDS:
        pytest.importorskip(NEEDS[page])
    matplotlib.use("Agg")
    monkeypatch.chdir(request.getfixturevalue("small_demo") if page in OF_A_RUN else tmp_path)
    names = names_of_the_readme() if page == "README.md" else {}
    for number, code in enumerate(blocks(page, "python"), start=1):
        for given, shorter in CHANGED.get(page, {}).items():
            code = code.replace(given, shorter)
        exec(compile(code, f"{page}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_python_of_a_page_is_python(page):
    for code in blocks(page, "python"):
        compile(code, page, "exec")


def test_the_glue_for_other_packages_is_that_of_its_cases():
    cases = "\n".join(path.read_text() for path in (ROOT / "benchmarks" / "foreign" / "cases").glob("*.py"))
    found = blocks(FOREIGN, "python")
    assert len(found) >= 20
    for code in found:
        for part in code.strip().split("\n\n\n")[:-1]:
            assert part in cases, part


BASES = {"stagewise.lm.text.TextData": "configs/code.yaml"}


def parses(arguments, capsys):
    """Read settings as the command would, and nothing more."""
    ends_by_itself = asks_for_help(arguments)
    try:
        status = main([*arguments, *([] if ends_by_itself else ["--print_config"])])
    except SystemExit as leaving:
        status = leaving.code or 0
    return status == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", [item for item in sorted(PAGES) if blocks(item, "yaml")])
def test_the_yaml_of_a_page_is_a_configuration(page, tmp_path, capsys):
    for block in blocks(page, "yaml"):
        path = tmp_path / "block.yaml"
        path.write_text(block)
        given = yaml.safe_load(block)
        base = BASES.get(given.get("data", {}).get("class_path"), "configs/induction.yaml")
        arguments = ["sweep"] if "checkpoints" in given else ["fit", "-c", str(ROOT / base)]
        good, words = parses([*arguments, "-c", str(path)], capsys)
        assert good, words


def test_a_configuration_with_a_mistake_would_be_found(tmp_path, capsys):
    path = tmp_path / "block.yaml"
    path.write_text("influence: {sgld: {nbetta: 3.0}}")
    good, words = parses(["fit", "-c", str(ROOT / "configs" / "induction.yaml"), "-c", str(path)], capsys)
    assert not good
    assert "nbetta" in words


def commands(page):
    """Lines of shell, continued ones joined, without comments."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    return [found for line in text.splitlines() if (found := shlex.split(line, comments=True))]


def check_stagewise(command, rest, capsys):
    if command in ("report", "detect"):
        (report_parser() if command == "report" else detect_parser()).parse_args(rest)
        return
    if command in ("--help", "--version"):
        return
    if command == "--print-completion":
        assert rest[0] in ("bash", "zsh")
        return
    good, words = parses([command, *rest], capsys)
    assert good, words


@pytest.mark.parametrize("page", [item for item in sorted(PAGES) if blocks(item, "bash")])
def test_the_commands_of_a_page_are_there(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), flags=re.MULTILINE))
    for program, *rest in commands(page):
        if program == "make":
            assert set(rest) <= targets
        elif program.endswith("stagewise"):
            check_stagewise(rest[0], rest[1:], capsys)
        elif program == "srun":
            at = rest.index("stagewise")
            check_stagewise(rest[at + 1], rest[at + 2 :], capsys)
        elif program.endswith("python") and rest[0].endswith(".py"):
            assert (ROOT / rest[0]).is_file()
        else:
            assert program in ("python3", ".venv/bin/python", ".venv/bin/tensorboard"), program


def test_the_readme_fits_on_few_screens_and_its_links_lead_somewhere():
    readme = text_of("README.md")
    assert len(readme.splitlines()) <= 250
    links = [item for item in re.findall(r"\]\(([^)#\s]+)", readme) if not item.startswith("https:")]
    assert len(links) > 20
    for link in links:
        assert (ROOT / link).exists(), link


def rows(page, first):
    """Cells of each row of the table whose header begins with ``first``."""
    table = text_of(page).split(f"| {first} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_each_flag_stands_in_the_settings_page_with_its_limit():
    found = {row[0].strip("| `"): row for row in rows("docs/settings.md", "flag")}
    assert set(found) == set(FLAG_NAMES)
    for field in fields(Thresholds):
        name = re.sub("_(max|min)$", "", field.name)
        name = {"slide_chance": "slide", "lr_curvature": "unstable"}.get(name, name)
        assert float(re.match(r"[\d.]+", found[name][2])[0]) == field.default, name
    told = re.search(r"\n(`not_finite`.*?) say that chains have", text_of("docs/settings.md"), flags=re.DOTALL)
    assert set(re.findall(r"`(\w+)`", told[1])) == EQUILIBRIUM_FLAGS


def test_the_glossary_has_the_terms_of_reports_in_their_words():
    page = " ".join(text_of("docs/glossary.md").split())
    assert [term for term, words in TERMS.items() if f"* **{term}**: {words}" not in page] == []
    assert page.count("* **") == len(TERMS)


def test_each_tag_stands_in_the_page_of_files():
    constant = {value for name, value in vars(tags).items() if name.isupper() and isinstance(value, str)}
    made = {
        tags.influence("<part>", "<group>", "<group>"),
        tags.influence_error("<part>", "<group>", "<group>"),
        tags.influence_z("<part>", "<group>", "<group>"),
        tags.trace("<part>"),
        tags.matrix("<part>"),
        tags.class_maps("<part>"),
        tags.curves("<part>"),
        tags.gradient_dot("<group>", "<group>"),
        tags.control("<group>", "<group>"),
        tags.tracin("<group>", "<group>"),
        tags.damped_influence("<group>", "<group>"),
        tags.group_loss("<group>"),
        tags.llc("<group>"),
        tags.llc_error("<group>"),
        tags.group_weight("<group>"),
    }
    page = text_of("docs/files.md")
    assert {tag for tag in constant | made if f"`{tag}`" not in page} == set()


def test_the_api_page_has_every_public_name_once():
    found = re.findall(r"^::: (stagewise[\w.]+)$", text_of("docs/api.md"), flags=re.MULTILINE)
    named = {path.rpartition(".")[2]: path for path in found}
    assert len(named) == len(found)
    assert set(stagewise.__all__) - {"__version__"} <= set(named)
    for name, path in named.items():
        module = importlib.import_module(path.rpartition(".")[0])
        assert getattr(module, name) is getattr(stagewise, name, getattr(module, name))


def test_what_is_cited_is_this_version():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["version"] == stagewise.__version__
    assert f"version = {{{stagewise.__version__}}}" in text_of("docs/citing.md")


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load(text_of("mkdocs.yml"))["nav"]
    entries = [entry for section in nav for pages in section.values() for entry in pages]
    listed = {entry if isinstance(entry, str) else next(iter(entry.values())) for entry in entries}
    assert {f"docs/{page}" for page in listed} >= set(DOCS)
