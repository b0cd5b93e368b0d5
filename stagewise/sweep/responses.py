"""Response matrix of a finished sweep by component."""

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from stagewise.errors import InputError, require
from stagewise.files.json_input import read_json
from stagewise.influence.group_draws import GroupDraws
from stagewise.runs.probe_files import SUMMARY_NAME
from stagewise.runs.susceptibilities import susceptibilities
from stagewise.sweep.cell import components_of, is_finished, read_cell
from stagewise.sweep.components import ALL
from stagewise.sweep.results import run_folder


def component_responses(
    output: str | Path, step: int, *, components: Sequence[str] | None = None, relative: bool = False
) -> xr.Dataset:
    """Computes the susceptibilities of the components of a sweep at one checkpoint, from its cells.

    Args:
        output: folder of the sweep.
        step: training step of the checkpoint.
        components: components to use; if None, all with a cell at the step, except the whole model.
        relative: see :func:`~stagewise.runs.susceptibilities.susceptibilities`, whose result this returns.

    Raises:
        InputError: a component without a cell at the step or without draws, or no component at all.
    """
    folder = Path(output)
    there = [name for name in components_of(folder) if is_finished(folder, step, name)]
    names = [name for name in there if name != ALL] if components is None else list(components)
    missing = [name for name in names if name not in there]
    require(not missing, f"components at step {step}", missing, f"some of {there}", "sweep them first")
    require(len(names) > 0, f"components at step {step}", there, "a part of the model", 'sweep --components "[heads]"')
    draws: dict[str, GroupDraws] = {}
    num_losses = 0
    for name in names:
        measured = read_cell(folder, step, name).measured
        if measured is None:
            raise InputError(
                f"got component {name!r} at step {step}, which lost all its chains; expected draws; leave it out of "
                "components, or shorten the steps of the sampler"
            )
        draws[name] = measured.features
        num_losses = int(measured.own["mask"].sum())
    summary = read_json(
        run_folder(folder, names[0]) / SUMMARY_NAME, what="the summary of the sweep", advice="sweep again"
    )
    return susceptibilities(draws, summary["sweep"]["tokens"], num_losses, relative=relative)
