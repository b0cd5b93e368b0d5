"""One probe: chains, diagnostics, influence, baseline and signal, as one data set."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from stagewise._version import __version__
from stagewise.batches import Batch, chunks, num_samples, take, to_device
from stagewise.checks.bounds import check_arguments
from stagewise.errors import LossContractError
from stagewise.influence.control import control_influence
from stagewise.influence.features import Features, Reducer
from stagewise.influence.groups import Groups, Positions
from stagewise.influence.token_sums import TokenSums
from stagewise.isolation import untouched, with_weights
from stagewise.losses.contract import Losses, LossFn, check_finite, check_loss, check_some, evaluate
from stagewise.probes.assembly import Measured, assemble
from stagewise.probes.axes import TOKEN_AXES, flat_masks
from stagewise.probes.baselines import Baselines
from stagewise.probes.chain_facts import add_diagnostics, add_trace
from stagewise.probes.chunking import check_chunking
from stagewise.probes.config import ProbeConfig
from stagewise.probes.data_digest import data_digest
from stagewise.probes.flags import in_equilibrium
from stagewise.probes.llc import LearningCoefficient
from stagewise.probes.memory import check_memory, gradient_memory
from stagewise.probes.references import References
from stagewise.probes.stale import check_stale
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.selection import Masks, masks_digest, moved_entries, one_selection
from stagewise.sampling.share import ALONE, ChainShare
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
        device: torch.device | None = None,
        forward_context: Callable[[], AbstractContextManager] = nullcontext,
        engine: EngineName | None = None,
        masks: Masks | None = None,
        share: ChainShare = ALONE,
    ) -> None:
        """Check everything that can be checked before the first probe.

        Args:
            module: what will be probed.
            loss_fn: per-sample loss, see :mod:`stagewise.losses.contract`.
            data: observed set, sampling set and groups.
            sgld: the sampler.
            config: the measurement.
            references: earlier probes of the same run; none if not given.
            device: where the module lives; the device of its first parameter if None.
            forward_context: entered around each forward pass (autocast).
            engine: the engine that ``auto`` chose earlier in the same run.
            masks: parameter name to bool mask of its shape: chains and baselines move the entries where it is True and
                leave all else at w*, so that influence is that of one component. In place of ``sgld.parameters``; None
                for all weights. :func:`stagewise.lm.components.component_masks` makes those of a head or a layer.
            share: where several processes share the chains of each probe, at the same weights: which of them this one
                runs. The first process then has all draws, and the results; the others have none.

        Raises:
            LossContractError: the loss breaks its contract.
            InputError: a parameter pattern matches nothing; masks, groups, position bins or chosen samples do not fit;
                there are fewer chains than processes; or what is asked for needs more memory than allowed.
        """
        check_arguments("Prober", Prober.__init__, locals(), leave=["device", "forward_context"])
        device = device or next(module.parameters()).device
        self._loss_fn = loss_fn
        self._observed = to_device(data.observed, device)
        self._sampling = self._observed if data.sampling is None else to_device(data.sampling, device)
        self._sgld = sgld
        self._config = config
        self._forward_context = forward_context
        self._masks = masks
        self._share, self._numbers = share, share.numbers(sgld.num_chains)
        self._references = References(config.reference_ratio) if references is None else references
        # Once for a run with checksums: what a loss does to a module without autograd's knowing, it does each time.
        with untouched(module, checksums=True):
            self.memory_gib, gradient_block = self._check_memory(module, max(1, len(data.groups)))
            mask = self._check(module)
        self.groups = Groups(flat_masks(data.groups, self._axes), mask)
        bins = config.position_bins
        self._positions = None if bins is None else Positions(self.groups, mask, bins)
        # What draws are reduced to: the groups, then the bins.
        self._reduced = self.groups if self._positions is None else self._positions.joint
        self.baselines = Baselines(
            loss_fn,
            self._observed,
            self._sampling,
            self.groups,
            sgld=sgld,
            config=config,
            forward_context=forward_context,
            masks=masks,
            gradient_block=gradient_block,
        )
        self._llc = LearningCoefficient(
            module,
            loss_fn,
            self._observed,
            self._sampling,
            self.groups,
            sgld=sgld,
            config=config,
            forward_context=forward_context,
            masks=masks,
            share=share,
        )
        self._num_probes = 0
        self._sampler = ChainSampler(
            module,
            loss_fn,
            observed=self._observed,
            sampling=self._sampling,
            config=sgld,
            chunk_size=config.chunk_size,
            forward_context=forward_context,
            reduce=None if config.save_trace else Reducer(self._reduced),
            engine=engine,
            masks=masks,
        )

    @property
    def engine(self) -> EngineName | None:
        """The engine that runs the chains; None until ``auto`` has chosen at the first probe."""
        return self._sampler.engine

    def _check(self, module: nn.Module) -> np.ndarray:
        """Check the loss on the whole observed set, chunk by chunk; returns the loss mask."""
        masks: list[Tensor] = []
        weights = FlatWeights(module, one_selection(self._sgld.parameters, self._masks))
        self._moved_weights = len(weights.anchor)

        def observe() -> Batch:
            with self._forward_context(), torch.no_grad():
                for chunk in chunks(self._observed, self._config.chunk_size):
                    losses = evaluate(self._loss_fn, module, chunk)
                    check_finite(losses, "the observed set", sum(map(len, masks)))
                    if not masks:
                        check_chunking(self._loss_fn, module, self._observed, losses)
                    masks.append(losses.mask.cpu())
                check_some(torch.cat(masks), "an observed set (observed)")
                return self._first_with_loss(module)

        def gradient() -> Tensor:
            with self._forward_context():
                losses = check_loss(self._loss_fn, module, minibatch)
            return weights.gradient(losses.mean())

        # As in a probe: a forward pass that writes to weights (a largest norm) writes to those of the chain.
        minibatch = with_weights(module, weights.leaves, observe)
        with torch.enable_grad():
            found = with_weights(module, weights.leaves, gradient)
        if not torch.isfinite(found).all():
            raise LossContractError(
                "got a gradient that is not finite from a finite loss; expected finite gradients; look for square "
                "roots, norms and logarithms at zero"
            )
        selection = one_selection(self._sgld.parameters, self._masks)
        check_stale(self._loss_fn, module, minibatch, selection, forward_context=self._forward_context)
        return torch.cat(masks).numpy()

    def _first_with_loss(self, module: nn.Module) -> Batch:
        """The first minibatch of the sampling set in which the mask leaves a loss: in some, every label is ignored."""
        masks: list[Tensor] = []
        for batch in chunks(self._sampling, self._sgld.batch_size):
            losses = evaluate(self._loss_fn, module, batch)
            check_finite(losses, "the sampling set", sum(map(len, masks)))
            if losses.mask.any():
                return batch
            masks.append(losses.mask)
        check_some(torch.cat(masks), "a sampling set (sampling)")
        raise AssertionError("check_some has refused")

    def _check_memory(self, module: nn.Module, num_groups: int) -> tuple[float, int | None]:
        """Refuse before the work: two samples tell how many losses each has. GiB, and weights in a gradient block."""
        leaves = FlatWeights(module, one_selection(self._sgld.parameters, self._masks)).leaves

        def few_losses() -> Losses:
            with self._forward_context(), torch.no_grad():
                # Not one: a norm over the batch that is always on refuses that.
                return evaluate(self._loss_fn, module, take(self._observed, slice(0, 2)))

        few = with_weights(module, leaves, few_losses)
        self._axes = few.axes
        shape = (num_samples(self._observed), *few.values.shape[1:])
        others = check_memory(
            self._config, self._sgld, loss_shape=shape, num_groups=num_groups, num_processes=self._share.world_size
        )
        moved = moved_entries(module, one_selection(self._sgld.parameters, self._masks))
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
    ) -> tuple[xr.Dataset | None, Trace]:
        """Probe the weights that the module has now: :meth:`measure`, then :meth:`assemble` with the own reference.

        Args:
            module: the module that the prober was made for.
            step: training step, larger than that of any earlier probe.
            second_moments: Adam's, by parameter name, for the preconditioner that uses them.
            lr_sum: learning rates of training, summed over all its steps so far, for TracIn, which weighs a probe with
                what has been added since the one before; without it there is none.
            number: of this probe in its run, from 0, which tells when a control is due; counted if None.

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
        """What a probe finds at its own weights: chains, diagnostics, flags, baselines. No other probe is looked at.

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
        chosen = self._config.token_samples
        tokens = None if chosen is None else TokenSums(chosen)
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
            own = own.assign(tokens.influence(trace.chains))
        if self._config.llc.enabled:
            own = own.assign(self._llc.measure(trace, features, own_llc))
        own = own.assign(self.baselines.measure(module, step, lr_sum))
        if controls is not None:
            control = Features.of(merge_traces(controls), self._reduced)
            own = own.assign(control_influence(features, control, self.groups, centering=self._config.centering))
        flags = add_diagnostics(own, trace, features, self.groups, sgld=self._sgld, config=self._config)
        features = replace(features, equilibrated=in_equilibrium(flags))
        add_trace(own, trace, keep_draws=self._config.save_trace)
        own.attrs |= self._settings() | {"engine": str(trace.engine)}
        own["seconds"] = time.perf_counter() - start
        return Measured(features, own, usable=not any(flag.severe for flag in flags)), trace

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
        now = min(self._config.chunk_size or num_samples(self._observed), num_samples(self._observed))
        if now == 1:
            return False
        self._config = replace(self._config, chunk_size=(now + 1) // 2)
        self._sampler.rechunk((now + 1) // 2)
        self.baselines.rechunk(self._config)
        self._llc.rechunk(self._config)
        return True

    def mark(self) -> Mark:
        """What a probe adds to, for :meth:`return_to`."""
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
        """What must stay the same over a run for its probes to compare: settings and data, as text."""
        found = {
            "sgld": repr(self._sgld),
            "centering": str(self._config.centering),
            "reference_ratio": repr(self._config.reference_ratio),
            "data": data_digest((self._observed, self._sampling), self._reduced),
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
