import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stagewise.cli.config_files import check_config_files
from stagewise.cli.main import main
from stagewise.errors import InputError
from tests.outcomes import outcome

FILES = {
    "empty": (b"", "which is empty"),
    "a comment alone": (b"# nothing\n", "which is empty"),
    "a list": (b"- 1\n- 2\n", "a list at its top"),
    "a word": (b"hello", "a single value at its top"),
    "binary": (b"\x89PNG\r\n\x00\xff", "not UTF-8 at byte 0"),
    "another encoding": (b"output: caf\xe9\n", "not UTF-8 at byte 11"),
    "a null character": (b"a: \0\n", "no YAML"),
    "brackets": (b"a: [1\nb: }", "line 2"),
    "a tab": (b"a:\n\tb: 1\n", "line 2, column 1"),
    "deep": (b"a: " + b"[" * 100_000, "nested deeper than 50 at line 1"),
    "aliases": (
        b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 40)),
        "more than 50,000 values at line",
    ),
    "an alias to itself": (b"a: &a [*a]\n", "*a at line 1 is not known there"),
    "large": (b"a: " + b"x" * 2**20, "which has 1,048,579 bytes"),
}


@pytest.mark.parametrize("command", ["fit", "toy", "detect"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_configuration_is_refused_in_one_line_with_its_place(command, name, tmp_path, capsys):
    raw, words = FILES[name]
    path = tmp_path / "their.yaml"
    path.write_bytes(raw)
    assert main([command, "-c", str(path), *(["run"] if command == "detect" else [])]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"stagewise {command}: got -c {path}, ")
    assert words in lines[0]


def test_a_folder_and_a_path_that_cannot_be_are_refused(tmp_path, capsys):
    for given_path in (str(tmp_path), str(tmp_path / "nowhere.yaml"), "x" * 5000, "a\0b"):
        for arguments in (["toy", "-c", given_path], ["toy", f"--config={given_path}"]):
            assert main(arguments) == 2
            assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_tag_that_would_call_something_calls_nothing(tmp_path, capsys):
    path, mark = tmp_path / "their.yaml", tmp_path / "called"
    path.write_text(f"output: !!python/object/apply:os.mkdir ['{mark}']\n")
    assert main(["toy", "-c", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not mark.exists()


@example("0:\t")
@settings(max_examples=200, deadline=None)
@given(st.text() | st.text("ab:-[]{},&*!|>'\"#%@` \n\t?0.", max_size=40))
def test_any_text_is_a_mapping_to_yaml_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("file") / "a.yaml"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    _, refused = outcome(lambda: check_config_files(["toy", "-c", str(path)]))
    if refused is None:
        # One that the check lets through may still have unknown tags or doubled documents: the parser says so.
        events = list(yaml.parse(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader))
        assert isinstance(events[2], yaml.MappingStartEvent)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fti"], "expected one of fit"),
        (["report"], "run"),
        (["report", "x" * 5000], "too long"),
        (["report", "a\0b"], "a\\x00b"),
        (["report", "\x1b[2Jnowhere"], "\\x1b[2Jnowhere"),
        (["detect", "nowhere", "--detector.num_probes", "2.5"], "num_probes"),
        (["detect", "nowhere", "--detector.min_z", "nan"], "min_z"),
        (["toy", "-c", "configs/toy.yaml", "--seeds", "[-1]"], "seeds"),
        (["toy", "-c", "configs/toy.yaml", "--seeds", "[1.5]"], "seeds"),
        (["toy", "-c", "configs/toy.yaml", "--seeds", "[999999999999999999999999]"], "64 bits"),
        (["toy", "-c", "configs/toy.yaml", "--network.lr", "inf"], "network.lr"),
        (["toy", "-c", "configs/toy.yaml", "--influence.schedule.log_spaced.num", "1000000000"], "100,000"),
        (["toy", "-c", "configs/toy.yaml", "--output", "configs/toy.yaml/below"], "is a file"),
        (["fit", "-c", "configs/induction.yaml", "--seed_everything", "-1"], "seed_everything=-1; expected 0 to"),
    ],
)
def test_careless_commands_get_one_line_and_status_2(arguments, words, capsys):
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stagewise")]
    assert len(lines) == 1
    assert words in lines[0]
    assert lines[0].isprintable()
    assert len(lines[0]) < 2100


def test_the_check_says_what_to_do():
    with pytest.raises(InputError, match="expected a YAML file such as configs/"):
        check_config_files(["toy", "-c", "nowhere.yaml"])
