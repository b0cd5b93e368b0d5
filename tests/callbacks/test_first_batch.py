"""Comparison of the probed batch with the first training batch, before the first step."""

import pytest
import torch
from torch.utils.data import DataLoader

from stagewise import InfluenceCallback, InputError, ProbeSchedule
from stagewise.callbacks.first_batch import Strictness, check_first_batch, describe, difference
from tests.callbacks.runs import SGLD, Regression, X, Y, regression_data
from tests.callbacks.test_transfer import fit

pytestmark = pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*log_every")
SCHEDULE = ProbeSchedule(at_steps=[2])


@pytest.mark.parametrize(
    ("probed", "training", "words"),
    [
        ((X, Y), (X[:8], Y[:8]), None),
        ({"x": X}, {"x": X[:8], "w": Y[:8]}, "batch['w'] is nothing in the probes and a float32 tensor with 2 axes"),
        ({"x": X, "w": Y}, {"x": X[:8]}, "batch['w'] is a float32 tensor with 2 axes in the probes and nothing"),
        ((X.double(), Y), (X, Y), "batch[0] is a float64 tensor with 2 axes in the probes and a float32 tensor"),
        ((X[..., None], Y), (X, Y), "with 3 axes in the probes and a float32 tensor with 2 axes in training"),
        ((X, None), (X, Y), "batch[1] is None in the probes"),
        ((X, ["a"] * 80), (X, Y), "batch[1] is a list in the probes"),
        ((X, 1), (X, 2.5), None),
        ((X, X.numpy()), (X, X), "batch[1] is a float32 array"),
    ],
)
def test_differences_are_described(probed, training, words):
    found = difference(describe(probed), describe(training))
    assert (found is None) == (words is None)
    assert words is None or words in found


def test_strictness_determines_the_reaction_to_a_difference():
    with pytest.raises(InputError, match=r"unlike the first training batch: batch\[0\].*pass observed= and sampling="):
        check_first_batch((X.double(),), (X,), Strictness.refuse)
    with pytest.warns(UserWarning, match=r"stagewise: batch\[0\] is a float64"):
        check_first_batch((X.double(),), (X,), Strictness.warn)
    check_first_batch((X.double(),), (X,), Strictness.ignore)
    check_first_batch((X,), (X[:, :2],), Strictness.refuse)  # padded to another length
    check_first_batch((X,), None, Strictness.refuse)


def test_groups_for_an_intervention_do_not_count_as_a_difference():
    flags = Y[:8, 0] > 0
    check_first_batch({"x": X}, {"x": X[:8], "groups": {"a": flags, "b": ~flags}}, Strictness.refuse)
    for other in ({"a": Y[:8]}, flags):  # a user's own
        with pytest.raises(InputError, match=r"batch\['groups'\].* is nothing in the probes"):
            check_first_batch({"x": X}, {"x": X[:8], "groups": other}, Strictness.refuse)
    with pytest.raises(InputError, match=r"in the probes and nothing"):
        check_first_batch({"x": X, "groups": {"a": flags}}, {"x": X[:8]}, Strictness.refuse)


class Doubling(DataLoader):
    """Loader whose batches differ from those of its data set and collate function."""

    def __iter__(self):
        for batch in super().__iter__():
            yield [batch[0], batch[1], batch[0]]


class Either(Regression):
    """Module that accepts both structures."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return super().training_step(batch, batch_idx)


def test_a_loader_with_another_structure_is_refused_before_the_first_step(tmp_path):
    module = Either()
    with pytest.raises(InputError, match=r"batch\[2\] is nothing in the probes and a float32 tensor with 2 axes"):
        fit(tmp_path, module, [InfluenceCallback(SCHEDULE, SGLD)], Doubling(regression_data(), 8))
    assert module.steps == 0


def test_given_data_with_another_structure_is_reported_once(tmp_path):
    module = Either()
    callback = InfluenceCallback(SCHEDULE, SGLD, observed=(X[:10], Y[:10]), sampling=(X, Y))
    with pytest.warns(UserWarning, match=r"stagewise: batch\[2\] is nothing in the probes") as told:
        fit(tmp_path, module, [callback], Doubling(regression_data(), 8))
    assert sum("in the probes" in str(item.message) for item in told) == 1
    assert module.steps == 4


def test_given_data_with_its_own_loss_may_have_any_structure(tmp_path, recwarn):
    def loss_fn(module, batch):
        return module.layer(batch["x"]).square()[:, 0]

    callback = InfluenceCallback(SCHEDULE, SGLD, observed={"x": X[:10]}, sampling={"x": X}, loss_fn=loss_fn)
    fit(tmp_path, Either(), [callback])
    assert not any("in the probes" in str(item.message) for item in recwarn)


def test_equal_structure_causes_no_message(tmp_path, recwarn):
    fit(tmp_path, Regression(), [InfluenceCallback(SCHEDULE, SGLD)])
    assert not any("in the probes" in str(item.message) for item in recwarn)
    assert torch.is_tensor(X)
