"""One cell of the experiment: one arm of one seed, as it is kept on disk."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stagewise._version import __version__
from stagewise.checks.bounds import settle_fields
from stagewise.errors import InputError
from stagewise.files.json_input import read_json
from stagewise.files.writing import write_json
from stagewise.studies.intervention.outcomes import Ablation, Curve

_FOLDER = "cells"


@dataclass(frozen=True)
class Cell:
    """Results of one arm of one seed.

    Attributes:
        seed: of weights, data and order.
        arm: name of the arm, see :mod:`stagewise.studies.intervention.arms`.
        mechanism: ``sampling`` or ``loss``; ``none`` where weights stay 1.
        windows: (start, end) of the training steps with other weights; empty for none.
        note: in words, where the arm could not be run, or not as it is defined; else empty.
        max_steps: optimizer steps that the run might have had.
        end: training step at which it was measured, the same for all arms of a seed.
        curve: scores over training, beyond ``end`` where the head had still to form; None where the arm could not be
            run.
        final_losses: mean loss of each group of the held-out sequences at ``end``, nats per token.
        ablation: of the best head at ``end``; None where the arm could not be run.
        moved: budget: sum over steps of the mass that the weights moved, in steps.
        branched_at: training step up to which the run is that of the arm ``none``, and was not computed again; 0 where
            it was trained from the start.
        seconds: it took, wall clock.
        timeline: for the arm that is observed, what its probes and scores saw: ``first_probe``, ``onset``,
            ``within_onset``, ``peak`` and ``end``, training steps, None where not found; ``influence_onset`` too where
            ``onset`` is that of the score and there are probes.
    """

    seed: int
    arm: str
    mechanism: str
    windows: tuple[tuple[int, int], ...]
    note: str
    max_steps: int
    end: int
    curve: Curve | None
    final_losses: Mapping[str, float]
    ablation: Ablation | None
    moved: float
    branched_at: int
    seconds: float
    timeline: Mapping[str, int | None]

    @property
    def name(self) -> str:
        """See :func:`cell_name`."""
        return cell_name(self.arm, self.mechanism)

    @property
    def mean_score(self) -> float | None:
        """Area under the prefix score up to ``end``, divided by its steps, 0 to 1; None where the arm was not run."""
        return None if self.curve is None else self.curve.until(self.end).mean_score


def cell_name(arm: str, mechanism: str) -> str:
    """Returns an arm with its mechanism: ``<arm>_loss`` for loss weights, else the arm."""
    return f"{arm}_loss" if mechanism == "loss" else arm


def cell_path(output: Path, seed: int, name: str) -> Path:
    """Returns the path of the cell of an arm."""
    return output / _FOLDER / f"seed-{seed}" / f"{name}.json"


def write_cell(output: Path, cell: Cell) -> Path:
    """Keeps a finished cell; returns its path."""
    return write_json(cell_path(output, cell.seed, cell.name), {"version": __version__, **asdict(cell)})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def read_cell(output: Path, seed: int, name: str) -> Cell | None:
    """Returns a finished cell; None where there is none yet.

    Raises:
        InputError: the file is not one that :func:`write_cell` wrote.
    """
    path = cell_path(output, seed, name)
    if not path.is_file():
        return None
    content: dict[str, Any] = read_json(path, what="a finished cell", advice="delete it, and it is computed again")
    try:
        content.pop("version")
        curve, ablation = content.pop("curve"), content.pop("ablation")
        cell = Cell(
            **{**content, "windows": tuple((start, end) for start, end in content["windows"])},
            curve=None if curve is None else Curve(**{key: _tuple(value) for key, value in curve.items()}),
            ablation=None if ablation is None else Ablation(**ablation),
        )
        # Here, not where cells are made: a run whose losses are not finite is no file that others wrote.
        for part in (cell, cell.curve, cell.ablation):
            if part is not None:
                settle_fields(part)
        return cell
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"got {path}, which is no finished cell ({type(error).__name__}: {error}); expected one that this command "
            "wrote; delete it, and it is computed again"
        ) from error
