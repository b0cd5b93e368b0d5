"""Files of one run are apart from those of others, whatever the logger."""

import pytest
from lightning.pytorch.loggers.logger import Logger

from stagewise import InfluenceCallback, InputError, open_run
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
