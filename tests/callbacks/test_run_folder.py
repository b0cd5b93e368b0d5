"""Files of one run are apart from those of others, whatever the logger."""

import copy
from pathlib import Path

import pytest
from lightning.pytorch.loggers.logger import Logger

from stagewise import InfluenceCallback, InputError, open_run
from tests.callbacks.interventions import intervention, train
from tests.callbacks.runs import EVERY_2, SGLD, Regression, fit, regression_data

pytestmark = pytest.mark.filterwarnings("ignore")


class Shared(Logger):
    """As loggers of services are: one save_dir for all runs, and an id for each of them."""

    def __init__(self, folder, version):
        super().__init__()
        self.folder, self.id = folder, version
        self.rows = []

    @property
    def name(self):
        return "project"

    @property
    def version(self):
        return self.id

    @property
    def save_dir(self):
        return str(self.folder)

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))

    def log_hyperparams(self, params, *args, **kwargs):
        pass


def run(folder, version, **settings):
    callback = InfluenceCallback(EVERY_2, SGLD, **settings)
    logger = Shared(folder, version)
    fit(folder, Regression(), regression_data(), callback, max_steps=2, logger=logger)
    return callback, logger


@pytest.mark.parametrize(
    ("versions", "names"), [(("abc", "def"), ("abc", "def")), ((3, 4), ("version_3", "version_4"))]
)
def test_runs_that_share_a_log_directory_have_folders_of_their_own(tmp_path, versions, names):
    for version, name in zip(versions, names, strict=True):
        callback, logger = run(tmp_path, version)
        assert callback.folder == tmp_path / "project" / name
        assert open_run(callback.folder)["step"].values.tolist() == [2]
        assert "influence/within/all~all" in logger.rows[-1][1]


def test_same_run_again_is_refused(tmp_path):
    run(tmp_path, "abc")
    with pytest.raises(InputError, match=r"already holds 1 probes.*output_dir"):
        run(tmp_path, "abc")


def test_logger_without_a_version_writes_beside_it_once(tmp_path):
    assert run(tmp_path, None)[0].folder == tmp_path
    with pytest.raises(InputError, match="already holds 1 probes"):
        run(tmp_path, None)


def test_given_folder_is_the_folder(tmp_path):
    assert run(tmp_path, "abc", output_dir=str(tmp_path / "mine"))[0].folder == tmp_path / "mine"


def test_deep_copies_know_the_folder_and_what_was_measured(tmp_path):
    callback = InfluenceCallback(EVERY_2, SGLD)
    twin = copy.deepcopy(callback)
    assert twin.folder is None
    trainer = fit(tmp_path, Regression(), regression_data(), callback, max_steps=2)
    after = copy.deepcopy(callback)
    assert after.folder == callback.folder == Path(trainer.log_dir)
    state, kept = after.state_dict(), callback.state_dict()
    assert state["record"] == kept["record"]
    assert state["fingerprint"] == kept["fingerprint"]
    assert after.sgld == callback.sgld


def test_a_callback_whose_copy_trained_tells_the_folder_of_the_copy(tmp_path):
    """As darts and neuralforecast train a copy of what they are given."""
    given = InfluenceCallback(EVERY_2, SGLD)
    copies = [copy.deepcopy(given) for _ in range(2)]
    for number, trained in enumerate(copies):
        fit(tmp_path / str(number), Regression(), regression_data(), trained, max_steps=2)
        assert given.folder == trained.folder
    assert copies[0].folder != copies[1].folder
    assert open_run(given.folder)["step"].values.tolist() == [2]


def test_an_intervention_is_copied_with_its_plan(tmp_path):
    trained = intervention()
    train(tmp_path, [trained])
    assert copy.deepcopy(trained).plan.state_dict() == trained.plan.state_dict()
    # A copy can be trained in its place.
    again = copy.deepcopy(intervention())
    train(tmp_path / "again", [again])
    assert again.plan.state_dict() == trained.plan.state_dict()
