"""Sections of a report of several runs: overlaid seeds and compared arms."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from stagewise.reporting.html.arms import Arm, find_arms
from stagewise.reporting.html.blocks import Block, Code, Items, Section, Text, table_of
from stagewise.reporting.html.pictures import picture
from stagewise.reporting.html.repeating import number
from stagewise.reporting.runs_overview import common_pairs, runs_overview
from stagewise.reporting.verdict_line import known_verdict
from stagewise.runs.llc_table import has_llc
from stagewise.runs.run_windows import no_window_words, run_windows
from stagewise.runs.sign_changes import find_sign_changes

Runs = Sequence[tuple[Path, xr.Dataset]]


def comparison_sections(runs: Runs, *, chance: float = 0.05) -> list[Section]:
    """Returns all sections for several runs.

    Args:
        runs: folder and data set of each, with plain names of groups.
        chance: see :func:`~stagewise.runs.sign_changes.find_sign_changes`.
    """
    arms = find_arms(runs)
    names = [name for arm in arms for name in arm.names]
    data = [run for arm in arms for run in arm.runs]
    found = [
        _verdicts(names, data),
        _overlay(arms),
        _windows(names, data),
        _signs(names, data, chance),
        _ends(arms),
        _settings(arms),
        _repeat([folder for arm in arms for folder in arm.folders]),
    ]
    return [item for item in found if item.blocks]


def _verdicts(names: Sequence[str], runs: Sequence[xr.Dataset]) -> Section:
    asked = ("positions", "signs", "heights", "landscape")
    rows = []
    for name, run in zip(names, runs, strict=True):
        record = known_verdict(run)
        answers = ["-"] * 4 if record is None else [str(record[item].get("answer")) for item in asked]
        best = (record or {}).get("best")
        rows.append((name, *answers, best.get("words", "-") if isinstance(best, dict) else "-"))
    head = ("run", "positions", "signs", "heights", "beyond gradients", "what would help most")
    return Section("verdict", "Verdict", (table_of([head, *rows]),))


def _overlay(arms: Sequence[Arm]) -> Section:
    wide, narrow = (runs_overview(arms, width=width) for width in (10.0, 5.0))
    seeds = max(len(arm.runs) for arm in arms)
    words = "Thin lines are runs" + (
        ", the thick one the mean of those that have a probe at the same step" if seeds > 1 else ""
    )
    words += "; a colour is an arm." if len(arms) > 1 else "."
    about = "Losses, influence, learning coefficient and signal of all runs over training"
    blocks: list[Block] = [
        picture(wide, about, narrow=narrow),
        Text(words + " Negative influence = helpful.", quiet=True),
    ]
    groups: list[set[str]] = [
        {str(name) for name in run["group"].values} for arm in arms for run in arm.runs if "group" in run.dims
    ]
    if groups and any(group != groups[0] for group in groups):
        rest = sorted(groups[0].union(*groups) - groups[0].intersection(*groups))
        blocks.append(Text(f"Groups that not all runs have are left out: {', '.join(rest)}."))
    return Section("overview", "Overview", tuple(blocks))


def _windows(names: Sequence[str], runs: Sequence[xr.Dataset]) -> Section:
    rows: list[tuple[str, ...]] = []
    why = []
    for name, run in zip(names, runs, strict=True):
        found = run_windows(run)
        rows += [
            (name, f"{item['start']:,}", f"{item['peak']:,}", f"{item['end']:,}", f"{item['value']:.3g}")
            for item in found
        ]
        reason = None if found else no_window_words(run)
        if not found:
            why.append(f"{name}: no window{'' if reason is None else f': {reason}'}.")
    blocks: list[Block] = []
    if rows:
        blocks.append(table_of([("run", "start", "peak", "end", "signal at peak, nats"), *rows]))
    if why:
        blocks.append(Items(tuple(why)))
    return Section("windows", "Transition windows", tuple(blocks))


def _signs(names: Sequence[str], runs: Sequence[xr.Dataset], chance: float) -> Section:
    """Returns the section on the sign changes of all runs, with those shared by several runs together."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    expected, one_sided = 0.0, []
    for name, run in zip(names, runs, strict=True):
        if "group_bif" not in run or run.sizes["step"] < 2:
            continue
        found = find_sign_changes(run, chance=chance)
        expected += chance * found.num_curves
        for item in found.found:
            place = f"{name}: step {item.flip.step:,.0f} ({item.flip.earliest:,} to {item.flip.latest:,})"
            rows.setdefault((item.group, item.group_j, item.flip.words), []).append(place)
        one_sided += [f"{name}, {item.words}" for item in found.one_sided]
    said = (
        f"By chance alone {expected:.1f} changes are to be expected in all runs together; believe what several seeds "
        "have."
    )
    blocks: list[Block] = [Text(said)]
    if rows:
        ordered = sorted(rows.items(), key=lambda item: -len(item[1]))
        cells = [
            (f"{one} ~ {two}", turn, f"{len(places)} of {len(runs)}", "; ".join(places))
            for (one, two, turn), places in ordered
        ]
        blocks.append(table_of([("influence", "turns", "runs", "where"), *cells]))
    else:
        blocks.append(Text("**No sign change was found** in any run."))
    if one_sided:
        most = 12
        blocks += [Text("Surely of one sign:"), Items(tuple(one_sided[:most]))]
        if len(one_sided) > most:
            blocks.append(Text(f"and {len(one_sided) - most} more, in the reports of the runs.", quiet=True))
    return Section("signs", "Sign changes", tuple(blocks))


def _ends(arms: Sequence[Arm]) -> Section:
    """Returns the results of each arm: means over its runs at their last probes, with Student's intervals."""
    rows = []
    for arm in arms:
        peaks = [[run_window["peak"] for run_window in run_windows(run)] for run in arm.runs]
        rows.append((arm.title, "windows", _mean([float(len(peak)) for peak in peaks])))
        if all(peaks):
            rows.append((arm.title, "step of the first peak", _mean([float(peak[0]) for peak in peaks])))
        for group in common_groups(arms):
            if all("group_loss" in run for run in arm.runs):
                last = [float(run["group_loss"].sel(group=group).values[-1]) for run in arm.runs]
                rows.append((arm.title, f"loss of {group} at the last probe, nats", _mean(last)))
        for one, two in common_pairs(arms):
            last = [float(run["group_bif"].sel(part="within", group=one, group_j=two).values[-1]) for run in arm.runs]
            pair = one if one == two else f"{one} ~ {two}"
            rows.append((arm.title, f"influence of {pair} at the last probe, nats²", _mean(last)))
        if all(has_llc(run) for run in arm.runs):
            rows.append(
                (
                    arm.title,
                    "learning coefficient at the last probe",
                    _mean([float(run["llc"].values[-1]) for run in arm.runs]),
                )
            )
    order = list(dict.fromkeys(what for _, what, _ in rows))
    rows.sort(key=lambda row: order.index(row[1]))
    if len(arms) == 1:
        table = table_of([("at the end", "mean [95 % interval over runs]"), *(row[1:] for row in rows)])
    else:
        table = table_of([("arm", "at the end", "mean [95 % interval over runs]"), *rows])
    return Section("ends", "Where the runs end" if len(arms) == 1 else "Arms compared", (table,))


def common_groups(arms: Sequence[Arm]) -> list[str]:
    """Returns the groups that all runs have, at most six, in the order of the first run.

    Args:
        arms: with one run or more each.
    """
    runs = [run for arm in arms for run in arm.runs]
    if any("group" not in run.dims for run in runs):
        return []
    shared = set.intersection(*(set(map(str, run["group"].values)) for run in runs))
    return [name for name in map(str, runs[0]["group"].values) if name in shared][:6]


def _mean(values: Sequence[float]) -> str:
    """Formats the mean and Student's interval over runs; only the mean for a single run."""
    known = np.array([value for value in values if np.isfinite(value)])
    if not known.size:
        return "-"
    if known.size == 1:
        return f"{known[0]:.3g} (one run)"
    half = float(stdtrit(known.size - 1, 0.975)) * float(known.std(ddof=1)) / np.sqrt(known.size)
    return f"{known.mean():.3g} [{known.mean() - half:.3g}, {known.mean() + half:.3g}], {known.size} runs"


def _settings(arms: Sequence[Arm]) -> Section:
    rows = [
        (arm.title, name, folder.as_posix(), "-" if seed is None else number(seed))
        for arm in arms
        for name, folder, seed in zip(arm.names, arm.folders, arm.seeds, strict=True)
    ]
    blocks: list[Block] = [table_of([("arm", "run", "folder", "seeds"), *rows])]
    names = list(dict.fromkeys(name for arm in arms for name in arm.differing))
    if names:
        cells = [(name, *(number(arm.differing.get(name, "-")) for arm in arms)) for name in names]
        blocks += [
            Text("Settings in which the arms differ:"),
            table_of([("setting", *(arm.title for arm in arms)), *cells]),
        ]
    return Section("settings", "Runs and settings", tuple(blocks))


def _repeat(folders: Sequence[Path]) -> Section:
    lines = "\n".join(f"stagewise report '{folder.as_posix()}'" for folder in folders)
    return Section("repeat", "The runs one by one", (Code(lines),))
