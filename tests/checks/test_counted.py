"""Counts agree with their nouns."""

import re
from pathlib import Path

import pytest

import stagewise
from stagewise.checks.counted import counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 probes"), (1, "1 probe"), (2, "2 probes"), (1000, "1,000 probes")]
)
def test_one_is_singular(number, words):
    assert counted(number, "probe") == words


def test_no_text_about_a_run_counts_probes_chains_or_draws_without_the_helper():
    """``{...} probes`` in a literal would say ``1 probes``."""
    bare = re.compile(r"\{[^{}]*\} (probes|chains|draws)\b")
    package = Path(stagewise.__file__).parent
    found = [
        f"{path.relative_to(package)}:{number}: {line.strip()}"
        for folder in ("callbacks", "runs", "reporting", "phases", "cli", "probes")
        for path in sorted((package / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if bare.search(line) and '"""' not in line
    ]
    assert found == []
