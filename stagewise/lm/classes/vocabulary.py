"""Each token of a tokenizer as it stands in text."""

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
    """String of each token id, and which tokens are special.

    Attributes:
        strings: by token id; what a token adds to the text before it, a leading space included; of a special token
            its name.
        special: bool ``[token]``: end of text, padding and their like, and ids that no token has.
    """

    strings: tuple[str, ...]
    special: Tensor

    def __len__(self) -> int:
        return len(self.strings)


class _Decoder:
    """Decoder of the tokenizer, applied to one token at a time.

    The token stands between two anchors: at the ends of a text decoders leave out spaces that are there within it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._decode = tokenizer.convert_tokens_to_string
        self._tail = self._decode([_ANCHOR, _ANCHOR]).removeprefix(_ANCHOR)
        self.byte_level = self("Ġ") == " "
        self.subwords = self(f"{_SUBWORD}x") == "x"
        self.space = "▁" if self("▁") == " " else None

    def __call__(self, piece: str) -> str:
        text = self._decode([_ANCHOR, piece, _ANCHOR]).removeprefix(_ANCHOR)
        # Decoders that put a space between words do so before the last anchor, unless the piece leaves a word open.
        return text.removesuffix(self._tail if text.endswith(self._tail) else _ANCHOR)

    def read(self, piece: str) -> str:
        """Returns a piece of the vocabulary as it stands in text."""
        if self.subwords:
            # Not by the decoder: some tidy up spaces before punctuation, and some do not.
            return piece.removeprefix(_SUBWORD) if piece.startswith(_SUBWORD) else f" {piece}"
        byte = None if self.byte_level else _BYTE.fullmatch(piece)
        if byte:
            return bytes.fromhex(byte[1]).decode("utf-8", errors="replace")
        return self(piece)

    def read_added(self, content: str) -> str:
        """Returns a token added to the vocabulary: its content is text, apart from the sign for a space."""
        if self.subwords:
            return self.read(content)
        return content.replace(self.space, " ") if self.space else content


def read_vocabulary(tokenizer: Any) -> Vocabulary:
    """Returns the string of each token id of any Hugging Face tokenizer, slow or fast.

    * Byte-level BPE: ``Ġfoo`` is `` foo``, ``Ċ`` a newline; a token that is a part of a character is U+FFFD.
    * SentencePiece: ``▁foo`` is `` foo``, ``<0x0A>`` a newline.
    * WordPiece, which does not keep spaces: ``##foo`` is ``foo``, and ``foo`` is `` foo``, since a token without ``##``
      starts a word; so does punctuation, wherever it stands.
    * Other kinds: as the tokenizer's own decoder has it.

    Args:
        tokenizer: Hugging Face tokenizer.

    Raises:
        InputError: it is none, or has no tokens.
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
