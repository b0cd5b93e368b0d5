from itertools import islice

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from stagewise.errors import InputError
from stagewise.lm.data import TokenRows
from stagewise.loading.loader import ResumableLoader


def _rows(num=40):
    return TokenRows(torch.arange(num)[:, None].expand(num, 3).contiguous())


def _seen(loader, limit=None):
    return [batch["input_ids"][:, 0].tolist() for batch in islice(loader, limit)]


def test_every_epoch_is_a_permutation_of_its_own():
    loader = ResumableLoader(_rows(), 8, seed=3)
    first, second = _seen(loader), _seen(loader)
    for epoch in (first, second):
        assert sorted(index for batch in epoch for index in batch) == list(range(40))
    assert first != second
    again = ResumableLoader(_rows(), 8, seed=3)
    assert [_seen(again), _seen(again)] == [first, second]
    assert _seen(ResumableLoader(_rows(), 8, seed=4)) != first


def test_without_shuffling_the_order_is_kept_and_the_rest_served():
    assert _seen(ResumableLoader(_rows(10), 4, shuffle=False, drop_last=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("consumed", [1, 3, 5, 7])
def test_a_loader_goes_on_where_its_state_was_taken(consumed):
    whole = ResumableLoader(_rows(), 8, seed=1)
    expected = [*_seen(whole), *_seen(whole)]
    stopped = ResumableLoader(_rows(), 8, seed=1)
    before = _seen(stopped, min(consumed, 5))
    if consumed > 5:
        before += _seen(stopped, consumed - 5)
    resumed = ResumableLoader(_rows(), 8, seed=1)
    resumed.load_state_dict(stopped.state_dict())
    after = _seen(resumed)
    after += _seen(resumed) if consumed < 5 else []
    assert before + after == expected


def test_orders_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    _seen(ResumableLoader(_rows(), 8))
    assert torch.equal(before, torch.get_rng_state())


def test_a_state_of_another_seed_and_too_little_data_are_refused():
    with pytest.raises(InputError, match="set the data's seed to 1"):
        ResumableLoader(_rows(), 8, seed=2).load_state_dict(ResumableLoader(_rows(), 8, seed=1).state_dict())
    with pytest.raises(InputError, match="at least one full batch"):
        ResumableLoader(_rows(3), 8)


class _Sums(pl.LightningModule):
    """Its weights depend on every batch and on their order."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["input_ids"][:, 0].tolist())
        return self.layer(batch["input_ids"] / 40.0).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def _fit(tmp_path, *, max_steps, num_workers=0, checkpoint=None, every=None, **settings):
    torch.manual_seed(0)
    module = _Sums()
    saving = [ModelCheckpoint(tmp_path, every_n_train_steps=every, save_top_k=-1, filename="{step}")] if every else []
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        logger=False,
        enable_checkpointing=bool(saving),
        callbacks=saving,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, ResumableLoader(_rows(), 8, seed=5, num_workers=num_workers), ckpt_path=checkpoint)
    return module


@pytest.mark.parametrize("step", [3, 5, 8, 10])
@pytest.mark.parametrize("limit", [None, 4])
def test_a_run_resumed_by_lightning_equals_one_that_never_stopped(tmp_path, step, limit):
    settings = {} if limit is None else {"limit_train_batches": limit}
    whole = _fit(tmp_path, max_steps=14, every=1, **settings)
    resumed = _fit(tmp_path, max_steps=14, checkpoint=tmp_path / f"step={step}.ckpt", **settings)
    assert resumed.seen == whole.seen[step:]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("stops", [(5, 10), (5, 10, 12), (10, 15), (5, 8, 10, 15)])
def test_a_run_resumed_at_the_ends_of_several_epochs_equals_one_that_never_stopped(tmp_path, stops):
    """Lightning's count of epochs falls behind there."""
    whole = _fit(tmp_path / "whole", max_steps=18, every=1)
    folder = tmp_path / "whole"
    for number, step in enumerate(stops):
        checkpoint = folder / f"step={step}.ckpt"
        folder = tmp_path / str(number)
        resumed = _fit(folder, max_steps=18, every=1, checkpoint=checkpoint)
        assert resumed.seen == whole.seen[step:]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.slow
def test_prefetching_workers_do_not_move_the_place_to_resume_at(tmp_path):
    whole = _fit(tmp_path, max_steps=9, every=1, num_workers=1)
    resumed = _fit(tmp_path, max_steps=9, checkpoint=tmp_path / "step=7.ckpt", num_workers=1)
    assert resumed.seen == whole.seen[7:]
