"""The floors: a file imports only from lower floors, or from its own folder."""

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "stagewise"

FLOORS = {
    "errors": 0,
    "checks": 0,
    "files": 0,
    "structure": 0,
    "batches": 0,
    "losses": 0,
    "isolation": 0,
    "loading": 1,
    "sampling": 1,
    "calibration": 2,
    "influence": 2,
    "phases": 3,
    "probes": 4,
    "interventions": 4,
    "toy": 4,
    "lm": 5,
    "runs": 5,
    "reporting": 6,
    "callbacks": 7,
    "jobs": 8,
    "sweep": 9,
    "studies": 9,
    "cli": 10,
}
KNOWS_LIGHTNING = {"lm", "toy", "callbacks", "jobs", "sweep", "studies", "cli"}
OUTSIDE = {"__init__", "__main__", "_version"}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


@cache
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


def test_imports_only_from_lower_floors():
    assert {room(path) for path in FILES} == set(FLOORS)
    upward = []
    for path in FILES:
        here = room(path)
        for name in imports(path):
            if not name.startswith("stagewise."):
                continue
            other = name.split(".")[1]
            if other in OUTSIDE or other == here:
                continue
            if not (FLOORS[other] < FLOORS[here] or FLOORS[other] == FLOORS[here] == 0):
                upward.append(f"{path.relative_to(PACKAGE)} -> {name}")
    assert not upward


def test_science_does_not_know_lightning():
    host = {"lightning", "pytorch_lightning"}
    science = [path for path in FILES if room(path) not in KNOWS_LIGHTNING]
    assert not [path for path in science if any(name.split(".")[0] in host for name in imports(path))]


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
