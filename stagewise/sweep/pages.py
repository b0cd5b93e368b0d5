"""Pages of a sweep that show text coloured by the influence of its tokens on one of them, one for each checkpoint.

TensorBoard has the coloured text as an image, and the strongest tokens as a table under its Text tab.
"""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from stagewise.files.writing import whole_folder
from stagewise.reporting.tensorboard import write_token_influence
from stagewise.reporting.token_html import write_token_html
from stagewise.reporting.token_influence import TokenInfluence
from stagewise.runs.open import open_run
from stagewise.sweep.study import Sweep

_FOLDER = "tokens"
_PART = "total"


def write_token_pages(sweep: Sweep, run_folder: Path) -> list[Path]:
    """Writes ``tokens/step<k>.html`` of the query token; none without one.

    Args:
        sweep: with results in ``run_folder``.
        run_folder: of the component whose chains move all weights.

    Returns:
        The folder of the pages, if any.

    Raises:
        InputError: the query is not a token with a loss.
    """
    query, chosen = sweep.config.query, sweep.config.probe.token_samples
    if query is None or chosen is None:
        return []
    run = open_run(run_folder, trace=True)["token_bif"].sel(token_part=_PART)
    axes = {"chosen": "sample", "chosen_j": "sample_j"}
    folder = run_folder / _FOLDER
    with whole_folder(folder) as fresh:
        fresh.mkdir()
        with SummaryWriter(str(fresh)) as writer:
            for step in run["step"].values.tolist():
                values = run.sel(step=step, drop=True).rename(axes)
                values = values.transpose("sample", "token", "sample_j", "token_j")
                influence = TokenInfluence.of(values, sweep.texts, (chosen.index(query[0]), query[1]))
                title = f"Token influence at step {step:,}, {_PART}"
                write_token_html(fresh / f"step{step}.html", influence, title=title)
                write_token_influence([writer], influence, step, title=title)
    return [folder]
