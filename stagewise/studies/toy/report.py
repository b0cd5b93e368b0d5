"""Report of the toy experiment, in Markdown."""

from collections.abc import Sequence
from pathlib import Path

from stagewise.files.writing import write_text_file
from stagewise.studies.toy.claims import sorted_claims
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.figures.gallery import write_figures
from stagewise.studies.toy.stages import CHAINS, METHODS, PairFlips
from stagewise.studies.toy.table import validation_markdown
from stagewise.studies.toy.validation import SeedResult, summarize

REPORT_NAME = "report.md"

_CAPTIONS = {
    "learning": "Modes are learned one after the other; dashed: the closed form.",
    "showcase": "Influence of one item on another over training, by every method. Below zero it helps.",
    "agreement": "Influence from chains against the other methods, pairs of different items at all probes.",
    "flips": "When pairs turn from helpful to harmful, by method and relation.",
    "transitions": "The parts of influence over training, and three signals beside the true transitions.",
    "windows": "Dropping or doubling an item inside a window, in three readings, against BIF in the window.",
    "representations": "How the hidden representations branch, and when influence across the branches peaks.",
    "tracin": "TracIn over the run, and how much of it cancels.",
}


def showcase_pair(config: ToyConfig) -> tuple[str, str]:
    """Returns the pair followed through the report: the first cousins of the tree, or else its first two items."""
    pairs = config.hierarchy.pairs()
    row, column, _ = next((pair for pair in pairs if pair[2] == "cousin"), pairs[0])
    return config.hierarchy.items[row], config.hierarchy.items[column]


def _flip_words(found: PairFlips) -> str:
    flip = found.from_helpful
    if flip is None:
        return "none"
    interval = f"{flip.step:.0f} [{flip.earliest}, {flip.latest}]"
    if found.method == CHAINS:
        return f"{interval}, z {flip.z_before:.0f} and +{flip.z_after:.0f}"
    return interval


def _showcase_table(results: Sequence[SeedResult], config: ToyConfig) -> str:
    item, item_j = showcase_pair(config)
    lines = [f"| seed | {' | '.join(METHODS)} |", f"|---|{'---|' * len(METHODS)}"]
    for result in results:
        by_method = {flip.method: flip for flip in result.flips if (flip.item, flip.item_j) == (item, item_j)}
        cells = [_flip_words(by_method[method]) for method in METHODS]
        lines.append(f"| {result.seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _relation_table(results: Sequence[SeedResult]) -> str:
    relations = list(results[0].relation_flips)
    lines = [f"| seed | {' | '.join(relations)} |", f"|---|{'---|' * len(relations)}"]
    for result in results:
        cells = []
        for relation in relations:
            flips = result.relation_flips[relation]
            words = [f"{flip.step:.0f} [{flip.earliest}, {flip.latest}] ({flip.words})" for flip in flips]
            cells.append("; ".join(words) or "none")
        lines.append(f"| {result.seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _branch_table(results: Sequence[SeedResult]) -> str:
    lines = ["| node | " + " | ".join(f"seed {result.seed}" for result in results) + " |"]
    lines.append(f"|---|{'---|' * len(results)}")
    for row, branch in enumerate(results[0].branches):
        cells = []
        for result in results:
            found = result.branches[row]
            peak = "no peak" if found.peak_step is None else f"{found.peak_step}, ratio {found.ratio:.2f}"
            cells.append(f"{found.branching_step:.0f}; {peak}")
        lines.append(f"| {branch.branch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _window_table(results: Sequence[SeedResult]) -> str:
    lines = [
        "| seed | true transitions | " + " | ".join(detection.signal for detection in results[0].detections) + " |"
    ]
    lines.append(f"|---|---|{'---|' * len(results[0].detections)}")
    for result in results:
        truth = ", ".join(map(str, result.exact.attrs["transitions"]))
        found = [
            ", ".join(str(window.peak) for window in detection.windows) or "none" for detection in result.detections
        ]
        lines.append(f"| {result.seed} | {truth} | {' | '.join(found)} |")
    return "\n".join(lines)


_GLOSSARY = (
    "*Significant*: beyond 3 standard errors over chains (by Student's t), and above a thousandth of the largest "
    "effect. *Precision*: share of the windows that lie at a stage, within 10 % of the step; *recall*: share of the "
    "stages that have a window. *Gradient dot product*: of the losses of two items; training on one lowers the other "
    "where it is positive. *TracIn*: its sum over training; *|net| / gross*: what is left of the sum of its sizes. "
    "*Slope*: of a regression line."
)


def _flags(results: Sequence[SeedResult]) -> str:
    """Describes the probes that the callback flags, which are used nevertheless."""
    parts = []
    for result in results:
        steps = result.chains.attrs["flagged_steps"]
        kinds = ", ".join(result.chains.attrs["flags"])
        parts.append(
            f"seed {result.seed}: {len(steps)}" + (f" ({kinds}; steps {min(steps)} to {max(steps)})" if steps else "")
        )
    return (
        f"**Flagged probes**, of {len(results[0].chains['step'])} each: {'; '.join(parts)}. They are used as the "
        "others are. A fall of the loss within a chain (`loss_fall`) is that of a posterior whose mode lies downhill, "
        "which is "
        "where the local Gaussian is taken too."
    )


def _set_up(results: Sequence[SeedResult], config: ToyConfig) -> str:
    network, sgld, hierarchy = config.network, config.influence.sgld.require_resolved(), config.hierarchy
    memory = sgld.nbeta / sgld.localization
    return (
        f"A linear network of two layers ({network.hidden} hidden units) learns which of "
        f"{len(hierarchy.properties)} properties each of {len(hierarchy.items)} items has; the properties come from a "
        f"tree. Gradient descent on full batches, learning rate {network.lr:g}, {network.num_steps:,} steps, "
        f"from small random weights. Seeds {', '.join(str(result.seed) for result in results)}; the default settings "
        "were chosen on seeds 101 to 112.\n\n"
        f"While it trains, the same `InfluenceCallback` that any run uses probes it {len(config.probed_steps)} times: "
        f"{sgld.num_chains} chains of {sgld.num_draws} draws, nbeta {sgld.nbeta:g}, localization "
        f"{sgld.localization:g}. BIF(i, j) = minus the covariance of the losses of i and j over the draws, nats²; "
        "**negative = helpful**: more weight on i lowers the loss of j. Errors are standard errors over chains.\n\n"
        f"nbeta / localization = {memory:g} says how far a chain looks ahead. It compares best with training for D "
        f"steps where learning rate x D / 2 is about as much: here D = {2 * memory / network.lr:.0f}. The horizon of "
        f"the figures below is {config.retraining.horizon} steps.\n\n"
        "To drop an item is to give it weight 0 while the mean keeps its 1/n. To renormalise the mean would be another "
        "question with another answer."
    )


def report_markdown(results: Sequence[SeedResult], config: ToyConfig) -> str:
    """Returns the report; its figures are next to it, in ``figures/``."""
    item, item_j = showcase_pair(config)
    summary = summarize(results)
    parts = [
        "# The toy: influence in a network whose stages are known",
        _set_up(results, config),
        "## The figures",
        "Pairs of different items; median and range over seeds. *Aim*: what would confirm the method, set before any "
        "of the default seeds was run; *aim met*: by how many seeds. The claims below go by the median.",
        validation_markdown(summary),
        _GLOSSARY,
        _flags(results),
    ]
    for kind, claims in sorted_claims(summary).items():
        parts += [f"## What {kind}", "\n".join(f"* {words}" for words in claims)]
    parts += [
        f"## The showcase: {item} and {item_j}",
        "Step at which influence turns from helpful to harmful, with the last step at which it is surely helpful and "
        "the first at which it is surely harmful, and the largest z on both sides. Methods without chains have no "
        "sampling error: values below a thousandth of the largest count as unsure.",
        _showcase_table(results, config),
        "## Mean influence of each relation, from chains",
        _relation_table(results),
        "## Windows, by their peaks",
        "The true transition of a stage is the step at which its part of the loss falls fastest in log step, from the "
        "weights.",
        _window_table(results),
        "## Branching of the representations",
        "Step at which the children of a node are half of their way apart; step of the largest harmful influence "
        "across them, and their ratio.",
        _branch_table(results),
        "## Pictures",
    ]
    parts += [f"![{caption}](figures/{stem}.png)\n\n*{caption}*" for stem, caption in _CAPTIONS.items()]
    return "\n\n".join(parts) + "\n"


def write_report(output: Path, results: Sequence[SeedResult], config: ToyConfig) -> Path:
    """Writes ``report.md`` and ``figures/*.png``; returns the path of the report."""
    write_figures(output / "figures", results, config)
    return write_text_file(output / REPORT_NAME, report_markdown(results, config))
