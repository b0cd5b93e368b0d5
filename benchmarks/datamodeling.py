"""Linear datamodeling score of BIF and its rivals, on small networks and scikit-learn's tabular sets.

    python benchmarks/datamodeling.py [--set breast_cancer] [--quick] [--cases REGEX] [--methods REGEX] [--json FILE]

Networks are retrained on 100 random halves of the training set; the test losses on each half are means over 10 seeds. A
method sees one network trained on the whole set and predicts the losses by the sum of its scores over the subset. Its
score is the rank correlation over the subsets, averaged over test samples. The table has means and 95 % t intervals
over 5 networks of other seeds, and the ratio to EK-FAC influence, network by network. Cases are the end of training,
half-way, step 10, and the end with 10 % wrong labels. Settings were chosen on the wine set (``--set wine --choose``
shows a grid of them). CPU time is that of one call on one thread. The default takes about 10 CPU minutes.
"""

import argparse
import copy
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import Row, report, single_thread
from lds.methods import REFERENCE, Checkpoint, Method, candidates, rivals, samplers
from lds.retraining import Training, half_subsets, initial, network, retrain, train
from lds.score import ceiling, interval, linear_datamodeling_score
from lds.sets import SETS, Split, load
from torch import Tensor, nn

EARLY = 10
RETRAINING_SEEDS = 100
"""First seed of the retrained networks; the seeds of the networks to explain start at 0."""


@dataclass(frozen=True)
class Case:
    """One table of scores."""

    label: str
    wrong: float
    step: int


def trained(split: Split, training: Training, seed: int, steps: Sequence[int]) -> list[nn.Module]:
    """Trains one network; returns its state at each of the steps."""
    shape = network(split, training)
    inputs, labels = split.train
    run: list[nn.Module] = []
    for weights in train(shape, initial(shape, [seed]), (inputs[None], labels[None]), training, steps).values():
        module = copy.deepcopy(shape)
        module.load_state_dict({name: value[0] for name, value in weights.items()})
        run.append(module)
    return run


def measure(
    case: Case, split: Split, training: Training, truth: Tensor, subsets: Tensor, seeds: int, methods: dict[str, Method]
) -> list[Row]:
    """Measures score and time of each method; ``truth`` is ``[seed, subset, test]``."""
    steps = sorted({*range(10, case.step + 1, 10), case.step})
    mean = truth.mean(0)
    scores: dict[str, list[float]] = {name: [] for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for seed in range(seeds):
        run = trained(split, training, seed, steps)
        checkpoint = Checkpoint(run[-1], run, split, training, early=case.step <= EARLY)
        for name, method in methods.items():
            start = time.process_time()
            estimate = method(checkpoint)
            seconds[name].append(time.process_time() - start)
            scores[name].append(linear_datamodeling_score(estimate, subsets, mean))
    label = f"{split.name}, {case.label}"
    rows = [Row(label, "retraining, half of the seeds against the other", "LDS", None, len(truth), ceiling(truth))]
    for name in methods:
        value, low, high = interval(scores[name])
        rows.append(Row(label, name, "LDS", None, seeds, value, "", low, high))
        ratio, low, high = interval(_over(scores[name], scores[REFERENCE]))
        rows.append(Row(label, name, "LDS / EK-FAC influence", ratio, seeds, low=low, high=high))
        ratio, low, high = interval(_over(seconds[name], seconds[REFERENCE]))
        cpu = interval(seconds[name])[0]
        rows.append(Row(label, name, "CPU time / EK-FAC influence", ratio, seeds, cpu, "s", low, high))
    return rows


def _over(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Returns ratios, network by network."""
    return [value / other for value, other in zip(values, others, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=sorted(SETS), default="breast_cancer", help="scikit-learn set to report on")
    parser.add_argument("--seeds", type=int, default=5, help="networks to explain")
    parser.add_argument("--quick", action="store_true", help="2 networks, 4 retraining seeds, end of training only")
    parser.add_argument("--choose", action="store_true", help="a grid of settings, on --set wine")
    parser.add_argument("--cases", default="", help="only cases whose label matches this regular expression")
    parser.add_argument("--methods", default="", help="only methods whose name matches; EK-FAC influence is kept")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    single_thread()
    training = Training()
    seeds, retraining = (2, 4) if options.quick or options.choose else (options.seeds, 10)
    cases = [Case("end of training", 0.0, training.steps), Case("10 % wrong labels, end", 0.1, training.steps)]
    if not options.quick:
        cases[1:1] = [Case("half-way", 0.0, training.steps // 2), Case(f"step {EARLY}", 0.0, EARLY)]
    if options.choose:
        cases = [
            Case(f"{wrong:.0%} wrong labels, step {at}", wrong, at)
            for wrong in (0.0, 0.1)
            for at in (EARLY, training.steps)
        ]
    methods = candidates() if options.choose else {**rivals(), **samplers()}
    methods = {name: item for name, item in methods.items() if name == REFERENCE or re.search(options.methods, name)}
    cases = [case for case in cases if re.search(options.cases, case.label)]
    rows: list[Row] = []
    for wrong in sorted({case.wrong for case in cases}):
        split = load(options.set, wrong=wrong)
        subsets = half_subsets(len(split.train[0]), 100)
        mine = [case for case in cases if case.wrong == wrong]
        seeds_of_truth = range(RETRAINING_SEEDS, RETRAINING_SEEDS + retraining)
        truth = retrain(split, training, subsets, seeds_of_truth, [case.step for case in mine])
        for case in mine:
            rows += measure(case, split, training, truth[case.step], subsets, seeds, methods)
            if options.json is not None:  # an interrupted run leaves its results so far
                options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
            print(f"{split.name}, {case.label}: done after {time.process_time():.0f} CPU s", file=sys.stderr)
    report(rows, options.json)


if __name__ == "__main__":
    main()
