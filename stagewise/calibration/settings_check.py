"""Check of sampler settings against the curvature measured on some samples."""

from dataclasses import replace

from torch import nn

from stagewise.batches import num_samples as count
from stagewise.batches import take
from stagewise.calibration.findings import Finding, Severity, check_settings
from stagewise.calibration.landscape import FINE_SAMPLES, Landscape, Measurement
from stagewise.errors import InputError, first_line
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.selection import moved_entries
from stagewise.sampling.target import Target

COARSE_SAMPLES = 64
"""Samples of a first measurement; see :data:`stagewise.calibration.landscape.FINE_SAMPLES`."""

_FEWEST_VECTORS, _MOST_VECTORS = 6, 20


def landscape_of(
    module: nn.Module,
    target: Target,
    sgld: SGLDConfig,
    limit_gib: float,
    *,
    num_samples: int = COARSE_SAMPLES,
) -> Landscape:
    """Sets up measurements of curvature on the first samples of the sampling set.

    Args:
        module: on its device.
        target: of the probes; without autocast, whose products are too rough for Lanczos.
        sgld: gives the seed, and the moving parameters if the target has no selection.
        limit_gib: memory for Lanczos vectors, GiB; larger models get fewer of them.
        num_samples: number of samples to measure on.

    Raises:
        InputError: not even six vectors fit.
    """
    moved = moved_entries(module, target.moved_by(sgld).selection)
    gib = 4 * sum(entries.size for entries in moved) / 2**30
    vectors = min(_MOST_VECTORS, int(limit_gib / gib))
    if vectors < _FEWEST_VECTORS:
        raise InputError(
            f"got weights of {gib:.2g} GiB, of which Lanczos needs {_FEWEST_VECTORS} copies; expected at most "
            f"memory_limit_gib={limit_gib:g}; raise the limit, or move fewer weights by sgld.parameters or component"
        )
    few = take(target.driving, slice(0, max(num_samples, FINE_SAMPLES)))
    return Landscape(
        replace(target, sampling=few),
        num_samples=num_samples,
        num_vectors=vectors,
        seed=sgld.seed,
        population=count(target.driving),
    )


def find_faults(
    config: SGLDConfig, landscape: Landscape, module: nn.Module, step: int = 0
) -> tuple[list[Finding], Measurement]:
    """Finds faults of the settings at the current weights of ``module``; also returns the measured curvature.

    A first measurement takes few samples, which overstates curvature. If it shows a fault, a second takes more, and its
    findings count.

    Args:
        config: the settings; ``lr`` and ``localization`` are numbers.
        landscape: of the first measurement.
        module: at the checkpoint; left unchanged.
        step: training step of the checkpoint.

    Raises:
        InputError, FloatingPointError, ArithmeticError: as
            :func:`~stagewise.calibration.curvature.measure_curvature` does.
    """
    measured = landscape.measure(module, config, step)
    found = check_settings(config, *measured.as_lists())
    if any(finding.severity is not Severity.inform for finding in found):
        measured = replace(landscape, num_samples=FINE_SAMPLES).measure(module, config, step)
        found = check_settings(config, *measured.as_lists())
    return found, measured


def unmeasured(config: SGLDConfig, step: int, error: Exception) -> InputError:
    """Returns the error for settings with an ``auto`` whose curvature cannot be measured."""
    return InputError(
        f"got lr={config.lr!r} and localization={config.localization!r}, but the curvature at step {step} could not be "
        f"measured ({first_line(error)}); expected numbers for this module; set both"
    )
