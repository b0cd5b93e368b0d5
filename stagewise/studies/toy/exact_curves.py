"""Curves without chains: the learning of modes, exact and closed-form influence, retraining, representations."""

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.training import build_module
from stagewise.toy.closed_form import closed_form_influence
from stagewise.toy.descent import Weights, item_losses, trajectory
from stagewise.toy.hierarchy import Hierarchy
from stagewise.toy.initialisation import aligned_weights
from stagewise.toy.mode_dynamics import half_time, initial_strengths, mode_strengths, strength_at
from stagewise.toy.modes import Modes
from stagewise.toy.posterior import local_gaussian
from stagewise.toy.representations import branching_times, mds_over_time
from stagewise.toy.retraining import horizon_effect, retraining_effect, window_effect
from stagewise.toy.unrolled import unrolled_influence

Array = NDArray[np.float64]

_PAIRS = ("step", "item", "item_j")


def targets_of(hierarchy: Hierarchy) -> torch.Tensor:
    """Returns the targets, ``[property, item]``, float64."""
    return torch.from_numpy(hierarchy.features.T.copy())


def _steepest(run: Weights, targets: torch.Tensor, modes: Modes) -> list[int]:
    """Returns, for each group of equal modes, the step at which its part of the loss falls fastest in log step.

    A stage that is not completed within the run, so that the fastest fall would be at its end, is left out.
    """
    error = np.einsum("pk,tpi,im->tkm", modes.left, (run.map() - targets).numpy(), modes.right)
    found = []
    for group in modes.groups:
        loss = (error[:, :, list(group)] ** 2).sum(axis=(1, 2))[1:]
        steps = np.arange(1, len(loss) + 1)
        fastest = int(np.argmin(np.gradient(loss, np.log(steps))))
        if 0 < fastest < len(steps) - 1:
            found.append(int(steps[fastest]))
    return found


def _half_times(found: xr.Dataset, modes: Modes, num_steps: int) -> list[float]:
    """Returns, for each group of equal modes, the median half-learned step of the closed form, if within the run."""
    medians = [float(np.median(found["half_time_closed"].values[list(group)])) for group in modes.groups]
    return [step for step in medians if 0 < step < num_steps]


def _window_starts(config: ToyConfig) -> list[int]:
    steps, longest = config.probed_steps, max(config.retraining.window_lengths)
    starts = np.geomspace(steps[0], steps[-1] - longest, config.retraining.num_windows)
    return [int(start) for start in np.unique(np.rint(starts).astype(int))]


def _learning(config: ToyConfig, run: Weights, seed: int) -> tuple[xr.Dataset, Modes]:
    """Returns mode strengths of the run and of one that starts aligned, with the closed form; and the modes."""
    network, modes = config.network, config.hierarchy.modes()
    targets = targets_of(config.hierarchy)
    items = targets.shape[-1]
    initial, turned = initial_strengths(Weights(run.first[0], run.second[0]), modes)
    generator = torch.Generator().manual_seed(seed)
    # As strong as the Gaussian start is on average, so that it learns in the same time.
    start = network.init_std**2 * network.hidden / 2
    aligned_start = aligned_weights(modes, network.hidden, initial=start, generator=generator)
    aligned_steps = round(network.num_steps * network.lr / network.aligned_lr)
    aligned = trajectory(aligned_start, targets, lr=network.aligned_lr, num_steps=aligned_steps)

    def closed(a0: Array | float, num_steps: int, lr: float) -> Array:
        time = np.arange(num_steps + 1)[:, None] * lr
        return strength_at(modes.strengths, a0, time=time, num_items=items)

    strength, expected = mode_strengths(run, turned), closed(initial, network.num_steps, network.lr)
    aligned_error = np.abs(mode_strengths(aligned, modes) - closed(start, aligned_steps, network.aligned_lr))
    found = xr.Dataset(
        {
            "mode_strength": (("training_step", "mode"), strength),
            "mode_strength_closed": (("training_step", "mode"), expected),
            "mode_error": ("mode", np.abs(strength - expected).max(axis=0) / modes.strengths),
            "mode_error_aligned": ("mode", aligned_error.max(axis=0) / modes.strengths),
            "mode_limit": ("mode", modes.strengths),
            "half_time_closed": ("mode", half_time(modes.strengths, initial, num_items=items) / network.lr),
        },
        coords={"training_step": np.arange(network.num_steps + 1)},
    )
    influence = [closed_form_influence(turned, initial, time=step * network.lr) for step in config.probed_steps]
    found["closed_form"] = (_PAIRS, np.stack(influence))
    return found, modes


def _gaussian(config: ToyConfig, run: Weights) -> xr.Dataset:
    """Returns the BIF of the local Gaussian at every few probes, to second order at the localized mode."""
    sgld = config.influence.sgld
    localization = sgld.require_resolved().localization
    steps = config.probed_steps[:: config.retraining.gaussian_every]
    found = [
        local_gaussian(
            Weights(run.first[step], run.second[step]),
            targets_of(config.hierarchy),
            nbeta=sgld.nbeta,
            localization=localization,
        )
        for step in steps
    ]
    curves = (("gaussian_step", "item", "item_j"), -np.stack([gaussian.covariance for gaussian in found]))
    return xr.Dataset({"gaussian": curves}, coords={"gaussian_step": steps})


def _scaled(hidden: Array) -> Array:
    """Returns representations scaled to three dimensions, ``[step, item, 3]``; unused dimensions are zero."""
    shown = min(3, hidden.shape[1])
    return np.pad(mds_over_time(hidden, num_dimensions=shown), ((0, 0), (0, 0), (0, 3 - shown)))


def _windows(config: ToyConfig, run: Weights) -> xr.Dataset:
    retraining, targets = config.retraining, targets_of(config.hierarchy)
    starts, lengths = _window_starts(config), retraining.window_lengths
    effects = [
        window_effect(run, targets, lr=config.network.lr, starts=starts, lengths=lengths, weight=weight)
        for weight in retraining.window_weights
    ]
    axes = ("window_weight", "window_length", "window_start", "item", "item_j")
    return xr.Dataset(
        {
            name: (axes, np.stack([getattr(effect, name) for effect in effects]))
            for name in ("window_end", "run_end", "maximum")
        },
        coords={
            "window_weight": retraining.window_weights,
            "window_length": lengths,
            "window_start": starts,
        },
    )


def check_computable(config: ToyConfig) -> None:
    """Refuses, before the work, settings for which there is no local Gaussian or no closed form.

    The first probe of the first seed decides: the loss is most saddle-like before anything is learned.

    Raises:
        InputError: too few hidden units, too large initial weights, or too weak a localization.
    """
    targets, first = targets_of(config.hierarchy), config.probed_steps[0]
    start = build_module(config, config.seeds[0]).weights
    modes = config.hierarchy.modes()
    initial, _ = initial_strengths(start, modes)
    half_time(modes.strengths, initial, num_items=targets.shape[-1])
    run = trajectory(start, targets, lr=config.network.lr, num_steps=first)
    sgld = config.influence.sgld
    weights = Weights(run.first[-1], run.second[-1])
    local_gaussian(weights, targets, nbeta=sgld.nbeta, localization=sgld.require_resolved().localization)


def exact_curves(config: ToyConfig, seed: int) -> xr.Dataset:
    """Returns all curves of one seed that need no chains, from the same initial weights as the trained run.

    Influence is in nats per unit of an item's weight, and negative = helpful; ``gaussian`` is in nats^2.

    Args:
        config: of the experiment.
        seed: of the initial weights.

    Returns:
        Over ``step`` (those of the probes), ``item``, ``item_j``, ``mode``, ``training_step`` and others:

        - ``mode_strength``, ``mode_strength_closed`` [training_step, mode]; ``mode_error``, ``mode_error_aligned``
          [mode], largest deviation over its limit; ``mode_limit``, ``half_time_closed`` [mode].
        - ``loss`` [training_step, item].
        - ``unrolled``, ``small_change``, ``leave_one_out``, ``closed_form`` [step, item, item_j];
          ``horizon_effect`` [horizon, step, item, item_j]; ``gaussian`` [gaussian_step, item, item_j].
        - ``window_end``, ``run_end``, ``maximum`` [window_weight, window_length, window_start, item, item_j].
        - ``representation`` [step, item, dimension]: scaled to three dimensions.
        - ``final_first``, ``final_second``: the weights at the end.

        Attributes: ``transitions``, for each stage of equal modes the step at which its part of the loss falls fastest;
        ``half_times``, the step at which the closed form has it half learned; ``branching_times``, node to step.
    """
    targets, network, retraining = targets_of(config.hierarchy), config.network, config.retraining
    start, steps = build_module(config, seed).weights, config.probed_steps
    run = trajectory(start, targets, lr=network.lr, num_steps=network.num_steps)
    found, modes = _learning(config, run, seed)
    found = xr.merge([found, _gaussian(config, run), _windows(config, run)])
    found["loss"] = (("training_step", "item"), item_losses(run, targets).numpy())
    found["unrolled"] = (_PAIRS, unrolled_influence(run, targets, lr=network.lr, steps=steps))
    for name, weight in (("small_change", 1 - retraining.small_change), ("leave_one_out", 0.0)):
        found[name] = (_PAIRS, retraining_effect(start, targets, lr=network.lr, steps=steps, weight=weight))
    found["horizon_effect"] = (
        ("horizon", *_PAIRS),
        horizon_effect(run, targets, lr=network.lr, steps=steps, horizons=retraining.horizons),
    )
    hidden = run.first[steps].mT.numpy()
    found["representation"] = (("step", "item", "dimension"), _scaled(hidden))
    found["final_first"] = (("hidden", "item"), run.first[-1].numpy())
    found["final_second"] = (("property", "hidden"), run.second[-1].numpy())
    found.attrs = {
        "transitions": _steepest(run, targets, modes),
        "half_times": _half_times(found, modes, network.num_steps),
        "branching_times": branching_times(hidden, steps, config.hierarchy),
    }
    return found.assign_coords(step=steps, horizon=retraining.horizons)
