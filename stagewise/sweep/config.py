"""Settings of a sweep over checkpoints."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import (
    Name,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    at_least,
    check_distinct,
    fraction,
)
from stagewise.errors import InputError, require
from stagewise.jobs.sharing import Backend
from stagewise.lm.classes.reading import read_specs
from stagewise.lm.classes.spec import ClassSpec
from stagewise.probes.config import ProbeConfig
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.sampling.preconditioners.diagonal import AdamMoments
from stagewise.sweep.choosing import check_steps
from stagewise.sweep.components import ALL, check_component
from stagewise.sweep.step_names import check_pattern


class Precision(StrEnum):
    """Arithmetic of forward passes; weights and draws are float32, whatever the precision of the checkpoint.

    In YAML ``full`` or ``bf16``; their values are Lightning's names.
    """

    full = "32-true"
    bf16 = "bf16-mixed"


class Axis(StrEnum):
    """Horizontal axis of the figures of a sweep."""

    steps = "steps"
    tokens = "tokens"


@dataclass(frozen=True)
class TextSettings:
    """Choice of the observed sequences and of those that drive the chains, the same at all checkpoints.

    Attributes:
        context: tokens in a sequence, including the one that begins a text, if the tokenizer adds one.
        num_observed: sequences whose losses are recorded.
        num_sampling: sequences whose minibatches drive the gradient.
        held_out_fraction: share of the documents for observed sequences; the others drive the chains.
        seed: of both choices.
        tokenizer: name or folder of a Hugging Face tokenizer, or its ``tokenizer.json``; that of the checkpoints if
            None.
        classes: token groups: names of default classes, or name to class, see :mod:`stagewise.lm.classes`. Classes
            without a token among the observed ones are refused. ``induction``, ``delimiter`` and ``rest`` if None.
        complements: with classes, also a group ``not_<name>`` for each.
        text_column: of a table or a Hugging Face data set.
        config_name: of a Hugging Face data set that has several configurations.
        split: of a Hugging Face data set, or of tables with splits in their names.
        streaming: read a Hugging Face data set over the network as needed.
        max_documents: largest number of rows of tables or of a Hugging Face data set, or of files of packages.

    Raises:
        InputError: a value out of range.
    """

    context: Annotated[int, at_least(2)] = 256
    num_observed: Annotated[int, at_least(2)] = 64
    num_sampling: PositiveInt = 1024
    held_out_fraction: Annotated[float, fraction("0.1 is usual")] = 0.1
    seed: NonNegativeInt = 0
    tokenizer: str | None = None
    classes: dict[str, ClassSpec | str] | list[str] | None = None
    complements: bool = False
    text_column: str = "text"
    config_name: str | None = None
    split: str = "train"
    streaming: bool = True
    max_documents: PositiveInt | None = 2000

    def __post_init__(self) -> None:
        settle_fields(self, leave=("classes",))
        if self.classes is not None:
            read_specs(self.classes, complements=self.complements)
        require(
            self.classes is not None or not self.complements,
            "complements",
            self.complements,
            "classes to complement",
            "name some in data.classes",
        )


@dataclass(frozen=True)
class CircuitSettings:
    """Scores of attention heads and of in-context learning on repeated random tokens, at every checkpoint.

    Attributes:
        enabled: False disables them.
        num_sequences: probe sequences.
        segment_length: random tokens in a segment, at most.
        copies: number of copies of a segment.
        seed: of the sequences.

    Raises:
        InputError: a value out of range.
    """

    enabled: bool = True
    num_sequences: PositiveInt = 16
    segment_length: Annotated[int, at_least(2)] = 25
    copies: Annotated[int, at_least(2)] = 4
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        settle_fields(self, prefix="circuits.")


@dataclass(frozen=True)
class SweepConfig:
    """Settings of a sweep.

    Attributes:
        checkpoints: name on the Hugging Face hub, whose revisions are its checkpoints; a folder with one subfolder for
            each, as ``save_pretrained`` writes them; both with the step in their names (``step<k>``, ``step-<k>``,
            ``step<k>-tokens<n>B``, ``stage1-step<k>-tokens<n>B``, ``checkpoint-<k>``, ``global_step<k>``, ...); a
            folder of plain state dicts of TransformerLens (``step<k>.pth``), see :mod:`stagewise.sweep.lens_states`; a
            Lightning ``.ckpt`` file or a folder of them, with ``step=<k>`` in their names or ``global_step`` inside.
        corpus: ``stdlib``; ``site-packages``; a text file, a table (JSON lines, CSV, Parquet, Arrow), a folder of
            either, a data set as ``save_to_disk`` wrote it, or a pattern, see
            :func:`stagewise.lm.local_files.local_documents`; or the name of a Hugging Face data set.
        steps: checkpoints to use: training steps, of which missing ones are reported and left out; ``log:24`` for at
            most 24, evenly spaced on a logarithmic axis, with the first and the last; or ``all``. If None, all in the
            folder; required for a hub name.
        output: folder for cells, ``influence.zarr``, ``summary.json``, ``groups.csv``, ``circuits.csv`` and
            ``classes.md``. The store and the summary come with the component ``all``; those of another one are in
            ``components/<name>``.
        model: ``class_path`` and ``init_args`` of a LightningModule with a Hugging Face causal language model, for
            ``.ckpt`` files.
        data: the sequences.
        sgld: the sampler, the same at all checkpoints; its numbers and its engine must be given.
        probe: the measurement. The reference of a checkpoint is the latest one before it in the sweep with usable
            draws: ``reference_ratio`` keeps its default; ``check_curvature`` and ``draw_matrices`` have no effect.
        circuits: scores of attention heads, whatever the components.
        components: weights that chains move: ``all``, a part of the model (``layer0.head1``), or a kind of part
            (``heads``, ``layers``, ...) for all of that kind, see :mod:`stagewise.lm.components`. Each has its own
            chains.
        query: [sample, token]: text coloured by the influence of its tokens on this one, an HTML page in ``tokens`` for
            each checkpoint, and an image in TensorBoard; the sample is one of ``probe.token_samples``, and the token
            its position there, from 1 on.
        device: ``auto`` (a GPU if there is one), or torch's name of a device.
        precision: see :class:`Precision`.
        num_workers: processes that share the checkpoints. A single one fetches the next checkpoint while it computes.
        backend: backend of the processes.
        cache_dir: folder for downloaded models; that of the Hugging Face libraries if None.
        step_pattern: regular expression for whole names of folders, or of files without their ending, whose one group
            is the step; for names that the usual rule cannot read, see :func:`~stagewise.sweep.step_names.step_of`, or
            to select some of the folders.
        branch: of a suite that forks, by the stage and ingredient in the names: ``stage2-ingredient1``, or
            ``stage1+stage2-ingredient1`` for one after the other, steps counted on where the second starts anew.
            Several branches are refused without it: a sweep is along one run.
        name_steps: name of a checkpoint to its training step, if the name lacks it; only these are used.
        name_tokens: name of a checkpoint to the tokens that it has seen; only these are taken. The number in a name
            stands for its step where ``name_steps`` does not tell.
        tokens_per_step: tokens of a training step; goes before the rounded numbers in names, and ``name_tokens`` before
            both.
        axis: of figures: steps, or the tokens that the model has seen, which must be known of each checkpoint.

    Raises:
        InputError: a value out of range, or settings that would differ between checkpoints.
    """

    checkpoints: Name
    corpus: Name
    steps: list[NonNegativeInt] | str | None = None
    output: Name = "runs/sweep"
    model: dict[str, Any] | None = None
    data: TextSettings = TextSettings()
    sgld: SGLDConfig = SGLDConfig(
        lr=1e-3, nbeta=30.0, localization=300.0, num_chains=4, num_draws=100, engine=EngineName.sequential
    )
    probe: ProbeConfig = ProbeConfig(chunk_size=8)
    circuits: CircuitSettings = CircuitSettings()
    components: list[str] = field(default_factory=lambda: [ALL])
    query: list[int] | None = None
    device: str = "auto"
    precision: Precision = Precision.full
    num_workers: Annotated[int, at_least(1, "1 fetches ahead")] = 1
    backend: Backend = Backend.loky
    cache_dir: str | None = None
    step_pattern: str | None = None
    branch: Name | None = None
    name_steps: dict[str, NonNegativeInt] | None = None
    name_tokens: dict[str, NonNegative] | None = None
    tokens_per_step: Positive | None = None
    axis: Axis = Axis.steps

    def __post_init__(self) -> None:
        settle_fields(self)
        if self.step_pattern is not None:
            check_pattern(self.step_pattern)
        check_steps(self.steps)
        if isinstance(self.steps, list):
            expected = "training steps >= 0, each once"
            check_distinct("steps", self.steps, 'e.g. --steps "[1,2,4,8]"', expected=expected)
        check_distinct("components", self.components, f"[{ALL}] is the default")
        for component in self.components:
            check_component(component)
        if self.branch is not None:
            parts = self.branch.split("+")
            advice = "e.g. --branch stage1 or --branch stage1+stage2-ingredient1"
            check_distinct("branch", parts, advice, expected="names of branches joined by +, each once")
        self._check_sampler()
        self._check_query()
        usual = ProbeConfig().reference_ratio
        require(
            self.probe.reference_ratio == usual,
            "probe.reference_ratio",
            self.probe.reference_ratio,
            f"{usual}, since the reference of a checkpoint is the one before it",
            "leave it out, and choose steps",
        )
        if self.model is not None and "class_path" not in self.model:
            raise InputError(f"got model {self.model}; expected class_path and init_args; see configs/induction.yaml")

    def _check_query(self) -> None:
        query, chosen = self.query, self.probe.token_samples or []
        if query is None:
            return
        require(ALL in self.components, "components", self.components, f"{ALL!r} among them, for a query", "add it")
        good = len(query) == 2 and query[0] in chosen and 1 <= query[1] < self.data.context
        require(
            good,
            "query",
            query,
            f"[sample, token], the sample one of probe.token_samples={chosen}, the token from 1 to "
            f"{self.data.context - 1}",
            "set probe.token_samples, and choose a token of one of them",
        )

    def _check_sampler(self) -> None:
        """Refuses settings to be resolved at the first checkpoint, since each is computed separately."""
        sgld = self.sgld
        for name in ("lr", "localization"):
            value = getattr(sgld, name)
            require(value != "auto", f"sgld.{name}", value, "a number, the same for all checkpoints", "set it")
        require(
            sgld.engine is not EngineName.auto,
            "sgld.engine",
            sgld.engine,
            "sequential, batched or compiled, the same for all checkpoints",
            "sequential suits large models",
        )
        if isinstance(sgld.preconditioner, AdamMoments):
            raise InputError(
                "got sgld.preconditioner AdamMoments; expected another one: a checkpoint has no optimizer; set null"
            )
