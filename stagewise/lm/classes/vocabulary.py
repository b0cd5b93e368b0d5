"""Strings of a tokenizer's tokens as they appear in text."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stagewise.errors import InputError

_ANCHOR = "a"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SUBWORD = "##"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """String of each token id, and mask of the special tokens.

    Attributes:
        strings: by token id, the text that the token adds, including a leading space; the name of a special token.
        special: bool ``[token]``: True for special tokens, such as end of text and padding, and for unused ids.
    """

    strings: tuple[str, ...]
    special: Tensor

    def __len__(self) -> int:
        return len(self.strings)


class _Decoder:
    """Decoder of the tokenizer, applied to one token at a time.

    The token is placed between two anchors, since decoders drop spaces at the ends of a text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._decode = tokenizer.convert_tokens_to_string
        self._tail = self._decode([_ANCHOR, _ANCHOR]).removeprefix(_ANCHOR)
        self.byte_level = self("Ġ") == " "
        self.subwords = self(f"{_SUBWORD}x") == "x"
        self.space = "▁" if self("▁") == " " else None

    def __call__(self, piece: str) -> str:
        text = self._decode([_ANCHOR, piece, _ANCHOR]).removeprefix(_ANCHOR)
        # Decoders that separate words by spaces put one before the last anchor, unless the piece leaves a word open.
        return text.removesuffix(self._tail if text.endswith(self._tail) else _ANCHOR)

    def read(self, piece: str) -> str:
        """Returns the text of a piece of the vocabulary."""
        if self.subwords:
            # Without the decoder: some remove spaces before punctuation, some do not.
            return piece.removeprefix(_SUBWORD) if piece.startswith(_SUBWORD) else f" {piece}"
        byte = None if self.byte_level else _BYTE.fullmatch(piece)
        if byte:
            return bytes.fromhex(byte[1]).decode("utf-8", errors="replace")
        return self(piece)

    def read_added(self, content: str) -> str:
        """Returns the text of an added token: its content, except for the sign for a space."""
        if self.subwords:
            return self.read(content)
        return content.replace(self.space, " ") if self.space else content


def read_vocabulary(tokenizer: Any) -> Vocabulary:
    """Reads the string of each token id of any Hugging Face tokenizer, slow or fast.

    * Byte-level BPE: ``Ġfoo`` is `` foo``, ``Ċ`` a newline; a token that is part of a character is U+FFFD.
    * SentencePiece: ``▁foo`` is `` foo``, ``<0x0A>`` a newline.
    * WordPiece, which does not keep spaces: ``##foo`` is ``foo``, and ``foo`` is `` foo``, since a token without ``##``
      starts a word. Punctuation also counts as the start of a word, wherever it occurs.
    * Other kinds: as given by the tokenizer's own decoder.

    Args:
        tokenizer: Hugging Face tokenizer.

    Raises:
        InputError: not a tokenizer, or one without tokens.
    """
    if not hasattr(tokenizer, "get_vocab") or not hasattr(tokenizer, "convert_tokens_to_string"):
        raise InputError(
            f"got tokenizer {type(tokenizer).__name__}; expected a Hugging Face tokenizer; wrap one of the tokenizers "
            "library in transformers.PreTrainedTokenizerFast"
        )
    pieces = {index: piece for piece, index in tokenizer.get_vocab().items()}
    if not pieces:
        raise InputError("got a tokenizer without tokens; expected a trained one")
    decoder, added = _Decoder(tokenizer), tokenizer.added_tokens_decoder
    strings = [""] * (max(pieces) + 1)
    special = torch.ones(len(strings), dtype=torch.bool)
    named = {index for index, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    for index, piece in pieces.items():
        special[index] = index in named
        if index in named:
            strings[index] = piece
        else:
            strings[index] = decoder.read_added(piece) if index in added else decoder.read(piece)
    return Vocabulary(tuple(strings), special)
