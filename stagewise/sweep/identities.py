"""Check that existing cells were computed from the present checkpoints."""

from pathlib import Path

from stagewise.errors import InputError
from stagewise.files.json_input import read_json
from stagewise.files.writing import write_json
from stagewise.sweep.cell import components_of, is_finished
from stagewise.sweep.sources import Checkpoints

_NAME = "cells/checkpoints.json"


def check_same_checkpoints(output: Path, source: Checkpoints, steps: tuple[int, ...]) -> None:
    """Refuses to continue with cells of other weights; writes nothing.

    Args:
        output: of the sweep.
        source: of its checkpoints.
        steps: of the sweep.

    Raises:
        InputError: the files of a checkpoint have changed since its cells were computed.
    """
    path, known = output / _NAME, _known(output)
    components = components_of(output)
    for step in steps:
        finished = any(is_finished(output, step, name) for name in components)
        if finished and known.get(str(step)) not in (None, source.identity(step)):
            raise InputError(
                f"got checkpoint {source.name_of(step).name} at step {step}, whose files are not those that its cells "
                f"in {output} were computed from; expected the same weights; choose another --output, as for each "
                f"branch, or delete {path} if they are the same"
            )


def note_checkpoints(output: Path, source: Checkpoints, steps: tuple[int, ...]) -> None:
    """Stores the identities of the present checkpoints, before cells are computed from them.

    Args:
        output: of the sweep.
        source: of its checkpoints.
        steps: of the sweep.
    """
    now = {str(step): source.identity(step) for step in steps}
    write_json(output / _NAME, {**_known(output), **now})


def _known(output: Path) -> dict[str, str]:
    path = output / _NAME
    return read_json(path, what="what this command wrote", advice="delete it") if path.is_file() else {}
