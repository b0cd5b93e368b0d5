"""Analysis of a run by ``run.stagewise``, an xarray accessor on any data set of a run."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import xarray as xr

from stagewise.checks.bounds import checked
from stagewise.checks.counted import counted
from stagewise.errors import InputError, require
from stagewise.influence.chain_counts import chain_counts
from stagewise.phases.detection import detect
from stagewise.phases.offline import MIN_PROMINENCE
from stagewise.phases.online_detector import DetectorConfig
from stagewise.phases.signal import Kind, Signal
from stagewise.phases.signal_table import signal_table
from stagewise.phases.stage_boundaries import StageBoundary, stage_boundaries
from stagewise.phases.window import Window
from stagewise.probes.flags import Thresholds
from stagewise.runs.curves import influence_curve
from stagewise.runs.llc_table import llc_table
from stagewise.runs.run_windows import run_windows
from stagewise.runs.sign_changes import SignChanges, find_sign_changes
from stagewise.runs.summary_file import summary_of
from stagewise.runs.time_spans import SpanInfluence, influence_by_span
from stagewise.runs.top_samples import top_samples
from stagewise.runs.variables import VARIABLES
from stagewise.runs.verdict import Verdict, judge
from stagewise.runs.words import about, verdict_text, windows_text, with_plain_names

FIGURES = {
    "overview": "stagewise.reporting.overview.overview",
    "influence": "stagewise.reporting.influence_curves.influence_curves",
    "classes": "stagewise.reporting.class_maps.class_maps",
    "control": "stagewise.reporting.control_curves.control_curves",
    "llc": "stagewise.reporting.llc_curves.llc_curves",
    "samples": "stagewise.reporting.sample_map.sample_map",
    "tokens": "stagewise.reporting.token_figure.token_map",
}
"""Figures of a run by kind: dotted names of public functions whose first argument is the run.

Not imported here: the modules of figures import this one, and load matplotlib.
"""

_OF_SIGNALS = ("signal", "anchor_loss", "shift")


@xr.register_dataset_accessor("stagewise")
class RunAccessor:
    """Accessor of a run: curves with intervals, windows, sign changes, learning coefficients, samples, a verdict.

    Registered by ``import stagewise.runs.accessor``, hence by :func:`~stagewise.runs.open.open_run`. Works on a run, a
    selection of its probes (``run.sel(step=...)``), or the result of ``Prober.probe``.
    """

    def __init__(self, run: xr.Dataset) -> None:
        """Computes nothing yet.

        Args:
            run: data set of a run or of one probe.
        """
        self._given = run

    def __repr__(self) -> str:
        try:
            steps = [int(step) for step in self._run["step"].values]
        except InputError:
            return "stagewise: a data set that is no run"
        count = f"{counted(len(steps), 'probe')}, steps {steps[0]:,} to {steps[-1]:,}" if steps else "0 probes"
        groups = [str(name) for name in self._given["group"].values] if "group" in self._given.coords else []
        return (
            f"Run of {count}, groups {', '.join(groups) or 'none'}. "
            "Ask .summary, .verdict(), .curve(group, group_j), .probes, .windows(), "
            ".sign_changes(), .by_span(), .stage_boundaries(), .llc(), .top_samples(step), "
            f".plot(kind) with kind of {', '.join(FIGURES)}."
        )

    @property
    def _run(self) -> xr.Dataset:
        """Run, with an axis of steps.

        Raises:
            InputError: the data set is not a run.
        """
        run = self._given
        if "step" in run.dims:
            return run
        if "step" not in run.coords and "step" not in run.attrs:
            raise InputError(
                "got a data set without training steps; expected a run or a probe; pass what open_run or Prober.probe "
                "returns"
            )
        at = {} if "step" in run.coords else {"step": int(run.attrs["step"])}
        reference = run.coords.get("reference_step", run.attrs.get("reference_step"))
        run = run.drop_vars("reference_step", errors="ignore").assign_coords(at).expand_dims("step")
        return run if reference is None else run.assign_coords(reference_step=("step", [int(reference)]))

    def _with(self, *names: str) -> xr.Dataset:
        """Returns the run after checking that it has these variables.

        Raises:
            InputError: it lacks one.
        """
        run = self._run
        lacking = [name for name in names if name not in run]
        if lacking:
            raise InputError(
                f"got a run without {', '.join(lacking)}; expected one with {', '.join(names)}; open it whole, or use "
                "a run that measured them"
            )
        return run

    @property
    def groups(self) -> list[str]:
        """Names of the observed groups, in order."""
        return [str(name) for name in self._with("group")["group"].values]

    @property
    def probes(self) -> xr.Dataset:
        """Properties of each probe, over ``step``: equilibrium, flags, chains, R-hat, effective draws, signal, time.

        All variables with one value per probe, in the order of ``docs/variables.md``, and ``chains``, the number of
        chains behind influence and its errors. ``.to_dataframe()`` converts to a table.
        """
        run = self._run
        known = [variable.name for variable in VARIABLES]
        names = [str(name) for name, values in run.data_vars.items() if values.dims == ("step",)]
        names.sort(key=lambda name: known.index(name) if name in known else len(known))
        chains = chain_counts(run).broadcast_like(run["step"]).drop_vars("reference_step", errors="ignore")
        words = {"long_name": "chains behind the influence", "units": "1"}
        found = run[names].assign(chains=("step", chains.values, words))
        return found.drop_vars([name for name in found.coords if name not in ("step", "reference_step")])

    @checked
    def curve(
        self, group: str, group_j: str | None = None, *, part: str = "within", confidence: float = 0.95
    ) -> xr.Dataset:
        """Influence of a group on another over training: ``value``, ``se``, ``low``, ``high``, ``equilibrated``.

        Negative = helpful, nats^2; see :func:`~stagewise.runs.curves.influence_curve`.

        Args:
            group: group whose weight changes.
            group_j: group whose loss responds; the same group if None.
            part: ``within``, ``drift``, ``between`` or ``total``.
            confidence: of the interval, 0 to 1.

        Raises:
            InputError: no group influence, no such group or part, or ``confidence`` out of range.
        """
        return influence_curve(
            self._run, group, group if group_j is None else group_j, part=part, confidence=confidence
        )

    @checked
    def llc(self, *, confidence: float = 0.95) -> xr.Dataset:
        """Returns learning coefficients of all losses and of each group over training, with their intervals.

        See :func:`~stagewise.runs.llc_table.llc_table`.

        Args:
            confidence: of the interval, 0 to 1.

        Raises:
            InputError: the run has none, or ``confidence`` is out of range.
        """
        return llc_table(self._run, confidence=confidence)

    @checked
    def windows(
        self,
        signal: str = str(Kind.between),
        *,
        min_prominence: float | None = None,
        online: DetectorConfig | None = None,
        num_critical: int = 5,
    ) -> list[Window]:
        """Returns transition windows in one signal, as ``stagewise detect`` finds them.

        Args:
            signal: one of :func:`~stagewise.phases.signal_table.signal_table`, such as ``between``, ``losses_alone``,
                ``within/A~B`` or ``contrast/A~B``.
            min_prominence: least prominence of a peak, as a fraction of the largest value; that of the run if None.
            online: detector whose windows during the run are added.
            num_critical: number of samples listed with each window.

        Raises:
            InputError: no such signal, one without windows, or a setting out of range.
        """
        chosen = Signal.parse(signal, self.groups)
        if chosen.kind is Kind.llc:
            raise InputError(
                f"got signal {signal!r}; expected one with windows; ask .stage_boundaries({signal!r}) where a learning "
                "coefficient turns"
            )
        run = self._with(*_OF_SIGNALS)
        pair = [(chosen.groups[0], chosen.groups[1])] if len(chosen.groups) == 2 else None
        table = signal_table(
            run,
            pair if chosen.kind in (Kind.within, Kind.total) else None,
            contrasts=pair or () if chosen.kind is Kind.contrast else (),
        )
        if min_prominence is None:
            min_prominence = float(summary_of(run).get("min_prominence", MIN_PROMINENCE))
        return detect(
            run, table, signals=[signal], min_prominence=min_prominence, online=online, num_critical=num_critical
        )

    def stage_boundaries(self, *signals: str, chance: float = 0.05) -> dict[str, list[StageBoundary]]:
        """Finds turns of learning coefficients, see :func:`~stagewise.phases.stage_boundaries.stage_boundaries`.

        Args:
            signals: ``llc`` and ``llc/<group>``; all by default.
            chance: probability with which noise alone makes one in a curve.

        Raises:
            InputError: the run has no such learning coefficient, or fewer than three probes.
        """
        return stage_boundaries(self._run, signals or None, chance=chance)

    @checked
    def sign_changes(self, pairs: Sequence[tuple[str, str]] | None = None, *, chance: float = 0.05) -> SignChanges:
        """Finds changes of the influence within phases from helpful to harmful or back.

        See :func:`~stagewise.runs.sign_changes.find_sign_changes`.

        Args:
            pairs: of groups; all if None.
            chance: probability with which noise alone makes a change in one curve.

        Raises:
            InputError: no group influence, fewer than two probes, an unknown group, or ``chance`` out of range.
        """
        return find_sign_changes(self._run, pairs, chance=chance)

    @checked
    def by_span(self, pairs: Sequence[tuple[str, str]] | None = None, *, confidence: float = 0.95) -> SpanInfluence:
        """Returns the mean influence of pairs of groups over a few spans of training; ``.words()`` describes it.

        See :func:`~stagewise.runs.time_spans.influence_by_span`.

        Args:
            pairs: of groups; the twelve strongest if None.
            confidence: of the intervals, 0 to 1.

        Raises:
            InputError: no group influence, an unknown group, or ``confidence`` out of range.
        """
        return influence_by_span(self._run, pairs, confidence=confidence)

    @checked
    def top_samples(
        self, step: int, n: int = 10, *, on: int | None = None, part: str = "within", confidence: float = 0.95
    ) -> xr.Dataset:
        """Returns the most helpful and the most harmful pairs of samples at a probe, with intervals.

        See :func:`~stagewise.runs.top_samples.top_samples`.

        Args:
            step: training step of the probe.
            n: pairs of each sign, at most.
            on: only influence on this sample, by its position in the observed set; all pairs if None.
            part: ``within``, ``drift``, ``between`` or ``total``.
            confidence: of the interval, 0 to 1.

        Raises:
            InputError: no probe at that step, a setting out of range, or matrices that are not stored.
        """
        return top_samples(self._run, step, n, on=on, part=part, confidence=confidence)

    @checked
    def verdict(self, *, thresholds: Thresholds | None = None) -> Verdict:
        """Assesses what can be read off the curves, see :func:`~stagewise.runs.verdict.judge`.

        Args:
            thresholds: limits of the run's flags; those of its summary, or the defaults, if None.

        Raises:
            InputError: the data set lacks its settings.
        """
        run = self._run
        return judge(run, windows=len(run_windows(run)), thresholds=thresholds)

    @property
    def summary(self) -> str:
        """Summary of the run, as Markdown: settings, verdict, transition windows, sign changes."""
        run = with_plain_names(self._run)
        found = summary_of(run)
        parts = [about(run, found), verdict_text(run), windows_text(found | {"transitions": run_windows(run)}, run)]
        if "group_bif" in run and run.sizes["step"] >= 2:
            parts.append(find_sign_changes(run).markdown())
        return "\n\n".join(parts)

    def plot(self, kind: str = "influence", *args: Any, **settings: Any) -> Any:
        """Returns the figure of a run.

        Args:
            kind: one of :data:`FIGURES`: ``overview`` (the main results on one page), ``influence`` (curves of groups
                with intervals and sign changes), ``classes`` (maps of all pairs of groups), ``control`` (with the
                loss-free control), ``llc`` (learning coefficients), ``samples`` (a matrix), ``tokens`` (coloured text).
            args: of the figure's function, after the run.
            settings: of the figure's function.

        Returns:
            A matplotlib figure, shown by a notebook and saved by ``.savefig(path)``.

        Raises:
            InputError: unknown kind, or the run lacks the data of the figure.
        """
        require(kind in FIGURES, "kind", repr(kind), f"one of {', '.join(FIGURES)}", "'influence' is the default")
        module, _, name = FIGURES[kind].rpartition(".")
        draw = getattr(import_module(module), name)
        return draw(with_plain_names(self._run), *args, **settings)
