import bz2
import gzip
import json
import lzma

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stagewise.errors import InputError
from stagewise.lm.corpus import load_documents
from stagewise.lm.local_files import local_documents

DOCUMENTS = ['first "quoted"\nof two lines', "second, with é and \t", "NA", "4"]
ROWS = [{"text": text, "meta": {"id": i if i % 2 else str(i)}, "body": f"b{i}"} for i, text in enumerate(DOCUMENTS)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def write_table(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"text": DOCUMENTS, "body": [row["body"] for row in ROWS]})
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_text(LINES)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS, indent=2))
    elif path.suffix in (".parquet", ".pq"):
        pq.write_table(table, path)
    elif path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        rows = [["text", "body"], *([row["text"], row["body"]] for row in ROWS)]
        quoted = [mark.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
        path.write_text("\n".join(quoted) + "\n")
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    return path


TABLES = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".arrow"]


@pytest.mark.parametrize("suffix", TABLES)
def test_each_row_of_a_table_is_a_document_from_the_column_that_is_named(tmp_path, suffix):
    path = write_table(tmp_path / f"a{suffix}")
    assert load_documents(str(path)) == DOCUMENTS
    assert load_documents(str(path), text_column="body") == ["b0", "b1", "b2", "b3"]
    assert load_documents(str(path), max_documents=2) == DOCUMENTS[:2]
    assert load_documents(str(tmp_path)) == DOCUMENTS


@pytest.mark.parametrize("suffix", TABLES)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path, suffix):
    path = write_table(tmp_path / f"a{suffix}")
    with pytest.raises(InputError, match=rf"text_column 'story', which .*a\{suffix} lacks.*'body'.*'text'") as caught:
        load_documents(str(path), text_column="story")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("suffix", "library"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_compressed_files_are_read_as_what_they_hold(tmp_path, suffix, library):
    for name, content in (("a.jsonl", LINES), ("b.txt", "plain\ntext")):
        with library.open(tmp_path / f"{name}{suffix}", "wt", encoding="utf-8") as file:
            file.write(content)
    assert load_documents(str(tmp_path / f"a.jsonl{suffix}")) == DOCUMENTS
    assert load_documents(str(tmp_path / f"b.txt{suffix}")) == ["plain\ntext"]


def test_zstandard_is_read_where_its_library_is_and_asks_for_it_where_it_is_not(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl.zst"
    try:
        import zstandard
    except ImportError:
        path.write_bytes(b"")
        with pytest.raises(InputError, match="pip install zstandard"):
            load_documents(str(path))
    else:
        path.write_bytes(zstandard.compress(LINES.encode()))
        assert load_documents(str(path)) == DOCUMENTS


def test_a_list_of_strings_and_a_byte_order_mark_are_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(["one", "two"]))
    assert load_documents(str(tmp_path / "a.json")) == ["one", "two"]
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfline\r\nnext")
    assert load_documents(str(tmp_path / "b.txt")) == ["line\nnext"]


def test_rows_without_text_and_copies_are_left_out(tmp_path):
    rows = [{"text": "one"}, {"text": None}, {"text": " \n"}, {"text": "one"}, {"text": "two"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_documents(str(tmp_path / "a.jsonl")) == ["one", "two"]


def test_a_folder_of_tables_is_read_in_the_order_of_paths_without_what_tells_of_them(tmp_path):
    for place, text in (("b/0.jsonl", "third"), ("a.jsonl", "first"), ("a/1.parquet", "second")):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        if place.endswith("jsonl"):
            (tmp_path / place).write_text(json.dumps({"text": text}))
        else:
            pq.write_table(pa.table({"text": [text]}), tmp_path / place)
    (tmp_path / "README.md").write_text("# Card")
    (tmp_path / "dataset_infos.json").write_text("{}")
    (tmp_path / ".hidden.jsonl").write_text(json.dumps({"text": "hidden"}))
    assert load_documents(str(tmp_path)) == ["first", "second", "third"]


def test_a_folder_whose_names_speak_of_splits_gives_the_one_that_is_asked_for(tmp_path):
    for name in ("data/train-00000-of-00001", "data/test-00000-of-00001", "dev"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    assert load_documents(str(tmp_path)) == ["data/train-00000-of-00001"]
    assert load_documents(str(tmp_path), split="test") == ["data/test-00000-of-00001"]
    assert load_documents(str(tmp_path), split="validation") == ["dev"]
    with pytest.raises(InputError, match=r"split 'extra'.*\['test', 'train', 'validation'\]"):
        load_documents(str(tmp_path), split="extra")
    with pytest.raises(InputError, match=r"got split 'train\[:10\]' of files; expected a name"):
        load_documents(str(tmp_path), split="train[:10]")


def test_a_pattern_names_files(tmp_path):
    for name in ("a.py", "b/c.py", "b/d.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"of {name}")
    assert load_documents(f"{tmp_path}/**/*.py") == ["of a.py", "of b/c.py"]
    with pytest.raises(InputError, match=r"got no text in .*where there is no file"):
        load_documents(f"{tmp_path}/*.jsonl")


def test_a_saved_data_set_is_read_with_its_splits(tmp_path):
    one = datasets.Dataset.from_dict({"text": ["a", "b", None], "n": [1, 2, 3]})
    one.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=one, test=one.select([1])).save_to_disk(str(tmp_path / "two"))
    assert load_documents(str(tmp_path / "one")) == ["a", "b"]
    assert load_documents(str(tmp_path / "two")) == ["a", "b"]
    assert load_documents(str(tmp_path / "two"), split="test") == ["b"]
    assert load_documents(str(tmp_path / "one"), max_documents=1) == ["a"]
    with pytest.raises(InputError, match=r"split 'dev' of .*two; expected one of \['test', 'train'\]"):
        load_documents(str(tmp_path / "two"), split="dev")
    with pytest.raises(InputError, match=r"'n' of .*one with values of type int"):
        load_documents(str(tmp_path / "one"), text_column="n")


UNREADABLE = {
    "bytes as text": ("a.txt", b"\x89PNG\r\n\x1a\n\x00", "a.txt, which is no UTF-8 text"),
    "another encoding": ("a.txt", "grün".encode("latin-1"), "convert it to UTF-8"),
    "text of two bytes a letter": ("a.txt", "ab".encode("utf-16-le"), "NUL bytes"),
    "a table with the name of a text": ("a.txt", b"PAR1\x15\x04\x15\xff", "no UTF-8 text"),
    "broken lines": ("a.jsonl", b'{"text": "a"}\n{broken\n', "a.jsonl, which cannot be read"),
    "text with the name of a table": ("a.parquet", b"plain text", "a.parquet, which cannot be read"),
    "no gzip": ("a.txt.gz", b"plain text", "a.txt.gz, which cannot be read"),
    "settings in JSON": ("a.json", b'{"name": "package"}', "text_column 'text', which .*'name'"),
    "numbers in the column": ("a.jsonl", b'{"text": 4}\n', "values of type int"),
    "tokens in the column": ("a.jsonl", b'{"text": [4, 5]}\n', "values of type list"),
    "an empty file": ("a.txt", b"", "all of it is blank"),
    "an empty table": ("a.jsonl", b'{"text": ""}\n', "all of it is blank"),
    "a file of no lines": ("a.jsonl", b"", "a.jsonl"),
    "a document of another program": ("a.pdf", b"%PDF-1.4\n\xe2\xe3", "no UTF-8 text"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_refused_in_one_line_and_not_read_as_something_else(tmp_path, case, capfd):
    name, content, words = UNREADABLE[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_documents(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)
    assert capfd.readouterr().err == ""


def test_text_beside_tables_is_refused_by_name(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    write_table(tmp_path / "b.jsonl")
    with pytest.raises(InputError, match=r"with tables and text \(b.jsonl, a.txt\).*pattern such as .*\*\*/\*\.txt"):
        local_documents(tmp_path)


def test_a_folder_without_text_is_refused_with_what_is_there(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(InputError, match=r"got no text in .*, which holds a.pdf; expected files that end in"):
        load_documents(str(tmp_path))


def test_a_file_that_is_not_there_is_no_name_on_the_hub():
    with pytest.raises(InputError, match=r"'texts/a.jsonl.gz', a path that does not exist"):
        load_documents("texts/a.jsonl.gz")
