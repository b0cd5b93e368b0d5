"""Probes: chains, diagnostics, influence, baselines and signal in one data set."""

import time
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, NamedTuple

import xarray as xr
from torch import Tensor, nn

from stagewise._version import __version__
from stagewise.checks.bounds import check_arguments
from stagewise.influence.control import control_influence
from stagewise.influence.group_draws import GroupDraws, Reducer
from stagewise.influence.groups import Groups
from stagewise.influence.token_bif_sums import TokenSums
from stagewise.losses.contract import LossFn
from stagewise.probes.assembly import Measured, assemble
from stagewise.probes.axes import TOKEN_AXES
from stagewise.probes.baselines import Baselines
from stagewise.probes.carried import Carried
from stagewise.probes.chain_facts import add_chain_facts
from stagewise.probes.config import ProbeConfig
from stagewise.probes.llc_chains import LearningCoefficient
from stagewise.probes.lost_samples import kinds_seen, lost_words
from stagewise.probes.subject import Subject, examine
from stagewise.probes.target import target_of
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import EngineName, ResolvedSGLD, SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.selection import Masks
from stagewise.sampling.share import ALONE, ChainShare
from stagewise.sampling.target import ForwardContext
from stagewise.sampling.trace import Trace, merge_traces


class _Part(NamedTuple):
    """Draws of the chains of one process.

    Attributes:
        trace: of the chains of influence.
        tokens: sums over their token losses, if requested.
        llc: separate chains of the learning coefficient and their seconds, if any.
        control: chains without the loss, if due.
    """

    trace: Trace
    tokens: TokenSums | None
    llc: tuple[Trace, float] | None
    control: Trace | None


class Prober:
    """Estimates influence at a module's current weights, with earlier probes as reference.

    Without a Trainer, call :meth:`probe` at increasing steps. The module is restored bit for bit. An observed sample
    whose loss is not finite is left out with a warning, before the first probe or from the probe that finds it on.
    Samples keep their numbers in the original set (the coordinate ``sample``).
    """

    def __init__(
        self,
        module: nn.Module,
        loss_fn: LossFn,
        data: ProbeData,
        *,
        sgld: SGLDConfig,
        config: ProbeConfig,
        forward_context: ForwardContext = nullcontext,
        masks: Masks | None = None,
        share: ChainShare = ALONE,
        lost: Collection[int] | None = None,
        warn: Callable[[str], object] = warnings.warn,
    ) -> None:
        """Checks all inputs before the first probe.

        Args:
            module: module to probe.
            loss_fn: per-sample loss, see :mod:`stagewise.losses.contract`.
            data: observed set, sampling set and groups.
            sgld: the sampler, with numbers for ``lr`` and ``localization``.
            config: the measurement.
            forward_context: entered around each forward pass (autocast).
            masks: parameter name to bool mask of its shape: chains and baselines move only entries that are True, so
                that influence is that of one component. Replaces ``sgld.parameters``; None for all weights.
                :func:`stagewise.lm.components.component_masks` makes those of a head or a layer.
            share: chains of this process, if several processes share those of each probe, at the same weights. The
                first process has all draws and results, the others none.
            lost: numbers of the observed samples to leave out, as in a resumed run; if None, those whose loss is not
                finite.
            warn: called with a warning about these.

        Raises:
            LossContractError: the loss breaks its contract; or it is not finite in all of the observed set, or in the
                sampling set.
            InputError: ``lr`` or ``localization`` is ``auto``; a parameter pattern matches nothing; masks, groups,
                position bins or chosen samples do not fit; there are fewer chains than processes; or the memory limit
                is exceeded.
        """
        check_arguments("Prober", Prober.__init__, locals(), leave=["forward_context", "warn"])
        resolved = sgld.require_resolved()
        target = target_of(module, loss_fn, data, config, masks=masks, forward_context=forward_context)
        subject = examine(module, target, data.groups, sgld, config, share=share, lost=lost, warn=warn)
        self._begin(module, subject, resolved, Carried(config.reference_ratio), warn=warn)

    @classmethod
    def over(
        cls,
        module: nn.Module,
        subject: Subject,
        sgld: ResolvedSGLD,
        carried: Carried,
        *,
        engine: EngineName | None = None,
        warn: Callable[[str], object] = warnings.warn,
    ) -> "Prober":
        """Builds a prober from a checked subject.

        Args:
            module: module to probe.
            subject: of the probes.
            sgld: the sampler.
            carried: state of earlier probes of the run, updated.
            engine: chosen earlier in the same run for ``auto``.
            warn: called with warnings about samples that are left out.
        """
        prober = cls.__new__(cls)
        prober._begin(module, subject, sgld, carried, engine=engine, warn=warn)
        return prober

    def _begin(
        self,
        module: nn.Module,
        subject: Subject,
        sgld: ResolvedSGLD,
        carried: Carried,
        *,
        engine: EngineName | None = None,
        warn: Callable[[str], object],
    ) -> None:
        self._sgld, self._config, self._share = sgld, subject.config, subject.share
        self._numbers = subject.share.numbers(sgld.num_chains)
        self.carried, self._warn = carried, warn
        self._build(module, subject, engine)

    def _build(self, module: nn.Module, subject: Subject, engine: EngineName | None) -> None:
        """Builds all parts that depend on the observed set."""
        self.subject = subject
        target, groups = subject.target, subject.groups
        chosen = self._config.token_samples
        # None, too, if none of the chosen samples is left.
        self._token_rows = None if chosen is None else subject.observed.rows_in_order(chosen) or None
        self.baselines = Baselines(
            target,
            groups,
            sgld=self._sgld,
            config=self._config,
            gradient_block=subject.gradient_block,
        )
        self._llc = LearningCoefficient(module, target, groups, sgld=self._sgld, config=self._config, share=self._share)
        reduce = None if self._config.save_trace else Reducer(subject.reduced)
        self._sampler = ChainSampler(module, target, self._sgld, reduce=reduce, engine=engine)

    @property
    def sgld(self) -> ResolvedSGLD:
        """The sampler."""
        return self._sgld

    @property
    def groups(self) -> Groups:
        """Groups over the observed set."""
        return self.subject.groups

    @property
    def memory_gib(self) -> float:
        """Memory of draws and products, without the chains, GiB."""
        return self.subject.memory_gib

    @property
    def lost(self) -> tuple[int, ...]:
        """Numbers of the observed samples that are left out, increasing."""
        return self.subject.lost

    def lost_in(self, trace: Trace) -> tuple[int, ...]:
        """Returns the numbers of the samples whose loss was not finite, see :meth:`Subject.lost_in`."""
        return self.subject.lost_in(trace)

    def leave_out(self, module: nn.Module, samples: Collection[int], trace: Trace) -> None:
        """Removes observed samples, also from references and TracIn.

        Args:
            module: the module of the prober.
            samples: their numbers, see :meth:`~stagewise.probes.subject.Subject.lost_in`.
            trace: of the probe that found them.

        Raises:
            InputError: no losses or no groups would be left; nothing is changed.
        """
        before = self.subject
        left, gone = before.without(samples)
        self._build(module, left, self.engine)
        self.carried.keep(
            before.observed.rows(left.observed.numbers.tolist()),
            reduced=[before.reduced.names.index(name) for name in left.reduced.names],
            groups=[before.groups.names.index(name) for name in left.groups.names],
        )
        if self._share.is_first:
            seen = kinds_seen(trace.anchor_loss[before.observed.rows(samples)]) or "elsewhere"
            num_left = len(left.observed.numbers)
            self._warn(lost_words(samples, gone, seen=seen, num_left=num_left, step=trace.step))

    @property
    def engine(self) -> EngineName | None:
        """Engine of the chains; None until ``auto`` is resolved at the first probe."""
        return self._sampler.engine

    def probe(
        self,
        module: nn.Module,
        step: int,
        *,
        second_moments: Mapping[str, Tensor] | None = None,
        lr_sum: float | None = None,
        number: int | None = None,
        steepest: float | None = None,
        leave_out: bool = True,
    ) -> tuple[xr.Dataset | None, Trace]:
        """Probes the current weights: :meth:`measure`, then :meth:`assemble` with the prober's reference.

        Args:
            module: the module of the prober.
            step: training step, larger than that of any earlier probe.
            second_moments: of Adam, by parameter name, for ``AdamMoments``.
            lr_sum: sum of the learning rates over training so far, for TracIn, which weights a probe by the increase
                since the previous one; None disables it.
            number: of this probe in its run, from 0, for the schedule of controls; counted if None.
            steepest: largest curvature that a step meets, see
                :meth:`stagewise.calibration.landscape.Measurement.steepest`, for the flag ``unstable``; None if it was
                not measured.
            leave_out: if samples have a loss that is not finite at these weights, repeat the probe without them (see
                :meth:`leave_out`); if False, such a probe is None, and :meth:`lost_in` returns them.

        Returns:
            The data set of the probe, or None if every chain failed; and the trace.

            The data set has influence, see :func:`stagewise.influence.bif.bif`, also by position and between tokens if
            requested; baselines, signal and diagnostics; the learning coefficient, see
            :func:`stagewise.influence.llc.llc`; the losses of draws if saved; and flags: their number ``flagged``,
            ``flag_names``, and the attribute ``flags``, name to words. ``equilibrated`` is 0 if flags say that the
            chains are not in equilibrium. A probe with a severe flag has no signal and is not a reference. Attributes:
            ``moved_weights``, the number of weights that chains move; ``token_axes``, the sizes of the axes of dense
            losses after the sample axis, see :func:`stagewise.probes.axes.in_axes`. If a control is due, the data set
            also has the variables of :func:`~stagewise.influence.control.control_influence`.
        """
        given: dict[str, Any] = {"second_moments": second_moments, "lr_sum": lr_sum, "steepest": steepest}
        measured, trace = self.measure(module, step, number=number, **given)
        lost = self.subject.lost_in(trace) if measured is None and leave_out else ()
        if lost:
            self.leave_out(module, lost, trace)
            number = self.carried.num_probes - 1  # the same probe
            measured, trace = self.measure(module, step, number=number, **given)
        if measured is None:
            return None, trace
        reference = self.carried.references.for_step(step)
        result = self.assemble(measured, reference)
        # Last, so that a failed probe is not a reference.
        if measured.usable:
            self.carried.references.add(measured.features)
        return result, trace

    def measure(
        self,
        module: nn.Module,
        step: int,
        *,
        second_moments: Mapping[str, Tensor] | None = None,
        lr_sum: float | None = None,
        number: int | None = None,
        steepest: float | None = None,
    ) -> tuple[Measured | None, Trace]:
        """Measures one probe: chains, diagnostics, flags, baselines.

        Only TracIn and the schedule of controls depend on earlier probes; both are part of :attr:`carried`.

        Args:
            module: the module of the prober.
            step: training step.
            second_moments: see :meth:`probe`.
            lr_sum: see :meth:`probe`.
            number: see :meth:`probe`.
            steepest: see :meth:`probe`.

        Returns:
            The measurement, and the trace. If several processes share the chains, all but the first return None and the
            trace of their own chains. The measurement is also None if every chain failed.
        """
        start = time.perf_counter()
        number = self.carried.num_probes if number is None else number
        self.carried.num_probes = number + 1
        every = self._config.control_every
        control = every is not None and number % every == 0
        if self.engine is None and self._share.world_size > 1 and not self._share.together:
            # One choice for all processes, since it depends on timing and is kept over the run.
            self._sampler.settle_engine(
                self._share.decide(lambda: self._sampler.choose_engine(max(1, len(self._numbers))))
            )
        mine: list[Trace] = []
        if self._share.world_size == 1:
            parts: list[_Part] | None = [self._run(step, second_moments, mine, control=control)]
        else:
            parts = self._share.collect(lambda: self._run(step, second_moments, mine, control=control))
        if parts is None:
            if self._share.together and mine[0].chains:
                # For the passes that the first process cannot make alone; adds nothing to TracIn.
                self.baselines.measure(module, step, None, self.carried.tracin)
            return None, mine[0]
        trace = parts[0].trace if len(parts) == 1 else merge_traces([part.trace for part in parts])
        if not trace.chains:
            return None, trace
        features = GroupDraws.of(trace, self.subject.reduced)
        # Built at once at the end: xarray copies and aligns the whole data set for each variable that is added.
        found: dict[Any, Any] = {"group_loss": ("group", self.groups.means(trace.anchor_loss), {"units": "nats"})}
        if self._token_rows is not None:
            tokens = TokenSums(self._token_rows)
            tokens.merge([part.tokens for part in parts if part.tokens is not None])
            chosen = tokens.influence(trace.chains)
            found |= self.subject.numbered(chosen, "chosen", self._token_rows).variables
        if self._config.llc.enabled:
            found |= self._llc.measure(trace, features, [part.llc for part in parts if part.llc is not None])
        found |= self.baselines.measure(module, step, lr_sum, self.carried.tracin)
        if control:
            free = merge_traces([part.control for part in parts if part.control is not None])
            reduced = GroupDraws.of(free, self.subject.reduced)
            found |= control_influence(features, reduced, self.groups, centering=self._config.centering).variables
        flags = add_chain_facts(
            found, trace, features, self.groups, sgld=self._sgld, config=self._config, steepest=steepest
        )
        features = replace(features, equilibrated=bool(found["equilibrated"]))
        settings = self._settings | {"flags": {flag.name: flag.words for flag in flags}, "engine": str(trace.engine)}
        found["seconds"] = time.perf_counter() - start
        own = xr.Dataset(found, attrs=settings)
        if not self.subject.observed.is_whole:
            own = self.subject.numbered(own, "sample")
        return Measured(features, own, usable=not any(flag.severe for flag in flags)), trace

    def _run(
        self, step: int, second_moments: Mapping[str, Tensor] | None, kept: list[Trace], *, control: bool
    ) -> "_Part":
        """Runs the chains of this process, and keeps their trace in addition to the part for the first process.

        Draws of the control are always reduced.
        """
        tokens = None if self._token_rows is None else TokenSums(self._token_rows)
        trace = self._sampler.run(step, second_moments, on_draw=tokens, numbers=self._numbers)
        kept.append(trace)
        llc = None if self._llc.own is None else self._llc.run(step, second_moments, engine=self.engine)
        if not control:
            return _Part(trace, tokens, llc, None)
        reduce = Reducer(self.subject.reduced)
        free = self._sampler.run(step, second_moments, numbers=self._numbers, control=True, reduce=reduce)
        return _Part(trace, tokens, llc, free)

    def assemble(self, measured: Measured, reference: GroupDraws | None) -> xr.Dataset:
        """Returns the data set of a measurement, with influence split against a reference; needs no module.

        Args:
            measured: from :meth:`measure`.
            reference: draws of an earlier probe without a severe flag, or None.
        """
        return assemble(
            measured, reference, self.groups, positions=self.subject.positions, centering=self._config.centering
        )

    def halve_chunks(self) -> bool:
        """Halves the chunks of the observed set, to save memory; returns False if they hold one sample."""
        smaller = self.subject.with_smaller_chunks()
        if smaller is None or smaller.target.chunk_size is None:
            return False
        self.subject = smaller
        for holds in (self._sampler, self.baselines, self._llc):
            holds.rechunk(smaller.target.chunk_size)
        return True

    def fingerprint(self) -> dict[str, str]:
        """Returns the settings and data that the probes of a run must share to be comparable, as text."""
        return self.subject.fingerprint(self._sgld)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        sgld = self._sgld
        return {
            **({TOKEN_AXES: list(self.subject.axes)} if len(self.subject.axes) > 1 else {}),
            "version": __version__,
            "nbeta": sgld.nbeta,
            "localization": sgld.localization,
            "lr": sgld.lr,
            "seed": sgld.seed,
            "sgld": asdict(sgld),
            "moved_weights": self.subject.moved_weights,
        }
