"""Predicates for conditions that no pattern can express: repetition within a row."""

from collections.abc import Callable

import torch
from torch import Tensor

from stagewise.errors import InputError
from stagewise.lm.classes.token_text import TokenText
from stagewise.lm.tokens import broken_repeats, induction_targets

Predicate = Callable[[TokenText], Tensor]
"""Maps rows of tokens to bool ``[sample, position - 1]`` over their targets."""

# Limit of pairs of positions compared at once: long rows would need gigabytes.
_MAX_PAIRS = 2**24


def _by_rows(judge: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
    rows = max(1, _MAX_PAIRS // ids.shape[1] ** 2)
    return torch.cat([judge(part) for part in ids.split(rows)])


def induction(text: TokenText) -> Tensor:
    """Marks targets found after an earlier copy of the preceding token, ``[sample, position - 1]``, bool."""
    return _by_rows(induction_targets, text.ids)


def repeated_other_follower(text: TokenText) -> Tensor:
    """Marks the control: the preceding token occurred before, but never with this target; of the same shape."""
    return _by_rows(broken_repeats, text.ids)


def ask(name: str, predicate: Predicate, text: TokenText) -> Tensor:
    """Calls a predicate and checks its result.

    Args:
        name: of the class, for messages.
        predicate: function to call.
        text: its argument.

    Returns:
        ``[sample, position - 1]``, bool.

    Raises:
        InputError: the result is not a bool tensor of that shape.
    """
    answer = predicate(text)
    expected = [len(text.ids), text.ids.shape[1] - 1]
    if not isinstance(answer, Tensor) or answer.dtype != torch.bool or list(answer.shape) != expected:
        got = f"{answer.dtype} {list(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
        raise InputError(
            f"got {got} from the predicate of class {name!r}; expected a bool tensor {expected}, one entry for each "
            "target [sample, position - 1]"
        )
    return answer.to(text.ids.device)
