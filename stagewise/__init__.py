"""Stagewise training-data attribution for PyTorch Lightning.

Public names are imported lazily, on first access: ``import stagewise`` alone loads neither torch nor Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stagewise._version import __version__ as __version__
from stagewise.errors import InputError as InputError
from stagewise.errors import LossContractError as LossContractError

if TYPE_CHECKING:
    from stagewise.callbacks.induction import InductionCallback as InductionCallback
    from stagewise.callbacks.influence import InfluenceCallback as InfluenceCallback
    from stagewise.callbacks.intervention import InterventionCallback as InterventionCallback
    from stagewise.influence.llc import learning_coefficients as learning_coefficients
    from stagewise.influence.split import Centering as Centering
    from stagewise.influence.stored_matrices import SampleMatrices as SampleMatrices
    from stagewise.interventions.grouped_rows import GroupedRows as GroupedRows
    from stagewise.interventions.loader import ReweightedLoader as ReweightedLoader
    from stagewise.interventions.policy import ConstantFactor as ConstantFactor
    from stagewise.interventions.policy import ProportionalToInfluence as ProportionalToInfluence
    from stagewise.interventions.span import Span as Span
    from stagewise.interventions.window_sources import FromRun as FromRun
    from stagewise.interventions.window_sources import Live as Live
    from stagewise.interventions.window_sources import Spans as Spans
    from stagewise.losses.causal_lm import causal_lm_loss as causal_lm_loss
    from stagewise.losses.collated import CollatedLoss as CollatedLoss
    from stagewise.phases.online_detector import DetectorConfig as DetectorConfig
    from stagewise.phases.online_detector import Direction as Direction
    from stagewise.phases.online_detector import OnlineDetector as OnlineDetector
    from stagewise.probes.config import ProbeConfig as ProbeConfig
    from stagewise.probes.flags import Thresholds as Thresholds
    from stagewise.probes.llc_config import LLCConfig as LLCConfig
    from stagewise.probes.one_checkpoint import bif as bif
    from stagewise.probes.prober import Prober as Prober
    from stagewise.probes.schedule import LogSpaced as LogSpaced
    from stagewise.probes.schedule import ProbeSchedule as ProbeSchedule
    from stagewise.runs.open import open_run as open_run
    from stagewise.sampling.chains import run_chains as run_chains
    from stagewise.sampling.config import Drift as Drift
    from stagewise.sampling.config import EngineName as EngineName
    from stagewise.sampling.config import Integrator as Integrator
    from stagewise.sampling.config import SGLDConfig as SGLDConfig
    from stagewise.sampling.config import Start as Start
    from stagewise.sampling.data import ProbeData as ProbeData
    from stagewise.sampling.preconditioners.diagonal import AdamMoments as AdamMoments
    from stagewise.sampling.preconditioners.diagonal import RMSprop as RMSprop
    from stagewise.sampling.preconditioners.ekfac import EKFAC as EKFAC

_HOMES = {
    # While a model trains
    "InfluenceCallback": "callbacks.influence",
    "InterventionCallback": "callbacks.intervention",
    "InductionCallback": "callbacks.induction",
    "open_run": "runs.open",
    # One checkpoint, no Trainer
    "bif": "probes.one_checkpoint",
    "Prober": "probes.prober",
    "run_chains": "sampling.chains",
    "learning_coefficients": "influence.llc",
    # Data and losses
    "ProbeData": "sampling.data",
    "CollatedLoss": "losses.collated",
    "causal_lm_loss": "losses.causal_lm",
    # When probes are taken, and what they measure
    "ProbeSchedule": "probes.schedule",
    "LogSpaced": "probes.schedule",
    "ProbeConfig": "probes.config",
    "LLCConfig": "probes.llc_config",
    "Thresholds": "probes.flags",
    "Centering": "influence.split",
    "SampleMatrices": "influence.stored_matrices",
    # The sampler
    "SGLDConfig": "sampling.config",
    "RMSprop": "sampling.preconditioners.diagonal",
    "AdamMoments": "sampling.preconditioners.diagonal",
    "EKFAC": "sampling.preconditioners.ekfac",
    "Drift": "sampling.config",
    "Integrator": "sampling.config",
    "Start": "sampling.config",
    "EngineName": "sampling.config",
    # Windows, and what is done inside them
    "Span": "interventions.span",
    "Spans": "interventions.window_sources",
    "FromRun": "interventions.window_sources",
    "Live": "interventions.window_sources",
    "OnlineDetector": "phases.online_detector",
    "DetectorConfig": "phases.online_detector",
    "Direction": "phases.online_detector",
    "ConstantFactor": "interventions.policy",
    "ProportionalToInfluence": "interventions.policy",
    "ReweightedLoader": "interventions.loader",
    "GroupedRows": "interventions.grouped_rows",
}
"""Maps each public name to its module within ``stagewise``."""

_MOVED = {
    "ChainSampler": "sampling.chains",
    "SignFlip": "phases.flips",
    "TokenSums": "influence.token_bif_sums",
    "TwoPhaseReading": "phases.two_phase",
    "Window": "phases.window",
    "WindowMatch": "phases.matching",
    "find_flips": "phases.flips",
    "find_windows": "phases.offline",
    "match_windows": "phases.matching",
    "position_influence": "influence.position_influence",
    "sample_matrix": "influence.stored_matrices",
    "signal_table": "phases.signal_table",
    "t_interval": "influence.uncertainty",
    "two_phase": "phases.two_phase",
}
"""Maps names that were once public here to their present modules."""

__all__ = ["InputError", "LossContractError", "__version__", *_HOMES]

if not TYPE_CHECKING:  # with `__getattr__` a type checker would accept any name

    def __getattr__(name: str) -> Any:
        """Imports a public name on first access.

        Raises:
            AttributeError: no such name; for one that has moved, the message gives its new module.
        """
        if name in _HOMES:
            value = getattr(import_module(f"stagewise.{_HOMES[name]}"), name)
            globals()[name] = value
            return value
        advice = ""
        if name in _MOVED:
            advice = f"; it has moved: from stagewise.{_MOVED[name]} import {name}"
        raise AttributeError(f"module 'stagewise' has no attribute {name!r}{advice}")

    def __dir__() -> list[str]:
        """Returns the public names and everything imported so far."""
        return sorted({*globals(), *__all__})
