"""Warning about groups of so few samples that intervals over chains say little about other such samples."""

from collections.abc import Mapping

from stagewise.checks.counted import counted

FEWEST_SAMPLES = 8
"""Groups with losses in fewer samples raise a warning."""

_MOST_NAMED = 6


def few_samples_words(counts: Mapping[str, int]) -> str | None:
    """Names groups with losses in few samples, and explains the uncertainty; None if there are none.

    Args:
        counts: number of samples with a loss in each group, by name.
    """
    few = [f"{name} ({counted(number, 'sample')})" for name, number in counts.items() if number < FEWEST_SAMPLES]
    if not few:
        return None
    more = f" and {len(few) - _MOST_NAMED} more" if len(few) > _MOST_NAMED else ""
    return (
        f"groups with losses in fewer than {FEWEST_SAMPLES} samples: {', '.join(few[:_MOST_NAMED])}{more}; their "
        "influence is that of these samples, and its error is not known well: intervals are over chains, and do not "
        "tell how much other samples of the group would differ; observe more of them"
    )
