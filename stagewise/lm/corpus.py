"""Training text from installed Python sources, files or a Hugging Face data set, and its tokenizer."""

import hashlib
import os
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from stagewise.errors import InputError, first_line
from stagewise.lm.local_files import column_texts, is_known, local_documents

END_OF_TEXT = "<|endoftext|>"
_OF_FILES = ("text_column", "split", "max_documents")
_PACKAGES = {"site-packages", "dist-packages"}
# Test suites (some files are broken on purpose) and tables of character codes.
_SKIPPED = {
    "__pycache__",
    "test",
    "tests",
    "idle_test",
    "lib2to3",
    "ensurepip",
    "encodings",
}


def default_cache_dir() -> Path:
    """Returns ``~/.cache/stagewise``, or ``stagewise`` below ``XDG_CACHE_HOME`` if that is set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stagewise"


def _read(paths: Iterable[Path]) -> list[str]:
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in paths)
    # Duplicates could end up on both sides of the held-out split; dict keeps the order.
    return list(dict.fromkeys(text for text in texts if text.strip()))


def _sources(root: Path, skipped: set[str]) -> list[Path]:
    """Returns the Python files below a folder in the order of their paths, without those in skipped folders."""
    paths = [path for path in root.rglob("*.py") if not skipped & set(path.relative_to(root).parts[:-1])]
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def stdlib_documents() -> list[str]:
    """Reads the sources of the running Python's standard library, in the order of their paths.

    Installed packages, test suites, ``encodings`` (tables of codes), ``lib2to3`` and ``ensurepip`` are excluded.

    Raises:
        InputError: this Python has no library sources on disk.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    documents = _read(_sources(root, _PACKAGES | _SKIPPED))
    if not documents:
        raise InputError(f"got no .py file below {root}; expected the standard library's sources; set corpus to a path")
    return documents


def package_documents(*, max_documents: int | None = None) -> list[str]:
    """Reads the sources of the packages installed for the running Python, in the order of their paths.

    They are hundreds of megabytes if PyTorch is installed, and differ between environments. Test suites and tables of
    codes are excluded, as in :func:`stdlib_documents`.

    Args:
        max_documents: largest number of files to read, the first ones.

    Raises:
        InputError: no package with sources is installed.
    """
    roots = dict.fromkeys(Path(sysconfig.get_paths()[name]) for name in ("purelib", "platlib"))
    documents = _read(islice((path for root in roots for path in _sources(root, _SKIPPED)), max_documents))
    if not documents:
        raise InputError(
            f"got no .py file below {', '.join(map(str, roots))}; expected the sources of installed packages; set "
            "corpus to stdlib or to a path"
        )
    return documents


def hub_documents(
    name: str,
    *,
    config_name: str | None = None,
    split: str = "train",
    text_column: str = "text",
    streaming: bool = False,
    max_documents: int | None = None,
) -> list[str]:
    """Reads the documents of a data set through ``datasets.load_dataset``.

    Args:
        name: of the data set, such as ``roneneldan/TinyStories``.
        config_name: configuration, if the data set has several.
        split: split of the data set.
        text_column: column that holds the text.
        streaming: read over the network as needed instead of downloading the whole set; set ``max_documents`` too.
        max_documents: largest number of documents to read, the first ones.

    Raises:
        InputError: the data set cannot be loaded, or has no such column.
    """
    import datasets

    try:
        rows = datasets.load_dataset(name, config_name, split=split, streaming=streaming)
        texts = list(column_texts(islice(rows, max_documents), text_column, f"data set {name!r}"))
    except InputError:
        raise
    except Exception as error:  # errors of datasets, the hub and the network
        raise InputError(
            f"got corpus {name!r}, which is neither 'stdlib', 'site-packages' nor a path here and cannot be loaded as "
            f"a Hugging Face data set ({first_line(error)}); expected one of these; check the name and the connection"
        ) from error
    documents = list(dict.fromkeys(text for text in texts if text.strip()))
    if not documents:
        raise InputError(
            f"got data set {name!r} without any text; expected some in text_column {text_column!r}; set it"
        )
    return documents


def load_documents(corpus: str, **settings: Any) -> list[str]:
    """Returns the documents of a corpus, without duplicates, in a reproducible order.

    Args:
        corpus: ``stdlib``; ``site-packages``; the path of a file or folder, or a pattern, see
            :func:`stagewise.lm.local_files.local_documents`; or the name of a Hugging Face data set.
        **settings: arguments of :func:`hub_documents`; ``text_column``, ``split`` and ``max_documents`` also apply to
            files, the last one also to packages.

    Raises:
        InputError: no such corpus, or no text in it.
    """
    if corpus == "stdlib":
        return stdlib_documents()
    if corpus == "site-packages":
        return package_documents(max_documents=settings.get("max_documents"))
    path = Path(corpus).expanduser()
    is_pattern = bool(set(corpus) & set("*?["))
    if path.exists() or is_pattern:
        return local_documents(path, **{name: settings[name] for name in _OF_FILES if name in settings})
    if path.is_absolute() or corpus.startswith((".", "~")) or is_known(corpus):
        raise InputError(
            f"got corpus {corpus!r}, a path that does not exist; expected a file of text, a table, or a folder of them"
        )
    return hub_documents(corpus, **settings)


def content_hash(documents: Sequence[str]) -> str:
    """Returns a short hash of documents and their order."""
    digest = hashlib.sha256()
    for text in documents:
        raw = text.encode("utf-8", errors="replace")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:16]


def train_tokenizer(documents: Sequence[str], vocab_size: int, *, cache_dir: Path | str | None = None) -> Any:
    """Returns a byte-level BPE tokenizer for given documents, trained once and then read from disk.

    Args:
        documents: training texts.
        vocab_size: number of tokens: 256 bytes, the end-of-text token (id 0), and merges; 257 or more.
        cache_dir: folder for trained tokenizers; :func:`default_cache_dir` if None.

    Returns:
        ``PreTrainedTokenizerFast``.

    Raises:
        InputError: the vocabulary is too small, or the cache cannot be written.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < 257:
        raise InputError(f"got vocab_size {vocab_size}; expected 257 or more: 256 bytes and an end-of-text token")
    folder = Path(cache_dir).expanduser() if cache_dir is not None else default_cache_dir()
    file = folder / f"bpe-{content_hash(documents)}-{vocab_size}.json"
    if not file.exists():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(documents, trainer)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Written to a temporary file and renamed, since two runs may start at once.
            with tempfile.TemporaryDirectory(dir=folder) as aside:
                tokenizer.save(str(Path(aside) / file.name))
                (Path(aside) / file.name).replace(file)
        except OSError as error:
            raise InputError(
                f"got cache_dir {str(folder)!r}, which cannot be written ({error.strerror}); expected a writable "
                "folder; set data.init_args.cache_dir"
            ) from error
    return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False)
