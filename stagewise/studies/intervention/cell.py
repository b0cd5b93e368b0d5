"""Cell of the experiment, one arm of one seed, as stored on disk."""

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
        mechanism: ``sampling`` or ``loss``; ``none`` if weights stay 1.
        windows: (start, end) of the training steps with changed weights; empty for none.
        note: reason why the arm could not be run, or deviation from its definition; else empty.
        max_steps: limit on the optimizer steps of the run.
        end: training step of the measurement, the same for all arms of a seed.
        curve: scores over training, beyond ``end`` if the head had not formed by then; None if the arm could not be
            run.
        final_losses: mean loss of each group of the held-out sequences at ``end``, nats per token.
        ablation: of the best head at ``end``; None if the arm could not be run.
        moved: budget: sum over steps of the mass that the weights moved, in steps.
        branched_at: training step up to which the run was taken from the arm ``none``; 0 if it was trained from the
            start.
        seconds: wall-clock time.
        timeline: for the observed arm, steps from its probes and scores: ``first_probe``, ``onset``, ``within_onset``,
            ``peak`` and ``end``, None if not found; also ``influence_onset`` if ``onset`` is that of the score and
            there are probes.
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
        """Name of the arm with its mechanism, see :func:`cell_name`."""
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
    """Writes a finished cell; returns its path."""
    return write_json(cell_path(output, cell.seed, cell.name), {"version": __version__, **asdict(cell)})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def read_cell(output: Path, seed: int, name: str) -> Cell | None:
    """Returns a finished cell; None if there is none yet.

    Raises:
        InputError: the file was not written by :func:`write_cell`.
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
        # Checked here, not on creation: a run may have losses that are not finite.
        for part in (cell, cell.curve, cell.ablation):
            if part is not None:
                settle_fields(part)
        return cell
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"got {path}, which is no finished cell ({type(error).__name__}: {error}); expected one that this command "
            "wrote; delete it, and it is computed again"
        ) from error
