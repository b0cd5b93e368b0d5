"""Rows of token strings, and a vocabulary that has just these tokens."""

import torch

from stagewise.lm.classes import Vocabulary

SPECIAL = ("<end>", "<pad>")


def tokens(*rows):
    """Ids ``[sample, position]`` of rows of strings, and their vocabulary."""
    strings = tuple(dict.fromkeys(string for row in rows for string in row))
    special = torch.tensor([string in SPECIAL for string in strings])
    return torch.tensor([[strings.index(string) for string in row] for row in rows]), Vocabulary(strings, special)


def chosen(mask, rows):
    """The targets that a mask chooses, by row: ``(position, string)``."""
    return [
        [(k + 1, row[k + 1]) for k in line.nonzero().flatten().tolist()] for line, row in zip(mask, rows, strict=True)
    ]
