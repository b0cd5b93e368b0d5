"""Commands of ``stagewise``: summary, function and example of each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """Command of ``stagewise``.

    Attributes:
        summary: purpose, in one line.
        function: ``module:name`` in this folder, imported when the command runs.
        usage: arguments after its name.
        example: arguments that work in a clone of the repository.
    """

    summary: str
    function: str
    usage: str
    example: str


_CONFIGURED = "-c FILE [--SECTION.SETTING VALUE ...]"

COMMANDS = {
    "fit": Command(
        "train a model, with the influence callback attached",
        "training:run_trainer",
        _CONFIGURED,
        "-c configs/induction.yaml --trainer.max_steps 300 --influence.sgld.nbeta 100",
    ),
    "validate": Command(
        "run the validation loop of a model", "training:run_trainer", _CONFIGURED, "-c configs/induction.yaml"
    ),
    "calibrate": Command(
        "train without probes, and find sampler settings for the run",
        "calibrate:run_calibration",
        _CONFIGURED,
        "-c configs/induction.yaml --trainer.max_steps 300 --calibration.num_steps 3",
    ),
    "detect": Command(
        "list the transition windows of a finished run: stagewise detect RUN",
        "detect:run_detect",
        "RUN [--SETTING VALUE ...]",
        'runs/induction/version_0 --signal "[between,llc]"',
    ),
    "intervene": Command(
        "does reweighting samples inside a window speed an induction head? arms, seeds, intervals",
        "intervene:run_intervene",
        _CONFIGURED,
        "-c configs/intervention.yaml -c configs/intervention_quick.yaml",
    ),
    "sweep": Command(
        "influence over the saved checkpoints of a Hugging Face causal language model",
        "sweep:run_sweep",
        _CONFIGURED,
        "-c configs/pythia-14m.yaml --sgld.num_chains 4",
    ),
    "report": Command(
        "what runs show, or how they compare, as an HTML page: stagewise report RUN [RUN ...]",
        "report:run_report",
        "RUN [RUN ...] [--SETTING VALUE ...]",
        "runs/induction/version_0 --chance 0.01",
    ),
    "toy": Command(
        "influence from chains, held against exact methods in a network whose stages are known",
        "toy:run_toy",
        _CONFIGURED,
        "-c configs/toy.yaml --seeds [11]",
    ),
}
"""By name, in the order of the help."""
