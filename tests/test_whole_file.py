import os

import pytest

from stagewise.whole_file import whole_file


def test_a_file_takes_its_place_whole_with_the_folders_that_it_needs(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with whole_file(path) as aside:
        aside.write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"
    assert [it.name for it in path.parent.iterdir()] == ["a.txt"]


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
    assert [it.name for it in tmp_path.iterdir()] == ["a.txt"]


def test_a_name_that_cannot_be_given_leaves_no_rest(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError), whole_file(tmp_path / "a.txt") as aside:
        aside.write_text("all")
    assert [it.name for it in tmp_path.iterdir()] == ["a.txt"]


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
