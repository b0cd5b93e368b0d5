"""Cells on the workers of real clusters of this machine, where their packages are there: see ``make test-clusters``."""

import os

import pytest
import xarray as xr

from stagewise.errors import InputError
from stagewise.jobs.sharing import Backend, register, shared
from stagewise.runs.open import open_run
from stagewise.sweep.config import CircuitSettings
from tests.jobs.cluster_tasks import refuses, worker
from tests.sweep.tiny import save_checkpoints, swept, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def dask_cluster():
    """A scheduler with two workers, of which no client is made."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture
def dask_address(dask_cluster):
    """As ``DASK_SCHEDULER_ADDRESS`` sets it before a process starts."""
    import dask

    with dask.config.set({"scheduler-address": dask_cluster.scheduler_address}):
        yield dask_cluster.scheduler_address


@pytest.fixture(scope="module")
def ray_cluster():
    """Ray with two workers, to which this process is connected."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(params=[Backend.dask, Backend.ray])
def backend(request):
    request.getfixturevalue({Backend.dask: "dask_address", Backend.ray: "ray_cluster"}[request.param])
    return request.param


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Checkpoints, and the sweep over them that one process makes."""
    folder = tmp_path_factory.mktemp("alone")
    checkpoints = save_checkpoints(folder / "checkpoints", steps=(1, 2))
    config = tiny_config(folder, checkpoints, circuits=CircuitSettings(enabled=False))
    swept(config)
    return checkpoints, open_run(config.output)


# First, while this process is connected to none.
@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_backend_without_a_cluster_is_refused_by_name(name):
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[name])
    with pytest.raises(InputError, match={"dask": "DASK_SCHEDULER_ADDRESS", "ray": "ray start --head"}[name]):
        register(Backend(name))


def test_a_sweep_on_a_cluster_finds_what_one_process_finds(backend, alone, tmp_path):
    checkpoints, expected = alone
    lines: list[str] = []
    config = tiny_config(tmp_path, checkpoints, circuits=CircuitSettings(enabled=False), num_workers=2, backend=backend)
    swept(config, lines.append)
    assert len(lines) == 3  # the cost, and two cells
    found, expected = open_run(config.output), expected.copy()
    for run in (found, expected):
        run.attrs.pop("summary")
    xr.testing.assert_identical(found.drop_vars("seconds"), expected.drop_vars("seconds"))


def test_two_workers_share_the_tasks_and_results_come_as_they_end(backend):
    register(backend)
    # The first task ends after some of the others.
    tasks = [(0, 2.0), *((number, 0.2) for number in range(1, 6))]
    found = list(shared(worker, tasks, num_workers=2, backend=backend))
    assert sorted(number for number, _ in found) == list(range(6))
    assert found[0][0] != 0
    processes = {process for _, process in found}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_what_a_task_refuses_is_said_as_it_is(backend):
    register(backend)
    with pytest.raises(InputError, match=r"^got number 1; expected another; choose it$"):
        list(shared(refuses, [(number,) for number in range(4)], num_workers=2, backend=backend))


def test_a_scheduler_given_by_its_address_is_left_when_the_cells_are_done(dask_address):
    import distributed

    register(Backend.dask)
    assert len(list(shared(worker, [(0, 0), (1, 0)], num_workers=2, backend=Backend.dask))) == 2
    with pytest.raises(ValueError, match="No global client found"):
        distributed.get_client()
