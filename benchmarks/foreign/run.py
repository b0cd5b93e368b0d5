"""Attach the callback to modules of other packages, each in an environment of its own.

    python benchmarks/foreign/run.py [--packages REGEX] [--json FILE] [--markdown FILE]

For each case in ``cases/``: make an environment, install the package and stagewise, train twice from the same seeds in
fresh processes, without and with probes, and hold the two together: weights, buffers, optimizer state, losses of all
steps and random states have to agree in every bit; probes have to be there, finite, and see the loss that the package
itself trains on. Runs with any Python from 3.11 on; nothing but pip needs a network. Environments are kept under
``--envs`` and used again. Exits with 1 where a case neither attaches nor is refused before the first step.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from case import case_names, glue_of
from environments import REPOSITORY, environment, version
from header import header
from table import markdown

HERE = Path(__file__).parent
TRIAL_SECONDS = 600
FINE = ("attaches", "refused")


def run_case(name: str, envs: Path, base: Path | None) -> dict:
    """Verdict on one case, with versions, glue and what was measured."""
    case = header(name)
    row: dict[str, Any] = {"case": name, "trained": case.trained, "arguments": case.arguments, "limits": case.limits}
    glue = glue_of(name)
    row |= {"glue": glue.text, "glue_lines": glue.count, "requires": list(case.requires)}
    start = time.perf_counter()
    try:
        python = environment(envs / name, case.requires, base)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return row | {"verdict": "not run", "message": f"not installed: {error}"}
    row |= {"install_seconds": round(time.perf_counter() - start, 1)}
    row["versions"] = {item: version(python, item) for item in (case.package, "torch", "lightning")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "WANDB_MODE": "offline"}
    surroundings = os.environ | threads | offline | {"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "0"}
    work = Path(tempfile.mkdtemp(prefix=f"foreign_{name}_"))

    def trained(way: str, *more: str) -> None:
        """One training in a fresh process; what it wrote is in ``work / way``."""
        begun = time.perf_counter()
        (work / way).mkdir()
        with (work / way / "output.txt").open("w") as output:
            command = [str(python), str(HERE / "trial.py"), name, str(work / way), *more]
            subprocess.run(command, env=surroundings, stdout=output, stderr=output, timeout=TRIAL_SECONDS)
        row[f"{way}_seconds"] = round(time.perf_counter() - begun, 1)

    def held(one: str, other: str, *more: str) -> dict:
        """Two trainings against each other."""
        command = [str(python), str(HERE / "verdict.py"), str(work / one), str(work / other), *more]
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else {"verdict": "fails", "message": done.stderr}

    try:
        trained("plain")
        trained("probed", "--probes")
        found = held("plain", "probed")
        if found["verdict"] == "changes training":
            trained("again")
            if held("plain", "again", "--bits").get("where") is not None:
                message = "the package's own training is not the same twice from the same seeds"
                found = {"verdict": "not run", "message": message}
    except subprocess.TimeoutExpired:
        found = {"verdict": "fails", "message": f"a training took more than {TRIAL_SECONDS} s"}
    row |= found
    if row["verdict"] in FINE:
        shutil.rmtree(work)
    else:
        print(f"  what was written: {work}", file=sys.stderr)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", default="", help="run the cases whose name this regular expression matches")
    parser.add_argument("--json", type=Path, help="write the rows to this file; rows of other cases in it are kept")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, of all rows that there are")
    parser.add_argument("--envs", type=Path, default=REPOSITORY / ".foreign", help="where environments are kept")
    parser.add_argument("--base", type=Path, help="a virtual environment whose packages they may share")
    options = parser.parse_args()
    rows: dict[str, dict] = {}
    if options.json is not None and options.json.exists():
        rows = {row["case"]: row for row in json.loads(options.json.read_text())["rows"]}
    names = [name for name in case_names() if re.search(options.packages, name)]
    fine = True
    base = None if options.base is None else options.base.resolve()
    for name in names:
        row = run_case(name, options.envs.resolve(), base)
        rows[name] = row
        fine = fine and row["verdict"] in FINE
        print(f"{name}: {row['verdict']}, {row['glue_lines']} lines of glue. {row['message']}", flush=True)
        if options.json is not None:
            kept = {"rows": [rows[case_name] for case_name in case_names() if case_name in rows]}
            options.json.write_text(json.dumps(kept, indent=1) + "\n")
    if options.markdown is not None:
        options.markdown.write_text(markdown([rows[case_name] for case_name in case_names() if case_name in rows]))
    sys.exit(not fine)


if __name__ == "__main__":
    main()
