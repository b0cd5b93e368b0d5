"""Generator of ``docs/variables.md`` from the table of variables."""

from collections.abc import Iterable

from stagewise.runs.variable import Variable
from stagewise.runs.variables import VARIABLES


def variables_page(variables: Iterable[Variable] = VARIABLES) -> str:
    """Returns ``docs/variables.md``, with a row for each variable.

    Args:
        variables: in the order of the rows.
    """
    lines = [
        "# Variables of a run",
        "",
        "What `open_run(path)` returns: an `xarray.Dataset` with these variables, as far as the settings of the run",
        "request them. Each has `step` in front of the axes below, except for coordinates (in italics) other than",
        "`reference_step`. Every variable has the attributes `long_name` and `units`, and `sign` where it matters.",
        "`run.stagewise` answers the usual questions, see the [README](../README.md); `run[name]` has the numbers.",
        "",
        "This page is generated from `stagewise/runs/variables.py`; `python -m stagewise.runs.variables_page`",
        "prints it.",
        "",
        "| name | axes | unit | meaning | sign | source |",
        "|---|---|---|---|---|---|",
    ]
    for variable in variables:
        name = f"*`{variable.name}`*" if variable.coordinate else f"`{variable.name}`"
        cells = (
            name,
            ", ".join(variable.axes) or "-",
            variable.units or "-",
            variable.meaning.replace("|", "\\|"),
            variable.sign or "-",
            variable.source or "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(variables_page(), end="")
