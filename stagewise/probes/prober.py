"""One probe: chains, diagnostics, influence, baseline and signal, as one data set."""

import time
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from stagewise._version import __version__
from stagewise.batches import num_samples, take, to_device
from stagewise.checks.bounds import check_arguments
from stagewise.influence.control import control_influence
from stagewise.influence.features import Features, Reducer
from stagewise.influence.groups import Groups, Positions
from stagewise.influence.token_sums import TokenSums
from stagewise.isolation import untouched, with_weights
from stagewise.losses.contract import Losses, LossFn
from stagewise.probes.assembly import Measured, assemble
from stagewise.probes.axes import TOKEN_AXES, flat_masks
from stagewise.probes.baselines import Baselines
from stagewise.probes.chain_facts import add_diagnostics, add_trace
from stagewise.probes.config import ProbeConfig
from stagewise.probes.data_digest import data_digest
from stagewise.probes.flags import in_equilibrium
from stagewise.probes.llc import LearningCoefficient
from stagewise.probes.lost_samples import ObservedSet, kinds_seen, lost_words, not_finite_rows
from stagewise.probes.memory import check_memory, gradient_memory
from stagewise.probes.references import References
from stagewise.probes.start_check import check_start
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.selection import Masks, masks_digest, moved_entries
from stagewise.sampling.share import ALONE, ChainShare
from stagewise.sampling.target import Target
from stagewise.sampling.trace import Trace, merge_traces
from stagewise.sampling.weights import FlatWeights


class Mark(NamedTuple):
    """A place to return to, see :meth:`Prober.mark`."""

    references: list[Features]
    baselines: dict[str, Any]
    num_probes: int


class Prober:
    """Measures influence at whatever weights a module has, against its own earlier probes.

    Without a Trainer call :meth:`probe` at increasing steps. The module is left bit for bit as it was. The attribute
    ``memory_gib`` says what draws and products need beside the chains.

    An observed sample whose loss is not finite is left out, named in a warning: before the first probe, or from the
    probe on that finds it so. Numbers of samples stay those of the set that was given (the coordinate ``sample``).
    """

    def __init__(
        self,
        module: nn.Module,
        loss_fn: LossFn,
        data: ProbeData,
        *,
        sgld: SGLDConfig,
        config: ProbeConfig,
        references: References | None = None,
        forward_context: Callable[[], AbstractContextManager] = nullcontext,
        engine: EngineName | None = None,
        masks: Masks | None = None,
        share: ChainShare = ALONE,
        lost: Collection[int] | None = None,
        warn: Callable[[str], object] = warnings.warn,
    ) -> None:
        """Check everything that can be checked before the first probe.

        Args:
            module: what will be probed.
            loss_fn: per-sample loss, see :mod:`stagewise.losses.contract`.
            data: observed set, sampling set and groups.
            sgld: the sampler.
            config: the measurement.
            references: earlier probes of the same run; none if not given.
            forward_context: entered around each forward pass (autocast).
            engine: the engine that ``auto`` chose earlier in the same run.
            masks: parameter name to bool mask of its shape: chains and baselines move the entries where it is True and
                leave all else at w*, so that influence is that of one component. In place of ``sgld.parameters``; None
                for all weights. :func:`stagewise.lm.components.component_masks` makes those of a head or a layer.
            share: where several processes share the chains of each probe, at the same weights: which of them this one
                runs. The first process then has all draws, and the results; the others have none.
            lost: numbers of observed samples that are left out, neither more nor less, as of a run that is resumed; if
                None, those whose loss is not finite now.
            warn: told which those are.

        Raises:
            LossContractError: the loss breaks its contract; or it is not finite in all of the observed set, or in the
                sampling set.
            InputError: a parameter pattern matches nothing; masks, groups, position bins or chosen samples do not fit;
                there are fewer chains than processes; or what is asked for needs more memory than allowed.
        """
        check_arguments("Prober", Prober.__init__, locals(), leave=["forward_context", "warn"])
        device = next(module.parameters()).device
        observed = to_device(data.observed, device)
        sampling = None if data.sampling is None else to_device(data.sampling, device)
        target = Target(loss_fn, observed, sampling, masks, config.chunk_size, forward_context)
        self._target = target.moved_by(sgld)
        self._drives_itself = sampling is None
        self._sgld = sgld
        self._config = config
        self._masks = masks
        self._share, self._numbers = share, share.numbers(sgld.num_chains)
        self._references = References(config.reference_ratio) if references is None else references
        self._warn = warn
        # Once for a run with checksums: what a loss does to a module without autograd's knowing, it does each time.
        with untouched(module, checksums=True):
            self.memory_gib, self._gradient_block = self._check_memory(module, max(1, len(data.groups)))
            present, bad, seen, self._moved_weights = check_start(
                module,
                self._target,
                batch_size=sgld.batch_size,
                drives_itself=self._drives_itself,
                lost=frozenset(lost or ()),
            )
        whole = ObservedSet(
            observed, flat_masks(data.groups, self._axes), present, np.arange(len(present)), len(present)
        )
        _, _, reduced = self._grouped(whole)
        # Of what was given: a sample that is left out later does not make it other data.
        self._digest = data_digest((observed, self._target.sampling), reduced)
        self._set, gone = whole.without(bad if lost is None else lost)
        if lost is None and len(bad) and share.is_first:
            warn(lost_words(bad, gone, seen=seen, num_left=len(self._set.numbers)))
        self._num_probes = 0
        self._build(module, engine)

    def _grouped(self, observed: ObservedSet) -> tuple[Groups, Positions | None, Groups]:
        """Groups, bins, and what draws are reduced to: the groups, then the bins."""
        groups = Groups(observed.masks, observed.present)
        bins = self._config.position_bins
        positions = None if bins is None else Positions(groups, observed.present, bins)
        return groups, positions, groups if positions is None else positions.joint

    def _build(self, module: nn.Module, engine: EngineName | None) -> None:
        """Everything that is made for the observed set as it is now; nothing is changed where that is refused."""
        self.groups, self._positions, self._reduced = self._grouped(self._set)
        observed = self._set.batch
        sampling = observed if self._drives_itself else self._target.sampling
        self._target = replace(self._target, observed=observed, sampling=sampling)
        chosen = self._config.token_samples
        # Nothing is left of an empty choice.
        self._token_rows = None if chosen is None else self._set.rows_in_order(chosen) or None
        self.baselines = Baselines(
            self._target,
            self.groups,
            sgld=self._sgld,
            config=self._config,
            gradient_block=self._gradient_block,
        )
        self._llc = LearningCoefficient(
            module,
            self._target,
            self.groups,
            sgld=self._sgld,
            config=self._config,
            share=self._share,
        )
        self._sampler = ChainSampler(
            module,
            self._target,
            self._sgld,
            reduce=None if self._config.save_trace else Reducer(self._reduced),
            engine=engine,
        )

    @property
    def target(self) -> Target:
        """What probes look at now: with the samples that are left."""
        return self._target

    @property
    def lost(self) -> tuple[int, ...]:
        """Numbers of the observed samples that are left out, increasing."""
        return tuple(int(it) for it in np.setdiff1d(np.arange(self._set.num_given), self._set.numbers))

    def lost_in(self, trace: Trace) -> tuple[int, ...]:
        """Numbers of the samples that kept a probe from its chains: of a loss that is not finite at its weights.

        Args:
            trace: of the probe, as :meth:`probe` or :meth:`measure` returned it.

        Returns:
            None of them where the losses of all samples are such: then it is the model that is to be looked at.
        """
        rows = not_finite_rows(trace.anchor_loss)
        return () if len(rows) == len(trace.anchor_loss) else tuple(int(it) for it in self._set.numbers[rows])

    def leave_out(self, module: nn.Module, samples: Collection[int], trace: Trace) -> None:
        """Go on without some of the observed samples; references and TracIn are cut to what is left.

        Args:
            module: the module that the prober was made for.
            samples: their numbers, see :meth:`lost_in`.
            trace: of the probe that they kept from its chains.

        Raises:
            InputError: too little would be left; nothing is changed then.
        """
        before, earlier = self._set, (self._reduced, self.groups, self.baselines)
        left, gone = before.without(samples)
        self._grouped(left)
        self._set = left
        self._build(module, self.engine)
        reduced, groups, baselines = earlier
        rows = before.rows(left.numbers.tolist())
        kept = [reduced.names.index(name) for name in self._reduced.names]
        self._references.return_to([it.part(rows, kept) for it in self._references.mark()])
        self.baselines.take_over(baselines, [groups.names.index(name) for name in self.groups.names])
        if self._share.is_first:
            seen = kinds_seen(trace.anchor_loss[before.rows(samples)]) or "elsewhere"
            self._warn(lost_words(samples, gone, seen=seen, num_left=len(left.numbers), step=trace.step))

    @property
    def engine(self) -> EngineName | None:
        """The engine that runs the chains; None until ``auto`` has chosen at the first probe."""
        return self._sampler.engine

    def _check_memory(self, module: nn.Module, num_groups: int) -> tuple[float, int | None]:
        """Refuse before the work: two samples tell how many losses each has. GiB, and weights in a gradient block."""
        target = self._target
        leaves = FlatWeights(module, target.selection).leaves

        def few_losses() -> Losses:
            with torch.no_grad():
                # Not one: a norm over the batch that is always on refuses that.
                return target.evaluate(module, take(target.observed, slice(0, 2)))

        few = with_weights(module, leaves, few_losses)
        self._axes = few.axes
        shape = (num_samples(target.observed), *few.values.shape[1:])
        others = check_memory(
            self._config, self._sgld, loss_shape=shape, num_groups=num_groups, num_processes=self._share.world_size
        )
        moved = moved_entries(module, target.selection)
        block, gib = gradient_memory(
            self._config,
            others,
            num_groups=num_groups,
            num_weights=sum(entries.size for entries in moved),
            weight_bytes=max(4, *(entries.dtype.itemsize for entries in moved)),
        )
        return others + gib, block

    def probe(
        self,
        module: nn.Module,
        step: int,
        *,
        second_moments: Mapping[str, Tensor] | None = None,
        lr_sum: float | None = None,
        number: int | None = None,
        leave_out: bool = True,
    ) -> tuple[xr.Dataset | None, Trace]:
        """Probe the weights that the module has now: :meth:`measure`, then :meth:`assemble` with the own reference.

        Args:
            module: the module that the prober was made for.
            step: training step, larger than that of any earlier probe.
            second_moments: Adam's, by parameter name, for the preconditioner that uses them.
            lr_sum: learning rates of training, summed over all its steps so far, for TracIn, which weighs a probe with
                what has been added since the one before; without it there is none.
            number: of this probe in its run, from 0, which tells when a control is due; counted if None.
            leave_out: where samples have a loss that is not finite at these weights, probe once more without them (see
                :meth:`leave_out`); if False, such a probe is None, and :meth:`lost_in` tells them.

        Returns:
            The data set of the probe (see :func:`stagewise.influence.bif.bif` for influence; the trace, baseline,
            signal and diagnostics beside it, the learning coefficient, see :func:`stagewise.influence.llc.llc`,
            influence by position and between tokens where it was asked for, and what the probe is flagged for:
            ``flagged``, the number, ``flag_names``, and the attribute ``flags``, name to words; ``equilibrated``, 0
            where flags say that its chains are not), or None where every chain failed; and the trace. A probe with a
            severe flag has no signal and is no reference; others are used as they are. ``moved_weights`` tells how many
            weights the chains move; ``token_axes`` the sizes of the axes that dense losses have behind the sample's,
            see :func:`stagewise.probes.axes.in_axes`. Where a control is due, what
            :func:`~stagewise.influence.control.control_influence` returns is in it too.
        """
        measured, trace = self.measure(module, step, second_moments=second_moments, lr_sum=lr_sum, number=number)
        lost = self.lost_in(trace) if measured is None and leave_out else ()
        if lost:
            self.leave_out(module, lost, trace)
            number = self._num_probes - 1  # the same probe
            measured, trace = self.measure(module, step, second_moments=second_moments, lr_sum=lr_sum, number=number)
        if measured is None:
            return None, trace
        result = self.assemble(measured, self._references.for_step(step))
        # Last: a probe that fails on the way is no reference.
        if measured.usable:
            self._references.add(measured.features)
        return result, trace

    def measure(
        self,
        module: nn.Module,
        step: int,
        *,
        second_moments: Mapping[str, Tensor] | None = None,
        lr_sum: float | None = None,
        number: int | None = None,
    ) -> tuple[Measured | None, Trace]:
        """Measures at the weights of one probe: chains, diagnostics, flags, baselines. No other probe is read.

        Args:
            module: the module that the prober was made for.
            step: training step.
            second_moments: as :meth:`probe` takes them.
            lr_sum: as :meth:`probe` takes it.
            number: as :meth:`probe` takes it.

        Returns:
            What was measured, None where every chain failed, and in a process that is not the first of those that
            share the chains; and the trace, there of its own chains.
        """
        start = time.perf_counter()
        tokens = None if self._token_rows is None else TokenSums(self._token_rows)
        trace = self._sampler.run(step, second_moments, on_draw=tokens, numbers=self._numbers)
        traces = self._share.collect(trace)
        sums = None if tokens is None else self._share.collect(tokens)
        own_llc = self._llc.run(step, second_moments, engine=self.engine)
        controls = None
        if self._control_due(number):
            controls = self._share.collect(self._control(step, second_moments))
        if traces is None:
            return None, trace
        trace = merge_traces(traces)
        if tokens is not None and sums is not None:
            tokens.merge(sums)
        if not trace.chains:
            return None, trace
        features = Features.of(trace, self._reduced)
        own = xr.Dataset({"group_loss": ("group", self.groups.means(trace.anchor_loss), {"units": "nats"})})
        if tokens is not None:
            own = own.assign(self._numbered(tokens.influence(trace.chains), "chosen", self._token_rows))
        if self._config.llc.enabled:
            own = own.assign(self._llc.measure(trace, features, own_llc))
        own = own.assign(self.baselines.measure(module, step, lr_sum))
        if controls is not None:
            control = Features.of(merge_traces(controls), self._reduced)
            own = own.assign(control_influence(features, control, self.groups, centering=self._config.centering))
        flags = add_diagnostics(own, trace, features, self.groups, sgld=self._sgld, config=self._config)
        features = replace(features, equilibrated=in_equilibrium(flags))
        add_trace(own, trace, keep_draws=self._config.save_trace)
        own = self._numbered(own, "sample")
        own.attrs |= self._settings() | {"engine": str(trace.engine)}
        own["seconds"] = time.perf_counter() - start
        return Measured(features, own, usable=not any(flag.severe for flag in flags)), trace

    def _numbered(self, found: xr.Dataset, axis: str, rows: list[int] | None = None) -> xr.Dataset:
        """With the numbers of samples in the set as it was given, where some of it is left out."""
        if self._set.is_whole:
            return found
        numbers = self._set.numbers if rows is None else self._set.numbers[rows]
        return found.assign_coords({axis: (axis, numbers), f"{axis}_j": (f"{axis}_j", numbers)})

    def _control_due(self, number: int | None) -> bool:
        """Counts the probes."""
        number = self._num_probes if number is None else number
        self._num_probes = number + 1
        every = self._config.control_every
        return every is not None and number % every == 0

    def _control(self, step: int, second_moments: Mapping[str, Tensor] | None) -> Trace:
        """The chains of this process without the loss, their draws reduced even where those of the probe are kept."""
        return self._sampler.run(
            step, second_moments, numbers=self._numbers, control=True, reduce=Reducer(self._reduced)
        )

    def assemble(self, measured: Measured, reference: Features | None) -> xr.Dataset:
        """Influence of what was measured, split against a reference, as one data set; needs no module.

        Args:
            measured: from :meth:`measure`.
            reference: draws of an earlier probe that has no severe flag; None for a probe without one.
        """
        return assemble(measured, reference, self.groups, positions=self._positions, centering=self._config.centering)

    def halve_chunks(self) -> bool:
        """Halve the chunks of the observed set, to need less memory; False where they are of one sample already."""
        size = num_samples(self._target.observed)
        now = min(self._target.chunk_size or size, size)
        if now == 1:
            return False
        half = (now + 1) // 2
        self._target = replace(self._target, chunk_size=half)
        self._sampler.rechunk(half)
        self.baselines.rechunk(half)
        self._llc.rechunk(half)
        return True

    def mark(self) -> Mark:
        """Marks the state that a probe adds to, for :meth:`return_to`."""
        return Mark(self._references.mark(), deepcopy(self.baselines.state_dict()), self._num_probes)

    def return_to(self, mark: Mark) -> None:
        """Be as before a probe that failed, here or on another rank."""
        self._references.return_to(mark.references)
        self.baselines.load_state_dict(mark.baselines)
        self._num_probes = mark.num_probes

    def settle(self, sgld: SGLDConfig) -> dict[str, str]:
        """Take numbers in place of ``auto``; returns the fingerprint, which holds them from now on."""
        self._sgld = sgld
        self._sampler.settle(sgld)
        self.baselines.settle(sgld)
        self._llc.settle(sgld)
        return self.fingerprint()

    def fingerprint(self) -> dict[str, str]:
        """Settings and data that must stay the same over a run for its probes to compare, as text."""
        found = {
            "sgld": repr(self._sgld),
            "centering": str(self._config.centering),
            "reference_ratio": repr(self._config.reference_ratio),
            "data": self._digest,
        }
        found |= self._llc.fingerprint()
        return found if self._masks is None else found | {"masks": masks_digest(self._masks)}

    def _settings(self) -> dict[str, Any]:
        sgld = self._sgld
        return {
            **({TOKEN_AXES: list(self._axes)} if len(self._axes) > 1 else {}),
            "version": __version__,
            "nbeta": sgld.nbeta,
            "localization": sgld.localization,
            "lr": sgld.lr,
            "seed": sgld.seed,
            "sgld": asdict(sgld),
            "moved_weights": self._moved_weights,
        }
