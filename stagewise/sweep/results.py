"""Results from cells: each checkpoint is split against the one before it, in one pass over the steps."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from stagewise.files.writing import whole_folder
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups, Positions
from stagewise.influence.stored_matrices import to_store
from stagewise.lm.classes.coverage import class_coverage
from stagewise.probes.assembly import assemble
from stagewise.probes.history import Record
from stagewise.reporting.classes_page import classes_page, write_classes_page
from stagewise.reporting.summary import build_summary
from stagewise.runs.components import COEFFICIENTS, component_table, write_component_csv
from stagewise.runs.open import open_run
from stagewise.runs.probe_files import STORE_NAME
from stagewise.runs.stability import Stability
from stagewise.runs.store import ProbeStore, write_summary
from stagewise.runs.verdict import VARIABLES, judge
from stagewise.sweep.cell import Cell, components_of, is_finished, read_cell
from stagewise.sweep.circuits import Circuits, read_circuits
from stagewise.sweep.components import ALL
from stagewise.sweep.pages import write_token_pages
from stagewise.sweep.study import Sweep
from stagewise.sweep.tables import (
    CIRCUIT_COLUMNS,
    CIRCUITS_NAME,
    GROUP_COLUMNS,
    GROUPS_NAME,
    circuit_rows,
    group_rows,
    write_table,
)

_COMPONENTS = "components"
COMPONENTS_NAME = "components.csv"
"""Table of influence within phases through each head or other part, if requested."""


def run_folder(output: Path, component: str) -> Path:
    """Returns the folder of the store and the summary of a component: for ``all`` the output itself."""
    return output if component == ALL else output / _COMPONENTS / component


def assembled(sweep: Sweep, component: str) -> Iterator[tuple[Cell, xr.Dataset | None]]:
    """Yields cells of a component by step, with the data set of each; None if every chain failed.

    The reference is the latest checkpoint before it with draws and without a severe flag.
    """
    reference: GroupDraws | None = None
    for step in sweep.steps:
        cell = read_cell(Path(sweep.config.output), step, component)
        measured = cell.measured
        if measured is None:
            yield cell, None
            continue
        masks = {name: mask.numpy() for name, mask in sweep.data.groups.items()}
        mask, probe = measured.own["mask"].values, sweep.config.probe
        groups = Groups(masks, mask)
        positions = None if probe.position_bins is None else Positions(groups, mask, probe.position_bins)
        yield cell, assemble(measured, reference, groups, positions=positions, centering=probe.centering)
        if measured.usable:
            reference = measured.features


def write_results(sweep: Sweep) -> list[Path]:
    """Writes the store and the summary of each component, and the tables; earlier ones are replaced.

    Args:
        sweep: with all cells finished.

    Returns:
        The written files and stores.

    Raises:
        InputError: a cell that cannot be read.
    """
    output = Path(sweep.config.output)
    asked = sweep.steps if sweep.config.circuits.enabled else ()
    read = {step: read_circuits(output, step, sweep.circuits_key(step)) for step in asked}
    circuits = {step: found for step, found in read.items() if found is not None}
    # Tables are of all that is there: components of an earlier call, too.
    names = list(dict.fromkeys([*sweep.components, *_finished(output, sweep.steps)]))
    groups: list[pd.DataFrame] = []
    written = [path for name in names for path in _write_component(sweep, name, circuits, groups)]
    written.append(write_table(output / GROUPS_NAME, GROUP_COLUMNS, groups))
    coverage = class_coverage(sweep.data.groups)
    written.append(write_classes_page(output, classes_page(coverage.markdown(), unit=coverage.unit)))
    heads = [circuit_rows(step, found) for step, found in circuits.items()]
    if any(map(len, heads)):
        written.append(write_table(output / CIRCUITS_NAME, CIRCUIT_COLUMNS, heads))
    else:
        (output / CIRCUITS_NAME).unlink(missing_ok=True)
    probed = [name for name in names if ProbeStore(run_folder(output, name) / STORE_NAME).steps()]
    if ALL in probed:
        written += write_token_pages(sweep, run_folder(output, ALL))
    # A component that lost its chains at a step has none of its numbers there.
    steps = list(sweep.steps)
    stores = {name: open_run(run_folder(output, name)) for name in probed if name != ALL}
    wanted = ["group_bif", "group_bif_se", "chains_dropped", "chains_common", "equilibrated", "reference_equilibrated"]
    wanted += COEFFICIENTS
    runs = {
        name: run[[variable for variable in wanted if variable in run]].reindex(step=steps)
        for name, run in stores.items()
    }
    if runs:
        written.append(write_component_csv(output / COMPONENTS_NAME, component_table(runs)))
    else:
        (output / COMPONENTS_NAME).unlink(missing_ok=True)
    return written


def _finished(output: Path, steps: Sequence[int]) -> list[str]:
    """Returns components that have a cell at each step."""
    return [name for name in components_of(output) if all(is_finished(output, step, name) for step in steps)]


def _write_component(
    sweep: Sweep, component: str, circuits: Mapping[int, Circuits], groups: list[pd.DataFrame]
) -> list[Path]:
    """Writes a store and its summary, and adds its rows to ``groups``."""
    folder, record = run_folder(Path(sweep.config.output), component), Record()
    folder.mkdir(parents=True, exist_ok=True)
    named = None if component == ALL else component
    with whole_folder(folder / STORE_NAME) as store:
        writer = ProbeStore(store)
        store.mkdir()
        for cell, probe in assembled(sweep, component):
            record.add(cell.step, probe, chains_dropped=len(cell.dropped))
            record.add_probe_time(cell.seconds, finished=True)
            if probe is not None:
                assert cell.measured is not None
                probe.attrs |= {} if named is None else {"component": named}
                writer.write(to_store(probe, sweep.config.probe.sample_matrices))
                groups.append(group_rows(probe, component, num_draws=cell.measured.features.samples.shape[1]))
    settings = sweep.config.probe
    windows = len(record.windows(min_prominence=settings.min_prominence))
    run = open_run(folder, variables=VARIABLES) if record.steps else None
    lost = Stability(tuple(record.failed_steps), tuple(record.not_finite_steps))
    verdict = judge(run, windows=windows, thresholds=settings.thresholds, flags=record.flags, stability=lost)
    summary = build_summary(record, config=sweep.config.sgld, probe=settings, component=named, verdict=verdict)
    return [folder / STORE_NAME, write_summary(folder, {**summary, "sweep": _facts(sweep, component, circuits)})]


def _facts(sweep: Sweep, component: str, circuits: Mapping[int, Circuits]) -> dict[str, Any]:
    """Returns the facts that the summary of a sweep adds to that of a run."""
    config, data = sweep.config, sweep.data
    notes: dict[str, list[int]] = {}
    for step, found in circuits.items():
        if found.note:
            notes.setdefault(found.note, []).append(step)
    return {
        "component": component,
        "checkpoints": config.checkpoints,
        "steps": list(sweep.steps),
        "steps_missing": list(sweep.missing),
        "names": [sweep.source.name_of(step).name for step in sweep.steps],
        "step_tokens": [sweep.source.name_of(step).tokens for step in sweep.steps],
        "branch": config.branch,
        "axis": str(config.axis),
        "reference": "the checkpoint before, among those of the sweep",
        "corpus": config.corpus,
        "context": config.data.context,
        "num_observed": config.data.num_observed,
        "num_sampling": config.data.num_sampling,
        "data_seed": config.data.seed,
        "tokens": {name: int(mask.sum()) for name, mask in data.groups.items()},
        "precision": str(config.precision),
        "circuits_left_out": [{"why": why, "steps": steps} for why, steps in notes.items()],
    }
