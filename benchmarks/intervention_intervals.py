r"""Recomputes the intervals of stored intervention results from the values of their seeds, and prints their tables.

    python benchmarks/intervention_intervals.py benchmarks/results/intervention.json \
        benchmarks/results/intervention_short_warmup.json --figure benchmarks/intervention_sweep.png

The files are changed in place; the values of seeds are not changed. The figure is that of the first file.
"""

import argparse
import json
from pathlib import Path

from stagewise.files.writing import write_text_file
from stagewise.studies.intervention.claims import answers
from stagewise.studies.intervention.figures.gallery import sweep_figure
from stagewise.studies.intervention.results import with_intervals_anew
from stagewise.studies.intervention.table import comparisons_table, results_markdown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="results.json of stagewise intervene")
    parser.add_argument("--figure", type=Path, help="also draw steps saved against the start of the window")
    options = parser.parse_args()
    for path in options.results:
        found = with_intervals_anew(json.loads(path.read_text()))
        write_text_file(path, json.dumps(found, indent=1, allow_nan=False) + "\n")
        figure = sweep_figure(found) if options.figure and path == options.results[0] else None
        if figure is not None:
            figure.savefig(options.figure, dpi=110)
        print(f"# {path}\n\n{results_markdown(found)}\n\n{comparisons_table(found)}")
        for answer in answers(found):
            print(f"\n{answer.question}\n" + "\n".join(f"* {line}" for line in answer.lines))


if __name__ == "__main__":
    main()
