"""Each family of models with each kind of tokenizer: five checkpoints, killed and taken up, against probes by hand."""

from pathlib import Path

import numpy as np
import pytest

from stagewise.losses.contract import resolve_loss
from stagewise.probes.prober import Prober
from stagewise.runs.open import open_run
from stagewise.sweep.config import TextSettings
from stagewise.sweep.results import write_results
from stagewise.sweep.study import prepare_sweep, run_cells
from tests.sweep.tiny import FAMILIES, model, text, tiny_config, tokenizer

STEPS = (1, 2, 4, 8, 16)


def sentencepiece():
    """Unigram with Metaspace, as T5's and Llama's of old."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<unk>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    inner.train_from_iterator(text().splitlines(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")


def wordpiece():
    """WordPiece, as BERT's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=80, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    inner.train_from_iterator(text().splitlines(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="[SEP]", unk_token="[UNK]")


TOKENIZERS = {"byte_level": tokenizer, "sentencepiece": sentencepiece, "wordpiece": wordpiece}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_five_checkpoints_resume_after_a_kill_and_equal_probes_at_the_same_weights(family, kind, tmp_path):
    folder = tmp_path / "checkpoints"
    for step in STEPS:
        model(family, seed=step).save_pretrained(folder / f"step{step}")
    TOKENIZERS[kind]().save_pretrained(folder)
    classes = {"numeric": "numeric", "word": {"pattern": "^ ?[a-z]+"}, "induction": "induction"}
    settings = TextSettings(context=16, num_observed=8, num_sampling=8, classes=classes)  # type: ignore[arg-type]
    config = tiny_config(tmp_path, folder, data=settings)

    def kill(line):
        if line.startswith("[3/5]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(prepare_sweep(config), kill)
    sweep, lines = prepare_sweep(config), []
    run_cells(sweep, lines.append)
    assert lines[0] == "3 of 5 cells are there already"
    write_results(sweep)
    found = open_run(config.output)
    assert found["step"].values.tolist() == list(STEPS)
    assert (Path(config.output) / "groups.csv").is_file()
    assert (Path(config.output) / "circuits.csv").is_file()
    # By hand: what the callback does at each probe, at the same weights.
    first = model(family, seed=STEPS[0]).eval()
    prober = Prober(first, resolve_loss(first), sweep.data, sgld=config.sgld, config=config.probe)
    before = None
    for step in STEPS[:3]:
        first.load_state_dict(model(family, seed=step).state_dict())
        measured, _ = prober.measure(first, step)
        assert measured is not None
        by_hand = prober.assemble(measured, before)
        np.testing.assert_allclose(found["group_bif"].sel(step=step), by_hand["group_bif"], rtol=1e-9)
        before = measured.features
