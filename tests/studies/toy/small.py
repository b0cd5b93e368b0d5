"""A toy experiment of seconds: three items, a short run, few draws."""

from stagewise.influence.stored_matrices import SampleMatrices
from stagewise.probes.config import ProbeConfig
from stagewise.probes.schedule import LogSpaced, ProbeSchedule
from stagewise.sampling.config import SGLDConfig
from stagewise.studies.toy.config import InfluenceSettings, NetworkSettings, RetrainingSettings, ToyConfig
from stagewise.toy.hierarchy import Hierarchy

TREE = {"thing": {"animal": ["dog", "cat"], "rock": ["granite"]}}


def small_config(output="unused", **changes):
    settings = {
        "seeds": [3],
        "output": str(output),
        "num_workers": 1,
        "hierarchy": Hierarchy(TREE),
        "network": NetworkSettings(hidden=8, init_std=0.01, lr=0.05, num_steps=200, aligned_lr=0.025),
        "influence": InfluenceSettings(
            schedule=ProbeSchedule(log_spaced=LogSpaced(20, 200, 8)),
            sgld=SGLDConfig(
                lr=3e-5,
                nbeta=2000.0,
                localization=10000.0,
                num_chains=32,
                num_draws=250,
                num_burnin_steps=15,
                num_steps_bw_draws=1,
                drift="plain",
                batch_size=8,
                engine="batched",
            ),
            probe=ProbeConfig(
                reference_ratio=1.2,
                min_prominence=0.05,
                draw_matrices=False,
                save_trace=True,
                sample_matrices=SampleMatrices.all,
            ),
        ),
        "retraining": RetrainingSettings(
            horizons=[5, 10], horizon=5, window_lengths=[10, 20], window_weights=[0.0, 2.0], num_windows=4
        ),
    }
    return ToyConfig(**(settings | changes))
