import pytest
import torch

from stagewise.jobs.building import build_data, build_module
from stagewise.lm.copying import ov_weights
from stagewise.studies.intervention.measures import ablate_best_head, group_losses
from tests.studies.intervention.tiny import DATA, MODEL


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    module = build_module(MODEL).eval()
    return module, build_data(DATA, seed=3, num_observed=70).probe_data()


def test_group_losses_are_those_of_one_forward_pass(trained):
    """140 sequences: more than one batch, the last one not full."""
    module, data = trained
    with torch.no_grad():
        losses, _ = module.per_sample_loss(data.observed)
    found = group_losses(module, data)
    assert set(found) == {"induction", "background", "first_copy"}
    for name, mask in data.groups.items():
        assert found[name] == pytest.approx(losses[mask].double().mean().item(), rel=1e-6)


def test_the_ablated_head_is_the_one_with_the_best_score(trained):
    module, data = trained
    scores = torch.tensor([[0.1, 0.2], [0.7, 0.3]])
    found = ablate_best_head(module, data, scores, group="induction", loss=1.5)
    assert (found.layer, found.head, found.loss) == (1, 0, 1.5)
    before = ov_weights(module.model)[1][1][0].clone()
    with torch.no_grad():
        ov_weights(module.model)[1][1][0].zero_()
        expected = group_losses(module, data)["induction"]
        ov_weights(module.model)[1][1][0].copy_(before)
    assert found.loss_without == pytest.approx(expected, rel=1e-6)
