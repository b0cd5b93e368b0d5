import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from stagewise.errors import InputError
from stagewise.lm.classes.vocabulary import read_vocabulary
from tests.lm.classes import tokenizers_of_tests as families

BY_HAND = {
    "byte_level": (
        {"Ġfoo": " foo", "foo": "foo", "Ġ": " ", "Ċ": "\n", "ĉ": "\t", "Ã": "\ufffd", "(": "(", "   ": "   ", "é": "é"},
        {"<|end|>"},
    ),
    "byte_fallback": (
        {
            "▁foo": " foo",
            "foo": "foo",
            "▁": " ",
            "▁▁": "  ",
            "<0x0A>": "\n",
            "<0x41>": "A",
            "<0xC3>": "\ufffd",
            "1": "1",
        },
        {"<unk>", "<s>", "</s>"},
    ),
    "unigram": (
        {"▁foo": " foo", "foo": "foo", "▁": " ", "▁(": " (", "<0x0A>": "\n", "<0x20>": " ", "<0xFF>": "\ufffd"},
        {"<unk>", "</s>"},
    ),
    "word_piece": (
        {
            "foo": " foo",
            "##foo": "foo",
            "##s": "s",
            ".": " .",
            "(": " (",
            "12": " 12",
            "not": " not",
            "stage": " stage",
        },
        {"[PAD]", "[UNK]", "[SEP]"},
    ),
    "Slow": (
        {"▁foo": " foo", "foo": "foo", "<0x0A>": "\n", "▁": " ", "▁▁": "  ", "   ": "   "},
        {"<unk>"},
    ),
}


@pytest.mark.parametrize("family", BY_HAND)
def test_tokens_are_read_as_they_stand_in_text(family):
    tokenizer = getattr(families, family)()
    read = read_vocabulary(tokenizer)
    strings, special = BY_HAND[family]
    ids = tokenizer.get_vocab()
    assert len(read) == len(ids)
    assert {piece: read.strings[ids[piece]] for piece in strings} == strings
    assert {piece for piece, index in ids.items() if read.special[index]} == special
    assert all(read.strings[ids[piece]] == piece for piece in special)


def test_whether_the_decoder_tidies_up_does_not_matter():
    assert read_vocabulary(families.word_piece(True)).strings == read_vocabulary(families.word_piece(False)).strings


@pytest.mark.parametrize(
    ("family", "text", "start"),
    [
        ("byte_level", "foo foo(1)\n\t    foo  fo", ""),
        ("byte_fallback", "foo foo(1)\n\t    foo  fo", " "),
        ("unigram", "foo foobar   (foo\nfoo", " "),
    ],
)
def test_the_strings_of_an_encoded_text_make_up_the_text(family, text, start):
    """SentencePiece puts a space before the first word."""
    tokenizer = getattr(families, family)()
    read = read_vocabulary(tokenizer)
    assert "".join(read.strings[index] for index in tokenizer.encode(text, add_special_tokens=False)) == start + text


def test_ids_that_no_token_has_are_special():
    model = models.WordLevel({"<unk>": 0, "a": 1, "b": 4}, unk_token="<unk>")
    read = read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model)))
    assert read.special.tolist() == [False, False, True, True, False]
    assert (read.strings[2], read.strings[4]) == ("", " b")


def test_words_that_end_with_a_mark_are_read_by_the_tokenizers_own_decoder():
    tokenizer = Tokenizer(models.BPE({"fo": 0, "o</w>": 1}, [], end_of_word_suffix="</w>"))
    tokenizer.decoder = decoders.BPEDecoder()
    assert read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer)).strings == ("fo", "o ")


def test_what_is_no_tokenizer_is_refused():
    for wrong in ("gpt2", None, Tokenizer(models.BPE())):
        with pytest.raises(InputError, match="expected a Hugging Face tokenizer"):
            read_vocabulary(wrong)
    with pytest.raises(InputError, match="without tokens"):
        read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())))


def test_special_is_a_mask_over_ids():
    read = read_vocabulary(families.byte_level())
    assert read.special.dtype == torch.bool
    assert read.special.nonzero().tolist() == [[0]]
