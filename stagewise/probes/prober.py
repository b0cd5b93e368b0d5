"""One probe: chains, diagnostics, influence, baseline and signal, as one data set."""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from stagewise._version import __version__
from stagewise.batches import num_samples, take, tensors, to_device
from stagewise.errors import InputError, LossContractError
from stagewise.influence.bif import bif
from stagewise.influence.features import Features, Reducer
from stagewise.influence.groups import Groups
from stagewise.isolation import untouched, with_weights
from stagewise.losses import LossFn, check_finite, check_loss, evaluate
from stagewise.phases.signal import Signal, between_signal
from stagewise.probes.baselines import Baselines
from stagewise.probes.config import ProbeConfig
from stagewise.probes.flags import Flag, find_flags
from stagewise.probes.references import MAX_CACHED, References
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import EngineName, RMSprop, SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.diagnostics import diagnose
from stagewise.sampling.entries import Masks, masks_digest, one_selection
from stagewise.sampling.observed import chunks
from stagewise.sampling.trace import Trace
from stagewise.sampling.weights import FlatWeights

_GIB = 2**30

_VARIABLES = {"drift": "chain_drift", "distance": "end_distance"}
"""Diagnostics whose own name means something else in a data set."""


class Prober:
    """Measures influence at whatever weights a module has, against its own earlier probes.

    Use it without a Trainer by calling :meth:`probe` at increasing steps. The module is left bit for bit as it was.
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
    ) -> None:
        """Check everything that can be checked before the first probe.

        Args:
            module: what will be probed.
            loss_fn: per-sample loss, see :mod:`stagewise.losses`.
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

        Raises:
            LossContractError: the loss breaks its contract.
            InputError: a parameter pattern matches nothing, masks or groups do not fit, or the observed set needs more
                memory than allowed.
        """
        device = device or next(module.parameters()).device
        self._loss_fn = loss_fn
        self._observed = to_device(data.observed, device)
        self._sampling = self._observed if data.sampling is None else to_device(data.sampling, device)
        self._sgld = sgld
        self._config = config
        self._forward_context = forward_context
        self._masks = masks
        self._references = References(config.reference_ratio) if references is None else references
        self._check_memory(module, max(1, len(data.groups)))
        mask = self._check(module)
        self.groups = Groups({name: group.cpu().numpy() for name, group in data.groups.items()}, mask)
        self.baselines = Baselines(
            loss_fn,
            self._observed,
            self._sampling,
            self.groups,
            sgld=sgld,
            config=config,
            forward_context=forward_context,
            masks=masks,
        )
        self._sampler = ChainSampler(
            module,
            loss_fn,
            observed=self._observed,
            sampling=self._sampling,
            config=sgld,
            chunk_size=config.chunk_size,
            forward_context=forward_context,
            reduce=None if config.save_trace else Reducer(self.groups),
            engine=engine,
            masks=masks,
        )

    @property
    def engine(self) -> EngineName | None:
        """The engine that runs the chains; None until ``auto`` has chosen at the first probe."""
        return self._sampler.engine

    def _check(self, module: nn.Module) -> np.ndarray:
        """Check the loss on the whole observed set, chunk by chunk; returns the loss mask."""
        masks = []
        with untouched(module), self._forward_context(), torch.no_grad():
            for chunk in chunks(self._observed, self._config.chunk_size):
                losses = evaluate(self._loss_fn, module, chunk)
                check_finite(losses)
                masks.append(losses.mask.cpu().numpy())
        minibatch = take(self._sampling, slice(0, self._sgld.batch_size))
        weights = FlatWeights(module, one_selection(self._sgld.parameters, self._masks))
        self._moved_weights = len(weights.anchor)

        def gradient() -> Tensor:
            with self._forward_context():
                losses = check_loss(self._loss_fn, module, minibatch)
            return weights.gradient(losses.mean())

        with untouched(module), torch.enable_grad():
            found = with_weights(module, weights.leaves, gradient)
        if not torch.isfinite(found).all():
            raise LossContractError(
                "got a gradient that is not finite from a finite loss; expected finite gradients; look for square "
                "roots, norms and logarithms at zero"
            )
        return np.concatenate(masks)

    def _check_memory(self, module: nn.Module, num_groups: int) -> None:
        """Refuse before the work: one sample tells how many losses there are."""
        size = num_samples(self._observed)
        with untouched(module), self._forward_context(), torch.no_grad():
            one = evaluate(self._loss_fn, module, take(self._observed, slice(0, 1)))
        num_losses = size * one.values.numel()
        draws = self._sgld.num_chains * self._sgld.num_draws
        samples = size * num_groups + size
        kept = num_losses if self._config.save_trace else size
        # The trace in float32 and float64; features of the references and scratch; the four parts and their views.
        need = (12 * draws * kept + 8 * (MAX_CACHED + 4) * draws * samples + 112 * size**2) / _GIB
        if need > self._config.memory_limit_gib:
            raise InputError(
                f"got an observed set of {size} samples ({num_losses} losses) x {draws} draws, which needs about "
                f"{need:.2g} GiB; expected at most memory_limit_gib={self._config.memory_limit_gib:g}; observe fewer "
                "samples, draw less, set save_trace to false, or raise the limit"
            )

    def probe(
        self,
        module: nn.Module,
        step: int,
        *,
        second_moments: Mapping[str, Tensor] | None = None,
        lr: float | None = None,
    ) -> tuple[xr.Dataset | None, Trace]:
        """Probe the weights that the module has now.

        Args:
            module: the module that the prober was made for.
            step: training step, larger than that of any earlier probe.
            second_moments: Adam's, by parameter name, for the preconditioner that uses them.
            lr: learning rate of training, for TracIn; without it there is none.

        Returns:
            The data set of the probe (see :func:`stagewise.influence.bif.bif` for influence; the trace, baseline,
            signal and diagnostics beside it, and what it is flagged for: ``flagged``, the number, ``flag_names``, and
            the attribute ``flags``, name to words; the attribute ``moved_weights`` tells how many weights the chains
            move), or None where every chain failed; and the trace. A probe with a
            severe flag has no signal and is no reference; others are used as they are.
        """
        start = time.perf_counter()
        trace = self._sampler.run(step, second_moments)
        if not trace.chains:
            return None, trace
        features = Features.of(trace, self.groups)
        result = bif(features, self._references.for_step(step), self.groups, centering=self._config.centering)
        result["group_loss"] = ("group", self.groups.means(trace.anchor_loss), {"units": "nats"})
        for name, variable in self.baselines.measure(module, step, lr).items():
            result[name] = variable
        flags = self._add_diagnostics(result, trace, features)
        usable = not any(flag.severe for flag in flags)
        self._add_signal(result, usable=usable)
        self._add_trace(result, trace)
        result["seconds"] = time.perf_counter() - start
        result.attrs |= self._settings() | {"engine": str(trace.engine)}
        # Last: a probe that fails on the way is no reference.
        if usable:
            self._references.add(features)
        return result, trace

    def settle(self, sgld: SGLDConfig) -> dict[str, str]:
        """Take numbers in place of ``auto``; returns the fingerprint, which holds them from now on."""
        self._sgld = sgld
        self._sampler.settle(sgld)
        self.baselines.settle(sgld)
        return self.fingerprint()

    def fingerprint(self) -> dict[str, str]:
        """What must stay the same over a run for its probes to compare: settings and data, as text."""
        data = hashlib.sha256()
        for batch in (self._observed, self._sampling):
            for tensor in tensors(batch):
                data.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        data.update(repr((self.groups.names, self.groups.counts.tolist())).encode())
        found = {
            "sgld": repr(self._sgld),
            "centering": str(self._config.centering),
            "reference_ratio": repr(self._config.reference_ratio),
            "data": data.hexdigest(),
        }
        return found if self._masks is None else found | {"masks": masks_digest(self._masks)}

    def _add_diagnostics(self, result: xr.Dataset, trace: Trace, features: Features) -> list[Flag]:
        preconditioner = self._sgld.preconditioner
        counts = self.groups.counts
        sums = features.groups.reshape(*features.groups.shape[:2], *counts.shape).sum(axis=-1)
        found = diagnose(
            trace,
            group_losses=sums / counts.sum(axis=1),
            rmsprop_eps=preconditioner.eps if isinstance(preconditioner, RMSprop) else None,
        )
        if "graddot" in result and not np.isfinite(result["graddot"].values[self.groups.has_pairs]).all():
            found = replace(found, finite=False)
        for field in fields(found):
            if field.name == "finite":  # a flag
                continue
            value = getattr(found, field.name)
            result[_VARIABLES.get(field.name, field.name)] = float("nan") if value is None else value
        result["chains_dropped"] = len(trace.dropped)
        flags = find_flags(found, self._config.thresholds, nbeta=self._sgld.nbeta, chains_dropped=len(trace.dropped))
        result["flagged"] = len(flags)
        result["flag_names"] = ((), np.array(", ".join(flag.name for flag in flags), dtype=object))
        result.attrs["flags"] = {flag.name: flag.words for flag in flags}
        return flags

    def _add_signal(self, result: xr.Dataset, *, usable: bool) -> None:
        undefined = Signal(np.nan, np.nan, np.nan)
        has_reference = result.attrs["reference_step"] != result.attrs["step"]
        signal = undefined
        if has_reference and usable:
            shift, error = result["shift"].values, result["shift_se"].values
            signal = between_signal(shift, error, float(result["shift_norm_se"]))
        result["signal"] = signal.value
        result["signal_se"] = signal.error
        result["signal_threshold"] = signal.threshold
        for name in ("signal", "signal_se", "signal_threshold"):
            result[name].attrs = {"units": "nats"}

    def _add_trace(self, result: xr.Dataset, trace: Trace) -> None:
        axes = ("sample", "token")[: trace.mask.ndim]
        result["anchor_loss"] = (axes, trace.anchor_loss, {"units": "nats"})
        result["mask"] = (axes, trace.mask)
        if self._config.save_trace:
            result["loss"] = (("chain", "draw", *axes), trace.loss, {"units": "nats"})
            result["distance"] = (("chain", "draw"), trace.distance)
            result.coords["chain"] = list(trace.chains)

    def _settings(self) -> dict[str, Any]:
        sgld = self._sgld
        return {
            "version": __version__,
            "nbeta": sgld.nbeta,
            "localization": sgld.localization,
            "lr": sgld.lr,
            "seed": sgld.seed,
            "sgld": asdict(sgld),
            "moved_weights": self._moved_weights,
        }
