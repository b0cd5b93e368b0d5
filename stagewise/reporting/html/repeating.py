"""Settings of a run, and instructions to repeat it."""

import inspect
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
import yaml

from stagewise._version import __version__
from stagewise.probes.config import ProbeConfig
from stagewise.reporting.html.blocks import Block, Code, Section, Text, table_of
from stagewise.runs.stability import lr_words
from stagewise.runs.summary_file import summary_of
from stagewise.sampling.config import SGLDConfig

_CONFIG = "config.yaml"
_NESTED = {"llc": "LLCConfig", "thresholds": "Thresholds"}
"""Settings of the measurement with a class of their own."""

_OF_SWEEP = "groups.csv"
"""Table that only sweeps write."""
_OF_RUN = ("centering", "component", "moved_weights", "engine")
_MEANINGS = {
    "nbeta": "inverse temperature times number of samples",
    "localization": "pull to the training weights",
    "lr": "step size of the chains",
    "num_chains": "independent chains",
    "num_draws": "recorded draws of a chain",
    "num_burnin_steps": "steps before the first draw",
    "num_steps_bw_draws": "steps from one draw to the next",
    "batch_size": "of the chains' minibatches",
    "seed": "of the chains",
    "component": "part of the model whose weights the chains move",
    "moved_weights": "number of weights that the chains move",
    "integrator": "step of the chains",
    "engine": "runs the chains",
    "max_overhead": "limit on the time of probes over that of training",
}
"""Shorter than the docstrings, which explain the others."""


def settings_of(run: xr.Dataset) -> dict[str, Any]:
    """Returns the settings of the sampler and of the measurement by name, without those that are None.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    sgld = run.attrs.get("sgld")
    found = {f"sgld.{name}": value for name, value in sgld.items()} if isinstance(sgld, Mapping) else {}
    found |= {name: run.attrs[name] for name in _OF_RUN if name in run.attrs}
    summary = summary_of(run)
    found |= {name: summary[name] for name in ("min_prominence", "max_overhead") if name in summary}
    return {name: value for name, value in found.items() if value is not None}


def settings_section(run: xr.Dataset) -> Section:
    """Returns the section on all settings of the probes.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    rows = [(name, number(value), _meaning(name)) for name, value in settings_of(run).items()]
    table = (table_of([("setting", "value", "what it is"), *rows]),) if rows else ()
    lowered = lr_words(run)
    note = () if lowered is None else (Text(f"{lowered}; the table has the last."),)
    return Section("settings", "Settings", (*note, *table))


def _meaning(name: str) -> str:
    """Describes a setting, from the docstring of its class if there is no shorter description."""
    bare = name.removeprefix("sgld.")
    return _MEANINGS.get(bare) or _documented(SGLDConfig if name.startswith("sgld.") else ProbeConfig).get(bare, "")


def _documented(config: type) -> dict[str, str]:
    """Returns the first clause of each attribute in a Google docstring; empty if Python strips docstrings."""
    _, _, listed = (inspect.getdoc(config) or "").partition("Attributes:\n")
    listed = re.split(r"\n(?=\S)", listed)[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", listed, flags=re.MULTILINE)
    plain = ((name, re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", " ".join(words.split()))) for name, words in found)
    return {name: re.split(r"[;:] |\. |\.$", words.replace("``", "`"))[0] for name, words in plain}


def number(value: object) -> str:
    """Formats a setting as in a file."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def training_seed(folder: Path) -> int | None:
    """Returns ``seed_everything`` of a run's ``config.yaml``; None if unknown.

    Args:
        folder: of the run.
    """
    try:
        content = yaml.safe_load((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    seed = content.get("seed_everything") if isinstance(content, Mapping) else None
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def repeat_section(run: xr.Dataset, folder: Path) -> Section:
    """Returns the section with the command or code that repeats the probes, seeds and versions.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        folder: of the run.
    """
    sgld = run.attrs.get("sgld")
    lowered = lr_words(run)
    blocks: list[Block] = []
    if from_command_line(folder):
        blocks.append(Code(f"stagewise fit -c {shlex.quote(str(folder / _CONFIG))}"))
    elif isinstance(sgld, Mapping):
        if (folder / _OF_SWEEP).is_file():
            blocks += [Text("Set the sampler of `stagewise sweep` to:"), Code(_call("SGLDConfig", _plain(sgld)))]
        else:
            blocks += [
                Text("Attach to the same training, with your own data and loss in place of `...`:"),
                Code(callback_code(run)),
            ]
    facts = []
    seed = training_seed(folder)
    if seed is not None:
        facts.append(f"seed of the training {seed}")
    if isinstance(sgld, Mapping) and "seed" in sgld:
        facts.append(f"seed of the chains {sgld['seed']}")
    if lowered is not None:
        facts.append("lr was lowered on the way, which only lr auto repeats")
    if "version" in run.attrs:
        facts.append(f"stagewise {run.attrs['version']} took the probes")
    facts.append(f"stagewise {__version__} wrote this page")
    blocks += [
        Text("; ".join(facts).capitalize() + "."),
        Text("The numbers of this page, to go on with:"),
        Code(f'run = stagewise.open_run("{folder.as_posix()}")\nrun.stagewise.plot("overview")'),
        Code(f"stagewise report {shlex.quote(str(folder))}"),
    ]
    return Section("repeat", "How to repeat it", tuple(blocks))


def callback_code(run: xr.Dataset) -> str:
    """Returns the call that repeats the probes, as Python; ``...`` marks values that a run does not record.

    Settings of the measurement that are not listed have their defaults, or are unknown for runs of earlier versions.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with the attribute ``sgld``.
    """
    steps = [int(step) for step in run["step"].values]
    every = steps[0]
    regular = every > 0 and steps == list(range(every, every * len(steps) + 1, every))
    schedule = f"ProbeSchedule(every_n_steps={every})" if regular else f"ProbeSchedule(at_steps={steps})"
    probe = {name: run.attrs[name] for name in ("centering",) if run.attrs.get(name)}
    summary = summary_of(run)
    probe |= {name: summary[name] for name in ("min_prominence",) if name in summary}
    # Summaries of earlier versions lack it.
    given = summary.get("probe", {})
    probe |= {name: value for name, value in given.items() if name not in _NESTED}
    nested = [f"{name}={_call(_NESTED[name], value)}" for name, value in given.items() if name in _NESTED]
    groups = [str(name) for name in run["group"].values] if "group" in run.coords else []
    masks = "".join(f"        {name!r}: ...,\n" for name in groups)
    classes = [_NESTED[name] for name in given if name in _NESTED]
    needed = sorted(["InfluenceCallback", "ProbeConfig", "ProbeSchedule", "SGLDConfig", *classes])
    sgld, lost = run.attrs["sgld"], []
    lost += [name for name, value in sgld.items() if isinstance(value, Mapping)]
    lines = [
        f"from stagewise import {', '.join(needed)}",
        "",
        "callback = InfluenceCallback(",
        f"    {schedule},",
        f"    {_call('SGLDConfig', _plain(sgld))},",
        *(f"    # and its {name}: {dict(sgld[name])!r}" for name in lost),
        f"    probe=ProbeConfig({', '.join([*_arguments(probe), *nested])}),",
        "    observed=...,  # the data set or batch whose losses were recorded",
        *([f"    groups={{  # masks over the observed set\n{masks}    }},"] if groups else []),
        "    loss_fn=...,  # loss_fn(module, batch), unreduced; leave it out if the run had none",
    ]
    component = run.attrs.get("component", summary.get("component"))
    lines += [f"    component={str(component)!r},"] if component else []
    return "\n".join([*lines, ")"])


_SETTING = re.compile(r"`influence\.probe\.(llc\.)?(\w+)(?:: ([^`]+))?`")


def as_python(words: str) -> str:
    """Rewrites settings of the measurement, ``influence.probe.<name>: <value>`` in backticks, as Python.

    Settings without a value become ``ProbeConfig.<name>`` or ``LLCConfig.<name>``.

    Args:
        words: text for a user of the command line.
    """

    def written(found: re.Match[str]) -> str:
        if found[3] is None:
            return f"`{'LLCConfig' if found[1] else 'ProbeConfig'}.{found[2]}`"
        call = _call("LLCConfig" if found[1] else "ProbeConfig", {found[2]: yaml.safe_load(found[3])})
        return f"`ProbeConfig(llc={call})`" if found[1] else f"`{call}`"

    return _SETTING.sub(written, words)


def from_command_line(folder: Path) -> bool:
    """Returns True for a run with a ``config.yaml``.

    Args:
        folder: of the run.
    """
    return (folder / _CONFIG).is_file()


def _call(name: str, settings: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(_arguments(settings))})"


def _arguments(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value!r}" for key, value in settings.items()]


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that have a literal form; None, the default, is left out."""
    return {name: value for name, value in settings.items() if isinstance(value, (int, float, str, list))}
