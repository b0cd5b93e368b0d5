"""Settings that a run with sharded weights accepts or refuses."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from stagewise import InductionCallback, ProbeConfig, SGLDConfig
from stagewise.callbacks.ranks import Ranks
from stagewise.callbacks.settings_watch import SettingsWatch
from stagewise.callbacks.sharded_run import refuse_shards, sharding_of
from stagewise.errors import InputError
from stagewise.sampling.share import ChainShare
from stagewise.sampling.target import Target

SGLD = SGLDConfig(lr=1e-3, localization=100.0)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 2)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """In shards of one process."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    found = Net()
    fully_shard(found.net, mesh=init_device_mesh("cpu", (1,)))
    yield found
    dist.destroy_process_group()


def test_whole_weights_do_not_count_as_sharded():
    ranks = Ranks()
    assert sharding_of(Net(), ranks, SGLDConfig(), ProbeConfig()) is None
    assert not ranks.share.together


@pytest.mark.parametrize(
    ("sgld", "probe", "words"),
    [
        (replace(SGLD, lr="auto"), ProbeConfig(), "got lr=auto and localization=100.0 with weights in shards"),
        (replace(SGLD, localization="auto"), ProbeConfig(), "localization=auto with weights in shards"),
        (SGLD, ProbeConfig(damped_influence=True), "got damped_influence with weights in shards"),
    ],
)
def test_settings_that_need_second_derivatives_are_refused_by_name(module, sgld, probe, words):
    with pytest.raises(InputError, match=words):
        sharding_of(module, Ranks(), sgld, probe)


def test_numeric_settings_are_accepted_without_measuring_the_curvature(module):
    sharding = sharding_of(module, Ranks(), SGLD, ProbeConfig())
    assert (sharding.rank, sharding.world_size) == (0, 1)
    watch = SettingsWatch(SGLD, ProbeConfig())
    found = watch.before_probe(None, module, Target(None, None, sharding=sharding), 0, ranks=Ranks())
    assert (found.lr, found.localization, str(found.drift)) == (1e-3, 100.0, "control_variate")


def test_induction_scores_refuse_weights_in_shards(module):
    class Trainer:
        strategy = None

    refuse_shards(Trainer, Net(), "InductionCallback")
    with pytest.raises(InputError, match="got InductionCallback and NoneType, which keeps weights in shards"):
        refuse_shards(Trainer, module, "InductionCallback")
    with pytest.raises(InputError, match="leave InductionCallback out"):
        InductionCallback().on_fit_start(Trainer, module)


def test_all_processes_that_hold_shards_run_every_chain():
    shares = [ChainShare(rank, 3, may_idle=True, together=True) for rank in range(3)]
    assert [list(share.numbers(4)) for share in shares] == [[0, 1, 2, 3]] * 3
