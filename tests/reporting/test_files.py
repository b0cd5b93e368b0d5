import json

import pytest

from stagewise.errors import InputError
from stagewise.reporting.files import refuse_below_file, write_json, write_text_file


def test_a_path_below_a_file_is_refused_by_the_name_of_the_file_and_others_are_not(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(InputError, match=r"got output .*mine/a/b.md, but .*mine is a file; expected a folder there"):
        refuse_below_file(tmp_path / "mine" / "a" / "b.md")
    assert (tmp_path / "mine").read_text() == "kept"
    for path in (tmp_path / "mine", tmp_path / "new" / "folder" / "b.md"):
        refuse_below_file(path)
    assert not (tmp_path / "new").exists()


def test_text_is_written_whole_with_the_folders_that_it_needs(tmp_path):
    path = write_text_file(tmp_path / "new" / "page.md", "a · b\n")
    assert path.read_text(encoding="utf-8") == "a · b\n"
    assert [it.name for it in path.parent.iterdir()] == ["page.md"]


def test_what_json_has_no_word_for_is_refused_and_the_file_that_was_there_stays(tmp_path):
    path = write_json(tmp_path / "table.json", {"value": 0.1 + 0.2})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text()) == {"value": 0.1 + 0.2}
