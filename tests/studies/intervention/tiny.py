"""The experiment in small: seconds instead of minutes."""

from typing import Any

from stagewise.probes.config import ProbeConfig
from stagewise.probes.schedule import ProbeSchedule
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.studies.intervention.config import (
    InfluenceSettings,
    InterventionConfig,
    OnsetSettings,
    TrainingSettings,
    WeightSettings,
)

MODEL: dict[str, Any] = {
    "class_path": "stagewise.lm.module.CausalLM",
    "init_args": {
        "model_type": "gpt_neox",
        "config": {
            "vocab_size": 16,
            "max_position_embeddings": 16,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "hidden_dropout": 0.1,
        },
    },
}
DATA: dict[str, Any] = {
    "class_path": "stagewise.lm.data.SyntheticData",
    "init_args": {
        "vocab_size": 16,
        "context": 16,
        "batch_size": 8,
        "max_segment": 8,
        "induction_fraction": 0.25,
        "num_sequences": 400,
        "num_observed": 4,
        "num_sampling": 16,
    },
}


def tiny_config(output, **changed) -> InterventionConfig:
    given: dict[str, Any] = {
        "model": MODEL,
        "data": DATA,
        "seeds": [1],
        "output": str(output),
        "num_workers": 1,
        "arms": ["none", "inside", "placebo"],
        "training": TrainingSettings(max_steps=20, settle_steps=5, measure_every=5, num_evaluation=4, branch_every=5),
        "influence": InfluenceSettings(
            schedule=ProbeSchedule(every_n_steps=5),
            sgld=SGLDConfig(
                1e-4,
                10.0,
                100.0,
                num_chains=2,
                num_draws=3,
                engine=EngineName.sequential,
                num_burnin_steps=2,
                num_steps_bw_draws=1,
                drift="plain",
            ),
            probe=ProbeConfig(draw_matrices=False),
        ),
        # So low that some probe is the onset, whatever the chains say.
        "weights": WeightSettings(length=5, lead=5, onset=OnsetSettings(ratio=1e-9)),
    }
    return InterventionConfig(**{**given, **changed})
