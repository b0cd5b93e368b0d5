"""One tokenizer of each family, with a vocabulary written by hand."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

BYTES = [f"<0x{value:02X}>" for value in range(256)]


def _wrapped(tokenizer, **special):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def byte_level():
    """Bytes, two merges, and a run of spaces that was added later, as GPT-NeoX has them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<|end|>", *alphabet, "fo", "foo", "Ġfoo"]
    merges = [("f", "o"), ("fo", "o"), ("Ġ", "foo")]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("   ", normalized=False), AddedToken("é", normalized=False)])
    return _wrapped(tokenizer, eos_token="<|end|>")


def byte_fallback():
    """BPE over ``▁`` pieces with a token for each byte, as Llama has it."""
    pieces = ["<unk>", "<s>", "</s>", *BYTES, "▁", "f", "o", "fo", "foo", "▁foo", "▁▁", "(", "1"]
    merges = [("f", "o"), ("fo", "o"), ("▁", "foo"), ("▁", "▁")]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _wrapped(tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def unigram():
    """Unigram with Metaspace, as T5 has it; its decoder knows nothing of the byte tokens."""
    pieces = ["<unk>", "</s>", *BYTES, "▁", "▁foo", "foo", "bar", "▁("]
    scores = [0.0, 0.0, *[-9.0] * 256, -2.0, -1.0, -1.5, -1.5, -1.0]
    model = models.Unigram(list(zip(pieces, scores, strict=True)), 0, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _wrapped(tokenizer, unk_token="<unk>", eos_token="</s>")


def word_piece(cleanup=True):
    """WordPiece, as BERT has it; with ``cleanup`` the decoder drops spaces before punctuation."""
    pieces = ["[PAD]", "[UNK]", "[SEP]", "foo", "##foo", "##s", ".", "(", "12", "do", "not"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=cleanup)
    tokenizer.add_tokens(["stage"])
    return _wrapped(tokenizer, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]")


class Slow(PreTrainedTokenizer):
    """A slow tokenizer of SentencePiece's kind, whose decoder strips the text at both ends."""

    pieces = ("<unk>", "▁foo", "foo", "<0x0A>", "▁", "▁▁")

    def __init__(self):
        super().__init__(unk_token="<unk>")
        self.add_tokens(["   "])

    vocab_size = property(lambda self: len(self.pieces))

    def get_vocab(self):
        return {piece: index for index, piece in enumerate(self.pieces)} | self.added_tokens_encoder

    def _convert_token_to_id(self, token):
        return self.pieces.index(token) if token in self.pieces else 0

    def _convert_id_to_token(self, index):
        return self.pieces[index]

    def convert_tokens_to_string(self, tokens):
        return "".join(tokens).replace("▁", " ").strip()
