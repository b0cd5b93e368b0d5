"""Sources of the observed set, the sampling set and the groups."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from stagewise import (
    CollatedLoss,
    InfluenceCallback,
    InputError,
    ProbeData,
    ProbeSchedule,
    ReweightedLoader,
    SGLDConfig,
    open_run,
)
from tests.callbacks.runs import EVERY_2, SGLD, Regression, X, Y, fit, regression_data
from tests.quiet_trainer import quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore")


def test_observed_set_and_groups_can_be_given(tmp_path):
    x, y = regression_data(10).tensors
    groups = {"first": torch.arange(10) < 5, "last": torch.arange(10) >= 5}
    callback = InfluenceCallback(EVERY_2, SGLD, observed=(x, y), sampling=regression_data(), groups=groups)
    run = open_run(fit(tmp_path, Regression(), regression_data(), callback).log_dir)
    assert run["group"].values.tolist() == ["first", "last"]
    assert run.sizes["sample"] == 10


def test_training_set_may_be_a_plain_list(tmp_path):
    samples = [tuple(sample) for sample in regression_data(20)]
    run = open_run(fit(tmp_path, Regression(), samples, InfluenceCallback(EVERY_2, SGLD)).log_dir)
    assert run.sizes["sample"] == 20


def test_training_stream_without_a_length_needs_an_observed_set(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(regression_data())

    def train(callback):
        trainer = pl.Trainer(accelerator="cpu", max_steps=4, callbacks=[callback], default_root_dir=tmp_path)
        trainer.fit(Regression(), DataLoader(Stream(), 8))
        return open_run(trainer.log_dir)

    with pytest.raises(InputError, match=r"got nothing to observe.*; expected InfluenceCallback\(observed"):
        train(InfluenceCallback(EVERY_2, SGLD))
    assert train(InfluenceCallback(EVERY_2, SGLD, observed=(X[:9], Y[:9]))).sizes["sample"] == 9


class WithProbeData(pl.LightningDataModule):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def train_dataloader(self):
        return DataLoader(regression_data(), 8)

    def probe_data(self):
        return self.answer


def fit_with(folder, data):
    callback = InfluenceCallback(EVERY_2, SGLD)
    trainer = pl.Trainer(accelerator="cpu", max_steps=2, callbacks=[callback], default_root_dir=folder)
    trainer.fit(Regression(), data)
    return open_run(trainer.log_dir)


def test_the_data_module_can_provide_the_probe_data(tmp_path):
    data = WithProbeData(ProbeData((X[:7], Y[:7]), groups={"g": torch.arange(7) < 3}))
    assert fit_with(tmp_path, data).sizes["sample"] == 7


def test_arguments_take_precedence_over_the_data_module(tmp_path):
    callback = InfluenceCallback(EVERY_2, SGLD, groups={"mine": torch.arange(7) > 2})
    trainer = pl.Trainer(accelerator="cpu", max_steps=2, callbacks=[callback], default_root_dir=tmp_path)
    trainer.fit(Regression(), WithProbeData(ProbeData((X[:7], Y[:7]))))
    assert open_run(trainer.log_dir)["group"].values.tolist() == ["mine"]


def test_a_data_module_that_provides_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="ProbeData"):
        fit_with(tmp_path, WithProbeData("nothing"))


class Counted(torch.utils.data.Dataset):
    """Data set whose targets are the numbers of its samples."""

    def __len__(self):
        return 300

    def __getitem__(self, index):
        return torch.full((3,), index / 300), torch.tensor([float(index)])


def seen_by_probes(folder, loader, **settings):
    """Returns the numbers of the observed and the driving samples that the loss receives."""
    seen = {}
    callback = InfluenceCallback(EVERY_2, SGLD, **settings)

    class Spy(pl.Callback):
        def on_train_start(self, trainer, module):
            target = callback._session.subject.target
            seen["observed"] = target.observed[1].flatten().int().tolist()
            seen["sampling"] = target.driving[1].flatten().int().tolist()

    trainer = quiet_trainer(max_steps=2, callbacks=[callback, Spy()], default_root_dir=folder)
    trainer.fit(Regression(), loader)
    run = open_run(trainer.log_dir)
    assert run.sizes["sample"] == len(seen["observed"])
    return seen


def test_probes_observe_samples_drawn_by_the_training_sampler(tmp_path):
    sampler = torch.utils.data.SubsetRandomSampler(range(100, 200))
    seen = seen_by_probes(tmp_path, DataLoader(Counted(), 8, sampler=sampler))
    assert seen == {"observed": list(range(100, 164)), "sampling": list(range(100, 200))}


def test_probes_of_a_reweighted_loader_are_those_of_the_whole_set(tmp_path):
    loader = ReweightedLoader(Counted(), {"even": torch.arange(300) % 2 == 0}, 8)
    seen = seen_by_probes(tmp_path, loader)
    assert seen == {"observed": list(range(64)), "sampling": list(range(300))}


def test_the_order_of_training_is_unchanged_with_a_custom_sampler(tmp_path):
    from tests.loading.test_draw import Shuffled

    orders = []
    for callbacks in ([], [InfluenceCallback(EVERY_2, SGLD)]):
        order = []

        class Witness(pl.Callback):
            def on_train_batch_start(self, trainer, module, batch, batch_idx, order=order):
                order.append(batch[1].flatten().tolist())

        pl.seed_everything(3, verbose=False)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=12,
            callbacks=[*callbacks, Witness()],
            default_root_dir=tmp_path / str(len(callbacks)),
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(Regression(), DataLoader(Counted(), 8, sampler=Shuffled(50, 110)))
        orders.append(order)
    assert orders[0] == orders[1]
    assert len(orders[0]) == 12


def test_a_stream_with_an_observed_set_warns_about_the_driving_data(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(regression_data())

    with pytest.warns(UserWarning, match=r"no sampling= is given.*a stream, Stream.*the observed set alone drive"):
        fit_stream(tmp_path, Stream(), observed=(X[:9], Y[:9]))
    with pytest.raises(InputError, match=r"got an iterable data set.*sampling= \(drives chains\)"):
        fit_stream(tmp_path, regression_data(), observed=Stream())


def fit_stream(folder, dataset, **settings):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[InfluenceCallback(EVERY_2, SGLD, **settings)],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(Regression(), DataLoader(dataset, 8))
    return trainer


def test_stream_without_a_length_and_max_epochs_is_a_run_of_unknown_length(tmp_path):
    """Lightning estimates -1 steps for it, which no schedule would fit into."""
    from stagewise.callbacks.trainer_facts import max_steps

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(regression_data())

    trainer = fit_stream(tmp_path, Stream(), observed=(X[:9], Y[:9]))
    assert open_run(trainer.log_dir)["step"].values.tolist() == [2, 4, 6, 8, 10]
    assert max_steps(trainer) == float("inf")


def test_names_next_to_tensors_stay_with_their_samples(tmp_path):
    names = [f"s{index}" for index in range(80)]
    samples = [(*pair, name) for pair, name in zip(regression_data(), names, strict=True)]
    wrong = []

    def loss_fn(module, batch):
        x, y, held = batch
        where = [names.index(name) for name in held]
        wrong.extend(name for name, row, at in zip(held, x, where, strict=True) if not torch.equal(row, X[at]))
        return module.per_sample_loss((x, y))

    callback = InfluenceCallback(EVERY_2, replace(SGLD, engine="auto"), loss_fn=loss_fn)
    run = open_run(fit(tmp_path, Regression(), samples, callback).log_dir)
    assert run.sizes["sample"] == 64
    assert wrong == []
    with pytest.raises(InputError, match=r"lists or arrays beside its tensors.*set engine to sequential"):
        fit(
            tmp_path / "batched",
            Regression(),
            samples,
            InfluenceCallback(EVERY_2, replace(SGLD, engine="batched"), loss_fn=loss_fn),
        )


RAGGED = [(torch.full((1 + index % 4, 3), index / 80), torch.tensor([1.0])) for index in range(80)]


def collate_ragged(samples):
    return [x for x, _ in samples], torch.stack([y for _, y in samples])


class Pooled(Regression):
    """Module for lists of sets of unequal size, which cannot be sliced into samples."""

    def per_sample_loss(self, batch):
        means = torch.stack([self.layer(x).mean() for x in batch[0]])
        return (means - batch[1][:, 0]).square()


def fit_ragged(folder, callback):
    pl.seed_everything(1, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=4,
        callbacks=[callback],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    sampler = torch.utils.data.SubsetRandomSampler(range(20, 80))
    module = Pooled()
    trainer.fit(module, DataLoader(RAGGED, 8, sampler=sampler, collate_fn=collate_ragged))
    return module, open_run(trainer.log_dir)


def test_ragged_lists_are_refused_with_advice_that_works(tmp_path):
    with pytest.raises(InputError, match=r"leading sizes.*loss_fn=stagewise.CollatedLoss\(dataset"):
        fit_ragged(tmp_path, InfluenceCallback(EVERY_2, SGLD))
    loss_fn = CollatedLoss(RAGGED, collate_fn=collate_ragged)
    module, drawn = fit_ragged(tmp_path, InfluenceCallback(EVERY_2, SGLD, loss_fn=loss_fn))
    expected = module.per_sample_loss(collate_ragged(RAGGED[20:80])).detach()
    torch.testing.assert_close(torch.from_numpy(drawn["anchor_loss"].values[-1]), expected)


def test_indices_work_with_any_loss_that_collates_them(tmp_path):
    def loss_fn(module, index):
        return module.per_sample_loss(collate_ragged([RAGGED[i] for i in index]))

    groups = {"first": torch.arange(10) < 5, "last": torch.arange(10) >= 5}
    index = torch.arange(30, 40)
    callback = InfluenceCallback(
        EVERY_2, SGLD, observed=index, sampling=torch.arange(20, 80), groups=groups, loss_fn=loss_fn
    )
    module, run = fit_ragged(tmp_path, callback)
    torch.testing.assert_close(torch.from_numpy(run["anchor_loss"].values[-1]), loss_fn(module, index).detach())
    assert run["group"].values.tolist() == ["first", "last"]
    with pytest.raises(InputError, match=r"as indices are, and no sampling=.*expected indices in both"):
        fit_indices_alone(tmp_path / "alone", loss_fn)


def fit_indices_alone(folder, loss_fn):
    callback = InfluenceCallback(EVERY_2, SGLD, observed=torch.arange(9), loss_fn=loss_fn)
    fit(folder, Regression(), regression_data(), callback)


def test_auto_is_resolved_and_curvature_calibrated_over_collated_indices(tmp_path):
    from stagewise.callbacks.calibration import CalibrationRun, CalibrationSettings

    loss_fn = CollatedLoss(RAGGED, collate_fn=collate_ragged)
    auto = SGLDConfig(num_chains=2, num_draws=8, batch_size=8)
    callback = InfluenceCallback(ProbeSchedule(at_steps=[2]), auto, loss_fn=loss_fn)
    fit_ragged(tmp_path / "auto", callback)
    assert isinstance(callback.sgld.lr, float)
    influence = InfluenceCallback(EVERY_2, auto, loss_fn=loss_fn)
    calibration = CalibrationRun(influence, CalibrationSettings(num_steps=2, num_chains=2, num_draws=8))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=4,
        callbacks=[calibration],
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(Pooled(), DataLoader(RAGGED, 8, collate_fn=collate_ragged))
    assert calibration.result.proposal.localization > 0
    assert len(calibration.result.traces) == 2
