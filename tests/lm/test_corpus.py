import sysconfig

import pytest

from stagewise.errors import InputError
from stagewise.lm import corpus


def test_the_standard_library_is_found_in_a_fixed_order_without_its_tests():
    documents = corpus.stdlib_documents()
    assert len(documents) > 300
    assert documents == corpus.stdlib_documents()
    with open(sysconfig.get_paths()["stdlib"] + "/dataclasses.py", encoding="utf-8") as file:
        assert file.read() in documents
    assert len(set(documents)) == len(documents)


def test_a_folder_gives_its_text_files_once_each_in_order(tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / "c.txt").write_text("second")
    (tmp_path / "d.bin").write_text("not text")
    (tmp_path / "e.txt").write_text("  \n")
    assert corpus.load_documents(str(tmp_path)) == ["first", "second"]
    assert corpus.load_documents(str(tmp_path / "d.bin")) == ["not text"]


def test_missing_and_empty_paths_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        corpus.load_documents(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="no text"):
        corpus.load_documents(str(tmp_path))


def test_a_name_goes_to_load_dataset(monkeypatch):
    import datasets

    def fake(name, config_name, *, split, streaming):
        assert (name, config_name, split, streaming) == ("someone/stories", None, "train", False)
        return datasets.Dataset.from_dict({"text": ["one", "two", "", "one", "three"]})

    monkeypatch.setattr(datasets, "load_dataset", fake)
    assert corpus.load_documents("someone/stories") == ["one", "two", "three"]
    assert corpus.load_documents("someone/stories", max_documents=1) == ["one"]
    assert len(corpus.load_documents("someone/stories", max_documents=100)) == 3
    with pytest.raises(InputError, match="text_column 'body'"):
        corpus.load_documents("someone/stories", text_column="body")


def test_a_data_set_that_cannot_be_had_is_one_line(monkeypatch):
    import datasets

    def fake(*_, **__):
        raise ConnectionError("no route\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", fake)
    with pytest.raises(InputError, match="no route") as caught:
        corpus.load_documents("someone/stories")
    assert "\n" not in str(caught.value)


def test_the_tokenizer_is_trained_once_and_keyed_by_content_and_size(tmp_path):
    documents = ["the cat sat on the mat\n" * 20, "the dog sat on the log\n" * 20]
    first = corpus.train_tokenizer(documents, 270, cache_dir=tmp_path)
    assert len(first) == 270
    assert first.decode(first.encode("the café\n\t€")) == "the café\n\t€"
    stamp = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = corpus.train_tokenizer(documents, 270, cache_dir=tmp_path)
    assert again.get_vocab() == first.get_vocab()
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == stamp
    corpus.train_tokenizer(documents, 271, cache_dir=tmp_path)
    corpus.train_tokenizer(documents[::-1], 270, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_bad_vocabulary_and_unwritable_cache_are_refused(tmp_path):
    with pytest.raises(InputError, match="257 or more"):
        corpus.train_tokenizer(["text"], 100, cache_dir=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        corpus.train_tokenizer(["text " * 50], 260, cache_dir=tmp_path / "file")


def test_the_sources_of_installed_packages_are_a_corpus_without_their_tests(tmp_path, monkeypatch):
    pure, plat = tmp_path / "pure", tmp_path / "plat"
    for path, text in (
        (pure / "b" / "code.py", "b"),
        (pure / "a.py", "a"),
        (pure / "b" / "tests" / "test_code.py", "no"),
        (pure / "b" / "notes.txt", "no"),
        (plat / "c.py", "c"),
        (plat / "copy.py", "a"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(corpus.sysconfig, "get_paths", lambda: {"purelib": str(pure), "platlib": str(plat)})
    assert corpus.load_documents("site-packages") == ["a", "b", "c"]
    assert corpus.load_documents("site-packages", max_documents=2, split="train") == ["a", "b"]
    monkeypatch.setattr(corpus.sysconfig, "get_paths", lambda: {"purelib": str(plat), "platlib": str(plat)})
    assert corpus.load_documents("site-packages") == ["c", "a"]
    empty = str(tmp_path / "nowhere")
    monkeypatch.setattr(corpus.sysconfig, "get_paths", lambda: {"purelib": empty, "platlib": empty})
    with pytest.raises(InputError, match="installed packages"):
        corpus.load_documents("site-packages")
