"""Stagewise training-data attribution for PyTorch Lightning."""

from stagewise._version import __version__
from stagewise.callbacks.induction import InductionCallback
from stagewise.callbacks.influence import InfluenceCallback
from stagewise.callbacks.intervention import InterventionCallback
from stagewise.errors import InputError, LossContractError
from stagewise.influence.llc import learning_coefficients
from stagewise.influence.position_influence import position_influence
from stagewise.influence.split import Centering
from stagewise.influence.stored_matrices import SampleMatrices, sample_matrix
from stagewise.influence.token_sums import TokenSums
from stagewise.influence.uncertainty import t_interval
from stagewise.interventions.grouped_rows import GroupedRows
from stagewise.interventions.loader import ReweightedLoader
from stagewise.interventions.policy import ConstantFactor, ProportionalToInfluence
from stagewise.interventions.span import Span
from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.losses.collated import CollatedLoss
from stagewise.phases.flips import SignFlip, find_flips
from stagewise.phases.matching import WindowMatch, match_windows
from stagewise.phases.offline import find_windows
from stagewise.phases.online import DetectorConfig, Direction, OnlineDetector, OnlineWindow
from stagewise.phases.signal_table import signal_table
from stagewise.phases.two_phase import TwoPhaseReading, two_phase
from stagewise.phases.window import Window
from stagewise.probes.config import ProbeConfig
from stagewise.probes.flags import Thresholds
from stagewise.probes.llc_config import LLCConfig
from stagewise.probes.prober import Prober
from stagewise.probes.schedule import LogSpaced, ProbeSchedule
from stagewise.runs.store import open_run
from stagewise.sampling.chains import ChainSampler, run_chains
from stagewise.sampling.config import Drift, EngineName, SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.preconditioners.diagonal import AdamMoments, RMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC

__all__ = [
    "EKFAC",
    "AdamMoments",
    "Centering",
    "ChainSampler",
    "CollatedLoss",
    "ConstantFactor",
    "DetectorConfig",
    "Direction",
    "Drift",
    "EngineName",
    "GroupedRows",
    "InductionCallback",
    "InfluenceCallback",
    "InputError",
    "InterventionCallback",
    "LLCConfig",
    "LogSpaced",
    "LossContractError",
    "OnlineDetector",
    "OnlineWindow",
    "ProbeConfig",
    "ProbeData",
    "ProbeSchedule",
    "Prober",
    "ProportionalToInfluence",
    "RMSprop",
    "ReweightedLoader",
    "SGLDConfig",
    "SampleMatrices",
    "SignFlip",
    "Span",
    "Thresholds",
    "TokenSums",
    "TwoPhaseReading",
    "Window",
    "WindowMatch",
    "__version__",
    "causal_lm_loss",
    "find_flips",
    "find_windows",
    "learning_coefficients",
    "match_windows",
    "open_run",
    "position_influence",
    "run_chains",
    "sample_matrix",
    "signal_table",
    "t_interval",
    "two_phase",
]
