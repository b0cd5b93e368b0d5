"""The page on foreign packages, from the rows of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = """# Modules of other packages

What it takes to attach `InfluenceCallback` to a `LightningModule` that somebody else wrote, and whether training stays
what it was. This page is written by

```bash
make foreign
```

which installs each package into an environment of its own and trains it on synthetic data twice from the same seeds,
{steps} steps, without and with probes (at two steps, 2 chains of 4 draws). Each row has its file in
[`benchmarks/foreign/cases/`](../benchmarks/foreign/cases/).

* **attaches**: weights, buffers, optimizer state, the loss of every step and the random states of torch, numpy and
  Python are the same in every bit; the probes are there and finite; and their mean loss at the last step is the
  package's own training loss, in eval mode, on the same samples, to a part in 10,000.
* **refused**: an error before the first step says why, and training was not touched.
* **Glue**: the lines to write beside imports and the line that makes the callback. They stand below the table.

Without the callback's `observed` it looks at the training samples that the loader draws first. What *another callback*
does to a batch before a training step (anomalib's pre-processor) it does not see: the glue has to do the same.
"""


def markdown(rows: Sequence[Mapping[str, Any]], steps: int = 8) -> str:
    """The whole page: words, the table, then the glue of each row."""
    lines = [_HEAD.format(steps=steps)]
    lines += ["| package | trained | lines of glue | same bits | verdict |", "|---|---|---|---|---|"]
    lines += [_row(row) for row in rows]
    lines += ["", "## Glue", ""]
    for row in rows:
        lines += _glue(row)
    return "\n".join(lines).rstrip("\n") + "\n"


def _row(row: Mapping[str, Any]) -> str:
    same = {True: "yes", False: "**no**"}.get(row.get("identical"), "")
    told = " ".join(str(row["message"]).split()).replace("|", "\\|")
    verdict = f"**{row['verdict']}**" + (f": {told}" if told else "")
    limits = f". {row['limits']}" if row["limits"] and not told else f" {row['limits']}" if row["limits"] else ""
    file = f"[{row['trained']}](../benchmarks/foreign/cases/{row['case']}.py)"
    cells = (_package(row), file, str(row["glue_lines"]), same, verdict + limits)
    return "| " + " | ".join(cells) + " |"


def _package(row: Mapping[str, Any]) -> str:
    name = row["requires"][0].split("==")[0].split("[")[0]
    versions = row.get("versions", {})
    return f"{name} {versions.get(name, '')} (torch {versions['torch']})" if versions else name


def _glue(row: Mapping[str, Any]) -> list[str]:
    made = f"InfluenceCallback(schedule, sgld{', ' if row['arguments'] else ''}{row['arguments']})"
    title = f"**{_package(row)}**: {row['trained']}"
    return [title, "", "```python", *([row["glue"], "", ""] if row["glue"] else []), made, "```", ""]
