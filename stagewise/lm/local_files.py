"""Documents from local files: plain text, tables with a column of text, saved data sets."""

import importlib.util
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any

import fsspec

from stagewise.errors import InputError, first_line

_TEXT = {".txt", ".text", ".md", ".rst", ".py", ".html", ".tex"}
_TABLES = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
}
"""Maps suffixes of tables to the names of their formats in ``datasets``."""

_COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}
_SAVED = ("dataset_dict.json", "state.json")
"""Files in a folder written by ``save_to_disk``, with several splits and with one."""

_ABOUT = re.compile(r"(readme|license|licence|copying|citation|changelog)\b.*|dataset_infos?\.json", re.IGNORECASE)
"""Files that describe the tables in the same folder."""

_SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
"""Words in paths that name the split of a table, as in ``datasets``."""

_SHOWN = 8


def is_known(name: str) -> bool:
    """Returns True if a name has the suffix of a readable file."""
    return _kind(Path(name)) is not None


def local_documents(
    path: Path, *, text_column: str = "text", split: str = "train", max_documents: int | None = None
) -> list[str]:
    """Reads the documents of a file, of a folder, or of all files that match a pattern, in the order of their paths.

    A text file (UTF-8) is one document. In a table (JSON lines or a list, CSV, TSV, Parquet, Arrow) or a data set
    written by ``save_to_disk``, each row is one. Text and tables may be compressed. In a folder, hidden files are
    ignored, as are files that describe tables (``README.md``); if the names of tables contain splits, only tables of
    the requested split are read.

    Args:
        path: of a file or folder, or a pattern such as ``texts/**/*.jsonl``.
        text_column: column of tables that holds the text.
        split: split of tables and data sets.
        max_documents: largest number of rows of tables; text files are always read completely.

    Returns:
        Texts without duplicates and blank ones.

    Raises:
        InputError: no readable file, text together with tables, bytes that are not UTF-8 text, no such column or split,
            or an unreadable table.
    """
    if path.is_dir() and any((path / name).is_file() for name in _SAVED):
        _check_split(split)
        return _distinct(islice(_saved(path, split, text_column), max_documents), path)
    files = [path] if path.is_file() else _found(path)
    tables = [file for file in files if _kind(file) in _TABLES]
    if tables and path.is_dir():
        files = [file for file in files if not _ABOUT.fullmatch(file.name)]
        tables = [file for file in tables if file in files]
    if tables and len(tables) < len(files):
        other = next(file for file in files if file not in tables)
        raise InputError(
            f"got corpus {str(path)!r} with tables and text ({tables[0].name}, {other.name}); expected one kind; name "
            f"a folder with one of them, or a pattern such as {path}/**/*{other.suffix}"
        )
    if not tables:
        return _distinct(map(_text, files), path)
    _check_split(split)
    if path.is_dir():
        tables = _of_split(tables, path, split)
    rows = chain.from_iterable(_rows(file, text_column) for file in tables)
    return _distinct(islice(rows, max_documents), path)


def column_texts(rows: Iterable[Any], text_column: str, what: str) -> Iterator[str]:
    """Yields the text of each row; skips rows without text.

    Args:
        rows: mappings from columns to values.
        text_column: column that holds the text.
        what: name of their source, for messages.

    Raises:
        InputError: no such column, or one of another type.
    """
    for row in rows:
        if not isinstance(row, dict) or text_column not in row:
            there = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise InputError(
                f"got text_column {text_column!r}, which {what} lacks; expected one of its columns, {there}; set "
                "text_column"
            )
        value = row[text_column]
        if value is not None and not isinstance(value, str):
            raise InputError(
                f"got text_column {text_column!r} of {what} with values of type {type(value).__name__}; expected text; "
                "set text_column"
            )
        if value is not None:
            yield value


def _kind(path: Path) -> str | None:
    """Returns the suffix of a readable file, without that of a compression; None for other files."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return last if last in _TEXT or last in _TABLES else None


def _found(path: Path) -> list[Path]:
    """Returns readable files below a folder, or all files that match a pattern, in the order of their paths."""
    if path.is_dir():
        base, every = path, path.rglob("*")
    else:
        base = Path(*takewhile(lambda part: not set(part) & set("*?["), path.parts))
        every = base.glob(str(path.relative_to(base)))
    there = sorted((file for file in every if file.is_file()), key=lambda file: file.relative_to(base).as_posix())
    files = [file for file in there if not any(part.startswith(".") for part in file.relative_to(base).parts)]
    if path.is_dir():
        files = [file for file in files if _kind(file) is not None]
    if not files:
        names = ", ".join(file.name for file in there[:_SHOWN]) + (", ..." if len(there) > _SHOWN else "")
        raise InputError(
            f"got no text in {path}, {f'which holds {names}' if names else 'where there is no file'}; expected files "
            f"that end in one of {sorted(_TEXT)} or {sorted(_TABLES)}, compressed or not; name another corpus"
        )
    return files


def _check_split(split: str) -> None:
    if not split.isidentifier():
        raise InputError(f"got split {split!r} of files; expected a name such as train; set max_documents for fewer")


def _of_split(tables: Sequence[Path], folder: Path, split: str) -> list[Path]:
    """Returns the tables whose file or folder names contain a split; all tables if no name contains one."""
    splits: dict[Path, str] = {}
    for file in tables:
        words = set(re.split(r"[^a-z]+", file.relative_to(folder).as_posix().lower()))
        for name, keywords in _SPLITS.items():
            if words & keywords:
                splits.setdefault(file, name)
    if not splits:
        return list(tables)
    wanted = next((name for name, words in _SPLITS.items() if split in words), split)
    chosen = [file for file in tables if splits.get(file) == wanted]
    if not chosen:
        raise InputError(
            f"got split {split!r}, of which there is no table in {folder}; expected one of "
            f"{sorted(set(splits.values()))}; set split, or name a file"
        )
    return chosen


def _distinct(texts: Iterable[str], path: Path) -> list[str]:
    # Duplicates could end up on both sides of the held-out split; dict keeps the order.
    found = list(dict.fromkeys(text for text in texts if text.strip()))
    if not found:
        raise InputError(f"got no text in {path}: all of it is blank; expected documents; name another corpus")
    return found


def _check_compression(file: Path) -> None:
    if file.suffix.lower() == ".zst" and importlib.util.find_spec("zstandard") is None:
        raise InputError(f"got {file}, compressed with Zstandard; expected its library; pip install zstandard")


def _text(file: Path) -> str:
    _check_compression(file)
    try:
        with fsspec.open(str(file), "rb", compression="infer") as opened:
            text = opened.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"got {file}, which is no UTF-8 text (byte {error.start}: {error.reason}); expected text; convert it to "
            "UTF-8, or leave it out"
        ) from error
    except Exception as error:  # each compression has its own errors
        raise InputError(f"got {file}, which cannot be read ({_line(error)}); expected text; repair it") from error
    if "\0" in text:
        raise InputError(f"got {file}, which holds NUL bytes and so is no text; expected text; leave it out")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _rows(file: Path, text_column: str) -> Iterator[str]:
    import datasets

    _check_compression(file)
    ending = _kind(file)
    kind = _TABLES[ending or ""]
    settings: dict[str, Any] = {}
    if kind == "csv":
        # Words such as NA and numbers are text too.
        settings = {
            "sep": "\t" if ending == ".tsv" else ",",
            "keep_default_na": False,
            "converters": {text_column: str},
        }
    with _plain_errors(file, datasets):
        rows = datasets.load_dataset(kind, data_files=[str(file.resolve())], split="train", streaming=True, **settings)
        yield from column_texts(rows, text_column, str(file))


def _saved(path: Path, split: str, text_column: str) -> Iterator[str]:
    import datasets

    with _plain_errors(path, datasets):
        found = datasets.load_from_disk(str(path))
        if isinstance(found, datasets.DatasetDict):
            if split not in found:
                raise InputError(f"got split {split!r} of {path}; expected one of {sorted(found)}; set split")
            found = found[split]
        if text_column in found.column_names:
            found = found.select_columns([text_column])
        yield from column_texts(found, text_column, str(path))


@contextmanager
def _plain_errors(place: Path, datasets: Any) -> Iterator[None]:
    """Context that replaces the errors and logs of ``datasets`` by a one-line error."""
    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    except (InputError, GeneratorExit):
        raise
    except Exception as error:  # errors of datasets, pyarrow and pandas
        raise InputError(
            f"got {place}, which cannot be read ({_line(error)}); expected a readable file; repair it, or leave it out"
        ) from error
    finally:
        datasets.logging.set_verbosity(before)


def _line(error: BaseException) -> str:
    """Returns the first line of the cause, which ``datasets`` wraps in a generic message."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
