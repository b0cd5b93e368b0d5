"""The public face: what it holds, and that it loads nothing before it is asked."""

import ast
import json
import pickle
import subprocess
import sys
from importlib import import_module
from inspect import getdoc
from pathlib import Path

import pytest

import stagewise

HEAVY = ("lightning", "pytorch_lightning", "transformers", "matplotlib", "torch", "numpy", "xarray", "jsonargparse")

TOLD = """
import json, os, sys
times = os.times()
heavy = [name for name in sys.argv[1:] if name in sys.modules]
print(json.dumps([heavy, times.user + times.system]))
"""

COMMANDS = {
    "import stagewise": "import stagewise",
    "stagewise --help": "from stagewise.cli.main import main; main(['--help'])",
    "stagewise --version": "from stagewise.cli.main import main; main(['--version'])",
    "stagewise without a command": "from stagewise.cli.main import main; main([])",
    "a command that is not there": "from stagewise.cli.main import main; main(['fitt'])",
    "the names": "import stagewise; dir(stagewise); stagewise.InputError",
}


def outcome(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_heavy_is_loaded_for(name):
    heavy, seconds = json.loads(outcome(COMMANDS[name] + TOLD, *HEAVY))
    assert heavy == []
    assert seconds < 0.3


@pytest.mark.parametrize("command", [pytest.param("detect", marks=pytest.mark.slow), "report"])
def test_commands_that_read_a_run_load_no_lightning(command):
    code = f"""
from stagewise.cli.main import main
try:
    main([{command!r}, "--help"])
except SystemExit:
    pass
"""
    heavy, _ = json.loads(outcome(code + TOLD, "lightning", "pytorch_lightning", "transformers"))
    assert heavy == []


def test_python_m_stagewise_tells_the_commands():
    done = subprocess.run([sys.executable, "-m", "stagewise", "--help"], capture_output=True, text=True, check=True)
    assert "stagewise COMMAND" in done.stdout


def test_every_public_name_is_there_documented_and_seen_by_type_checkers():
    assert len(stagewise.__all__) == len(set(stagewise.__all__)) <= 40
    assert set(stagewise.__all__) <= set(dir(stagewise))
    tree = ast.parse(Path(stagewise.__file__).read_text())
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("stagewise.")
        for alias in node.names
        if alias.name == alias.asname
    }
    assert set(seen) == set(stagewise.__all__)
    for name, module in seen.items():
        value = getattr(stagewise, name)
        assert value is getattr(import_module(module), name)
        # Where it is defined, not merely imported.
        assert name == "__version__" or value.__module__ == module
        assert getdoc(value)


def test_a_star_import_gives_them_all():
    names = {}
    exec("from stagewise import *", names)
    assert set(stagewise.__all__) <= set(names)


@pytest.mark.parametrize("name", stagewise._MOVED)
def test_a_name_that_has_left_says_where_it_is(name):
    assert not hasattr(stagewise, name)
    with pytest.raises(AttributeError, match=rf"it has moved: from stagewise\.\S+ import {name}$") as caught:
        getattr(stagewise, name)
    names = {}
    exec(str(caught.value).split("it has moved: ")[1], names)
    assert names[name].__name__ == name


def test_a_name_that_never_was_has_no_advice():
    with pytest.raises(AttributeError, match=r"^module 'stagewise' has no attribute 'InfluenceCalback'$"):
        stagewise.InfluenceCalback  # noqa: B018


def test_rooms_are_attributes_once_they_are_imported():
    assert outcome("import stagewise.files.writing as it, stagewise; print(stagewise.files.writing is it)") == "True"


def test_neither_bif_hides_the_other():
    draws = import_module("stagewise.influence.bif")
    assert stagewise.bif is not draws.bif
    assert stagewise.influence.bif is draws
    assert "stagewise.influence.bif.bif" in getdoc(stagewise.bif)
    assert "stagewise.probes.one_checkpoint.bif" in getdoc(draws.bif)


def test_settings_are_pickled_into_a_process_that_has_imported_nothing():
    sent = pickle.dumps(stagewise.SGLDConfig(lr=1e-3, localization=10.0, preconditioner=stagewise.RMSprop()))
    code = "import pickle, sys; print(repr(pickle.loads(bytes.fromhex(sys.argv[1]))))"
    assert outcome(code, sent.hex()) == repr(pickle.loads(sent))


def test_the_folder_of_a_clone_does_not_hide_the_package_from_a_script_beside_it(tmp_path):
    (tmp_path / "stagewise").mkdir()
    code = "import sys; sys.path.insert(0, sys.argv[1]); import stagewise; print(stagewise.InputError.__name__)"
    assert outcome(code, str(tmp_path)) == "InputError"
