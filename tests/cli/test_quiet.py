"""Words of an ordinary run: nothing foreign that nobody can act on; what concerns the user still comes through."""

import logging
import subprocess
import sys
import warnings

import pytest

from stagewise.cli.quiet import plain_words
from tests.cli.test_main import config  # noqa: F401

TIP = "💡 Tip: For seamless cloud logging, try installing [litlogger](https://pypi.org/project/litlogger/)"
LEAF = "`isinstance(treespec, LeafSpec)` is deprecated, use ..."


@pytest.mark.slow
def test_an_ordinary_run_has_no_foreign_warning(config, tmp_path):  # noqa: F811
    code = "from stagewise.cli.main import entry_point; entry_point()"
    flags = [f"--influence.probe.thresholds.{name}" for name in ("ess_min", "sample_ess_min")]
    more = [item for flag in flags for item in (flag, "null")]
    command = [sys.executable, "-c", code, "fit", "-c", str(config), *more, "--trainer.log_every_n_steps=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    said = done.stdout + done.stderr
    assert "2 probes in" in done.stderr
    for word in ("site-packages", "Warning:", "deprecated", "litlogger", "litmodels", "Tip:", "LightningCLI's args"):
        assert word not in said


def lightning_warns(message):
    """As if from a line of Lightning."""
    warnings.warn_explicit(message, UserWarning, "cli.py", 1, module="lightning.pytorch.cli")


@pytest.mark.parametrize(
    ("message", "heard"),
    [
        (LEAF, False),
        ("LightningCLI's args parameter is intended to run from within Python", False),
        ("the dataloader does not have many workers", True),
    ],
)
def test_foreign_warnings_are_left_out_one_by_one(message, heard):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with plain_words():
            lightning_warns(message)
        lightning_warns("after")
    assert [str(item.message) for item in caught] == ([message] if heard else []) + ["after"]


def test_the_same_words_from_elsewhere_are_heard():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with plain_words():
            warnings.warn_explicit(LEAF, UserWarning, "own.py", 1, module="my_model")
    assert len(caught) == 1


def test_advertisements_are_left_out_and_come_back_afterwards(caplog):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level("INFO", logger=logger.name):
        with plain_words():
            logger.info(TIP)
            logger.info("stagewise: 3 probes")
        assert caplog.messages == ["stagewise: 3 probes"]
        logger.info(TIP)
    assert caplog.messages[-1] == TIP


def test_own_warnings_are_lines_without_their_code(capsys):
    with plain_words():
        own = warnings.formatwarning("stagewise: flagged", UserWarning, "reporter.py", 3)
        foreign = warnings.formatwarning("something", UserWarning, "their.py", 3)
    assert own == "warning: stagewise: flagged\n"
    assert "their.py:3" in foreign
    assert "reporter.py" in warnings.formatwarning("stagewise: flagged", UserWarning, "reporter.py", 3)


def test_all_is_as_before_after_an_error():
    usual, filters = warnings.formatwarning, list(warnings.filters)
    with pytest.raises(KeyError), plain_words():
        raise KeyError
    assert warnings.formatwarning is usual
    assert warnings.filters == filters
