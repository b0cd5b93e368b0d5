"""Contents of a case file: facts on its package, and the lines of glue.

A case is one file in ``cases/``. It makes synthetic data and a module of the package, and has

* ``REQUIRES``: what pip installs for it, with versions;
* ``TRAINED``: what is trained, in one line for the table;
* between ``# glue`` and ``# end of glue``, what a user writes to attach the callback, beside the line that makes it;
* ``ARGUMENTS``: what ``InfluenceCallback`` is given of that, by name;
* ``train(callbacks)``: the training as its users run it, for ``STEPS`` optimizer steps, with ``callbacks``;
* optionally ``own_loss(module, batch)``: the loss that the package itself trains on, of the observed samples, from the
  first training batch. If not there: ``module.training_step(batch, 0)``. Then the first batch has the observed samples;
* optionally ``LIMITS``: words for the table.
"""

from dataclasses import dataclass
from pathlib import Path

CASES = Path(__file__).parent / "cases"
STEPS = 8
PROBE_EVERY = 4
_BEGIN, _END = "# glue", "# end of glue"


@dataclass(frozen=True)
class Glue:
    """The lines between the markers of a case file.

    Attributes:
        text: as they stand there.
        count: how many, without blank lines and comments.
    """

    text: str
    count: int


def glue_of(case: str) -> Glue:
    """The glue of a case, by the name of its file without ``.py``; empty where a module needs none.

    Raises:
        ValueError: the file has not one marker of each kind, in order.
    """
    lines = (CASES / f"{case}.py").read_text().splitlines()
    marks = [number for number, line in enumerate(lines) if line.strip() in (_BEGIN, _END)]
    if len(marks) != 2 or [lines[mark].strip() for mark in marks] != [_BEGIN, _END]:
        raise ValueError(
            f"got {len(marks)} glue markers in {case}.py; expected `{_BEGIN}` and then `{_END}`, once each"
        )
    inside = lines[marks[0] + 1 : marks[1]]
    kept = [line for line in inside if line.strip() and not line.strip().startswith("#")]
    return Glue("\n".join(inside).strip("\n"), len(kept))


def case_names() -> list[str]:
    """All cases, in alphabetical order."""
    return sorted(path.stem for path in CASES.glob("*.py"))
