import pytest
import torch

from stagewise.errors import InputError
from stagewise.toy.data import HierarchyData
from stagewise.toy.descent import item_losses, trajectory
from stagewise.toy.module import DeepLinear
from tests.quiet_trainer import quiet_trainer
from tests.toy.networks import SMALL, targets


def test_loss_of_the_module_is_that_of_plain_matrix_algebra():
    module, data = DeepLinear(3, len(SMALL.properties), init_std=0.5, seed=3), HierarchyData(SMALL, 5)
    torch.testing.assert_close(module.per_sample_loss(data.batch).detach(), item_losses(module.weights, targets()))


def test_training_by_lightning_equals_plain_gradient_descent(tmp_path):
    module, data = (
        DeepLinear(3, len(SMALL.properties), hidden=5, init_std=0.2, lr=0.1, seed=4),
        HierarchyData(SMALL, 30),
    )
    expected = trajectory(module.weights, targets(), lr=0.1, num_steps=30)
    trainer = quiet_trainer(precision="64-true", max_steps=30, logger=False, default_root_dir=tmp_path)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 30
    torch.testing.assert_close(module.weights.first, expected.first[30], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(module.weights.second, expected.second[30], rtol=1e-12, atol=1e-14)


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(0)
    one = DeepLinear(3, 6, seed=7).weights
    torch.manual_seed(1)
    assert torch.equal(one.first, DeepLinear(3, 6, seed=7).weights.first)
    assert not torch.equal(one.first, DeepLinear(3, 6, seed=8).weights.first)


def test_building_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    DeepLinear(3, 6, seed=7)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("bad", [{"hidden": 0}, {"init_std": 0.0}, {"lr": -1.0}, {"seed": -1}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(InputError, match="expected"):
        DeepLinear(3, 6, **bad)


def test_each_item_is_observed_as_a_group_of_its_own():
    data = HierarchyData(SMALL, 4).probe_data()
    assert list(data.groups) == list(SMALL.items)
    assert [mask.nonzero().item() for mask in data.groups.values()] == [0, 1, 2]
    with pytest.raises(InputError, match="num_steps"):
        HierarchyData(SMALL, 0)
