"""Settings and outcomes of a run for TensorBoard's HPARAMS tab, where arms and seeds stand side by side."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

_NONE = "none"


def flat_settings(settings: Mapping[str, Any]) -> dict[str, float | str]:
    """Returns settings as numbers and text, nested ones by ``outer/inner``; None as ``none``, so that columns agree.

    Args:
        settings: numbers, booleans, text, None, lists, mappings and dataclasses; others by their class.
    """
    found: dict[str, float | str] = {}
    for name, value in settings.items():
        if is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in fields(value) if field.repr}
        if isinstance(value, Mapping):
            inner = flat_settings({str(key): item for key, item in value.items()})
            found |= {f"{name}/{key}": item for key, item in inner.items()}
        elif isinstance(value, str):
            found[name] = str(value)
        elif value is None:
            found[name] = _NONE
        elif isinstance(value, bool):
            found[name] = str(value).lower()
        elif isinstance(value, int | float):
            found[name] = float(value) if math.isfinite(value) else str(value)
        else:
            found[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else type(value).__name__
    return found


def write_hparams(
    writers: Iterable[SummaryWriter], settings: Mapping[str, float | str], outcomes: Sequence[str], step: int
) -> None:
    """Writes the settings of a run and the tags of its outcomes into its event file.

    TensorBoard shows the last value of each outcome, and uses the first settings of a run. torch's ``add_hparams`` is
    not used, since it creates a separate run.

    Args:
        writers: of the run.
        settings: as :func:`flat_settings` returns them.
        outcomes: tags of scalars.
        step: training step.
    """
    summaries = hparams(dict(settings), dict.fromkeys(outcomes, 0.0))
    for writer in writers:
        file = writer._get_file_writer()
        for summary in summaries:
            file.add_summary(summary, step)
