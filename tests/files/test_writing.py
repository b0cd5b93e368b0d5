import json
import os

import pytest

from stagewise.errors import InputError
from stagewise.files.writing import refuse_below_file, whole_file, whole_folder, write_json, write_text_file


def test_a_file_takes_its_place_whole_with_the_folders_that_it_needs(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with whole_file(path) as aside:
        aside.write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_what_fails_on_the_way_leaves_what_was_there_and_no_rest(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write():
        with whole_file(path) as aside:
            aside.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "before"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_a_name_that_cannot_be_given_leaves_no_rest(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError), whole_file(tmp_path / "a.txt") as aside:
        aside.write_text("all")
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_content_is_on_disk_before_the_name_and_the_name_after(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace

    def named(source, target):
        done.append("name")
        replace(source, target)

    def synced(number):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{number}") else "content")
        sync(number)

    monkeypatch.setattr(os, "replace", named)
    monkeypatch.setattr(os, "fsync", synced)
    with whole_file(tmp_path / "a.txt") as aside:
        aside.write_text("all")
    assert done == ["content", "name", "folder"]


def test_folders_that_cannot_be_synced_are_left_so(tmp_path, monkeypatch):
    opened = os.open

    def refused(path, *given):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "open", refused)
    path = tmp_path / "a.txt"
    with whole_file(path) as aside:
        aside.write_text("all")
    monkeypatch.setattr(os, "open", opened)
    assert path.read_text() == "all"


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
    assert [item.name for item in path.parent.iterdir()] == ["page.md"]


def test_what_json_has_no_word_for_is_refused_and_the_file_that_was_there_stays(tmp_path):
    path = write_json(tmp_path / "table.json", {"value": 0.1 + 0.2})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text()) == {"value": 0.1 + 0.2}


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_folder_takes_its_place_whole_or_what_was_there_stays(tmp_path, error):
    path = tmp_path / "a"
    for text in ("first", "second"):
        with whole_folder(path) as aside:
            aside.mkdir()
            (aside / "it").write_text(text)

    def fail():
        with whole_folder(path) as aside:
            aside.mkdir()
            (aside / "it").write_text("third")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert (path / "it").read_text() == "second"
    assert [item.name for item in tmp_path.iterdir()] == ["a"]
