"""Influence at one checkpoint in one call: ``stagewise.bif``."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import xarray as xr
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stagewise.batches import Batch, as_batch
from stagewise.calibration.findings import Finding, Severity, check_settings
from stagewise.calibration.landscape import FINE_SAMPLES
from stagewise.calibration.resolve import resolve
from stagewise.calibration.settings_check import find_faults, landscape_of, unmeasured
from stagewise.checks.bounds import checked
from stagewise.errors import InputError, first_line
from stagewise.influence.stored_matrices import SampleMatrices, to_store
from stagewise.isolation import unmoved
from stagewise.losses.contract import LossFn, resolve_loss
from stagewise.probes.carried import Carried
from stagewise.probes.config import ProbeConfig
from stagewise.probes.flags import drop_advice
from stagewise.probes.labels import label_groups
from stagewise.probes.prober import Prober
from stagewise.probes.subject import examine
from stagewise.probes.target import target_of
from stagewise.sampling.config import ResolvedSGLD, SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.preconditioners.diagonal import AdamMoments
from stagewise.sampling.selection import Masks
from stagewise.sampling.target import Target
from stagewise.sampling.trace import Trace

Collate = Callable[[list[Any]], Batch]

_OF_TWO_PROBES = (
    "shift",
    "shift_se",
    "shift_norm_se",
    "between_share",
    "flip_fraction",
    "z_median",
    "reference_equilibrated",
    "signal",
    "signal_se",
    "signal_threshold",
)
"""Variables of a probe that depend on a reference probe."""

_PART = "within"


@checked
def bif(
    module: nn.Module,
    data: Dataset | Batch,
    observed: Dataset | Batch | None = None,
    *,
    groups: Mapping[str, Tensor] | None = None,
    loss_fn: LossFn | None = None,
    sgld: SGLDConfig = SGLDConfig(),
    probe: ProbeConfig = ProbeConfig(),
    masks: Masks | None = None,
    collate_fn: Collate | None = None,
    second_moments: Mapping[str, Tensor] | None = None,
    step: int = 0,
) -> xr.Dataset:
    """Estimates the Bayesian influence function and learning coefficients at a module's current weights.

    This is ``stagewise.bif``; :func:`stagewise.influence.bif.bif` computes influence from draws. Over several
    checkpoints, with the part between phases, use :class:`~stagewise.probes.prober.Prober`.

    The module, its mode, data sets and random states are restored bit for bit. Results are reproducible, bit for bit
    for a fixed ``sgld.engine`` (``auto`` chooses the faster one by timing). Chains run in eval mode, on the device of
    the module.

    Args:
        module: at the checkpoint, on any device.
        data: for the stochastic gradients of the chains: the training data or a fixed part of it, as a map-style data
            set, which is read whole, or a batch. Indices for a :class:`~stagewise.losses.collated.CollatedLoss`.
        observed: samples whose losses are recorded and whose influence is estimated, likewise. ``data`` if None.
        groups: name to bool mask over the observed samples, ``[sample]`` or of the shape of the losses
            (``[sample, token]``). If None, ``label <n>`` for each of 2 to 20 distinct integer labels of ``(x, y)``
            batches, see :func:`~stagewise.probes.labels.label_groups`; without such labels, and with ``{}``, one group,
            ``all``.
        loss_fn: ``loss_fn(module, batch)``, unreduced, nats. If None the module's own ``per_sample_loss(batch)``, or
            that of a Hugging Face causal language model.
        sgld: the sampler. ``auto`` is resolved from curvature and minibatch heat at these weights, as by
            :func:`~stagewise.calibration.resolve.resolve`; curvature is used as measured, without the factor of two by
            which ``InfluenceCallback`` allows for growth.
        probe: the measurement. ``reference_ratio``, ``draw_matrices`` and ``min_prominence`` have no effect; with
            ``sample_matrices: none`` there is no influence between samples, otherwise it has full precision.
        masks: parameter name to bool mask of its shape: chains move only entries that are True, see
            :func:`stagewise.lm.components.component_masks` for those of a head or a layer. None for all that
            ``sgld.parameters`` selects.
        collate_fn: collates samples of data sets; torch's default if None.
        second_moments: of Adam, by parameter name, for
            :class:`~stagewise.sampling.preconditioners.diagonal.AdamMoments` in ``sgld.preconditioner``.
        step: training step of the checkpoint: stored in the attributes, and added to the seed with
            ``common_noise: false``.

    Returns:
        Data set of one probe with axes ``sample``, ``sample_j``, ``group``, ``group_j``, see
        :meth:`stagewise.probes.prober.Prober.probe`, without variables that need an earlier probe. It has only the part
        ``within``, so there is no axis ``part``:

        - ``bif`` [sample, sample_j], ``group_bif`` [group, group_j], nats^2: minus the covariance of losses over the
          draws; **negative is helpful**: more weight on the first lowers the loss of the second. For groups, the mean
          over pairs in different samples. Times nbeta, it is the response to a weight in the mean loss.
        - ``sample_bif`` [sample], nats^2: influence of each sample on the mean loss of all others.
        - ``bif_correlation``, ``group_bif_correlation``: the same as minus a correlation, pure numbers.
        - names ending in ``_se``: jackknife standard errors over chains, see
          :func:`~stagewise.influence.uncertainty.t_interval`; ``group_bif_z``: influence over its error, NaN out of
          equilibrium; ``chains_common``: number of chains.
        - ``llc``, ``group_llc`` with ``llc_se``, ``llc_localized_share``, ...: learning coefficients
          nbeta (E[L] - L(w*)), pure numbers, see :func:`stagewise.influence.llc.llc`; ``llc_note``: reasons not to rely
          on them.
        - ``graddot``, diagnostics (``rhat_groups``, ``ess_groups``, ``minibatch_noise``, ...), ``flagged``,
          ``equilibrated``, losses at the weights (``anchor_loss``, ``group_loss``).

        Attributes: ``sign``, ``units``, ``sgld`` with ``auto`` resolved, ``flags`` (name to words),
        ``step``, ``engine``, ``version``.

    Raises:
        InputError: invalid data, groups, masks or settings, or all chains diverged.
        LossContractError: the module has no per-sample loss, or one that breaks the contract.

    Warns:
        UserWarning: unreliable chains, dropped chains, and settings unsuitable for the curvature.

    Source: BIF: arXiv 2509.26544 and arXiv 2510.12071; learning coefficient: arXiv 2308.12108.
    """
    if isinstance(sgld.preconditioner, AdamMoments) and not second_moments:
        raise InputError(
            "got AdamMoments without second_moments; expected those of Adam, name of parameter to tensor; take "
            "optimizer.state[parameter]['exp_avg_sq'] / (1 - beta2 ** steps) from its state, or set preconditioner to "
            "None"
        )
    with unmoved(collate_fn, data, observed):
        driving = _read("data", data, collate_fn)
        recorded = driving if observed is None else _read("observed", observed, collate_fn)
    sources = ProbeData(
        recorded, None if observed is None else driving, label_groups(recorded) if groups is None else groups
    )
    found_loss = resolve_loss(module, loss_fn)
    target = target_of(module, found_loss, sources, probe, masks=masks)
    # First, so that invalid input raises before curvature is measured.
    subject = examine(module, target, sources.groups, sgld, probe)
    resolved, remarks, steepest = _resolve(module, subject.target, sgld, probe, second_moments, step)
    prober = Prober.over(module, subject, resolved, Carried(probe.reference_ratio))
    result, trace = prober.probe(module, step, second_moments=second_moments, steepest=steepest)
    _warn(remarks, trace, {} if result is None else result.attrs["flags"])
    if result is None:
        first, reason = min(trace.dropped.items())
        raise InputError(
            f"got chains that were all dropped (chain {first}: {reason}); expected at least one that stays near the "
            f"weights; {drop_advice(trace.dropped.values())}"
        )
    return _without_reference(result, probe.sample_matrices)


def _read(name: str, data: Dataset | Batch, collate_fn: Collate | None) -> Batch:
    if isinstance(data, DataLoader):
        raise InputError(
            f"got a {type(data).__name__} as {name}; expected a map-style data set or a batch; pass its dataset, and "
            "its collate_fn as collate_fn"
        )
    return as_batch(data, collate_fn)


def _resolve(
    module: nn.Module,
    target: Target,
    sgld: SGLDConfig,
    probe: ProbeConfig,
    second_moments: Mapping[str, Tensor] | None,
    step: int,
) -> tuple[ResolvedSGLD, list[str], float | None]:
    """Returns settings with ``auto`` resolved, remarks at this curvature, and the steepest that a step meets."""
    needed = "auto" in (sgld.lr, sgld.localization)
    if not (needed or probe.check_curvature):
        return replace(sgld, **sgld.fallbacks()).require_resolved(), [], None
    try:
        landscape = landscape_of(module, target, sgld, probe.memory_limit_gib)
        landscape = replace(landscape, second_moments=second_moments or {})
        findings: list[Finding]
        if sgld.unresolved:
            sgld, measured = resolve(sgld, replace(landscape, num_samples=FINE_SAMPLES), module, step=step)
            findings = check_settings(sgld, *measured.as_lists())
        else:
            findings, measured = find_faults(sgld, landscape, module, step)
    except (InputError, ArithmeticError, RuntimeError) as error:
        if needed:
            raise unmeasured(sgld, step, error) from error
        reason = first_line(error)
        remarks = [f"the settings were not checked against the curvature: {reason}"]
        return replace(sgld, **sgld.fallbacks()).require_resolved(), remarks, None
    resolved = sgld.require_resolved()
    remarks = [finding.text for finding in findings if finding.severity is not Severity.inform]
    return resolved, remarks, measured.steepest(resolved)


def _warn(remarks: list[str], trace: Trace, flags: Mapping[str, str]) -> None:
    """Warns of each problem once."""
    problems = list(remarks)
    problems += [
        f"chain {chain} was dropped: {reason}; {drop_advice([reason])}" for chain, reason in trace.dropped.items()
    ]
    if flags:
        listed = "\n- ".join(f"{name}: {words}" for name, words in flags.items())
        problems.append(f"the chains are flagged; probe.thresholds holds the limits\n- {listed}")
    for words in problems:
        # The frames below are bif and the check of its arguments.
        warnings.warn(f"stagewise: {words}", stacklevel=4)


def _without_reference(result: xr.Dataset, kept: SampleMatrices) -> xr.Dataset:
    """Returns the within part, without variables that depend on a reference."""
    if kept is SampleMatrices.none:
        result = to_store(result, kept)
    alone = result.drop_vars([name for name in _OF_TWO_PROBES if name in result]).sel(part=_PART, drop=True)
    del alone.attrs["reference_step"]
    return alone
