"""The floors: a file imports only from lower floors, or from its own folder."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "stagewise"

FLOORS = {
    "errors": 0,
    "bounds": 0,
    "group_names": 0,
    "json_files": 0,
    "patterns": 0,
    "dotted_path": 0,
    "structure": 0,
    "whole_file": 0,
    "batches": 0,
    "collated_loss": 0,
    "causal_lm": 0,
    "language_models": 0,
    "losses": 0,
    "isolation": 0,
    "loading": 1,
    "sampling": 1,
    "influence": 2,
    "phases": 3,
    "probes": 4,
    "interventions": 4,
    "toy": 4,
    "lm": 5,
    "reporting": 5,
    "callbacks": 6,
    "experiments": 7,
    "cli": 8,
}
KNOWS_LIGHTNING = {"lm", "toy", "callbacks", "experiments", "cli"}
OUTSIDE = {"__init__", "__main__", "_version"}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module != "stagewise", f"{path}: import from the room, not from the public face"
            found.add(node.module or "")
    return found


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if room(path) not in OUTSIDE]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_lower_floors(path):
    here = room(path)
    assert here in FLOORS, f"{here} has no floor yet"
    for name in imports(path):
        if not name.startswith("stagewise."):
            continue
        other = name.split(".")[1]
        if other in OUTSIDE or other == here:
            continue
        lower = FLOORS[other] < FLOORS[here] or (FLOORS[other] == FLOORS[here] == 0)
        assert lower, f"{path.relative_to(PACKAGE)} imports upward: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_science_does_not_know_lightning(path):
    if room(path) not in KNOWS_LIGHTNING:
        assert not any(name.split(".")[0] in {"lightning", "pytorch_lightning"} for name in imports(path))


def test_no_import_cycles():
    graph = {}
    for path in FILES:
        module = ".".join(("stagewise", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        graph[module] = {name for name in imports(path) if name.startswith("stagewise.")}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"cycle: {' -> '.join((*trail, module))}"
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())
