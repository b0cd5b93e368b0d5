"""MkDocs hook: files of the repository outside docs/ as pages and downloads of the site.

Pages link to the repository as they do on a code host (``../benchmarks/README.md``). Here such a link leads to the page
made of that file, or to a copy of it in the site, so that nothing depends on an address. A link to a folder becomes its
text. A link to a file that is not there stays, for ``mkdocs build --strict`` to report.
"""

import re
from collections.abc import Callable
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from formulas import with_formulas
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from notebooks import notebook_page

COPIES = "repository"
"""Folder of the site for files that are no pages."""

PAGES = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "notebooks/quickstart.ipynb": "notebooks/quickstart.md",
    "notebooks/toy.ipynb": "notebooks/toy.md",
    "notebooks/intervention.ipynb": "notebooks/intervention.md",
}
"""File of the repository to the page that stands for it; ``index.md`` is a page of its own."""

LINK = re.compile(r"(?P<open>!?\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\])\((?P<target>[^)\s]+)\)")


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """A page with its prose changed and its code blocks as they are."""
    parts = re.split(r"(^```.*?^```[^\n]*$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else change(part) for part in parts)


def target_of(source: str, target: str) -> tuple[str, str] | None:
    """Path in the repository that a link of a file leads to, and its anchor; None for addresses and bare anchors."""
    path, mark, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path) or path.startswith("/"):
        return None
    return normpath(join(dirname(source), path)), mark + anchor


def source_of(file: File) -> str:
    """Path in the repository of what a page is made of."""
    for source, page in PAGES.items():
        if page == file.src_uri and page != "index.md":
            return source
    return f"docs/{file.src_uri}"


def linked_files(root: Path, source: str, markdown: str) -> set[str]:
    """Files outside docs/ that a page links to and that are no pages."""
    found: set[str] = set()

    def look(prose: str) -> str:
        for link in LINK.finditer(prose):
            known = target_of(source, link["target"])
            if known and not known[0].startswith("docs/") and known[0] not in PAGES and (root / known[0]).is_file():
                found.add(known[0])
        return prose

    outside_fences(markdown, look)
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside docs/, and copies of all that pages link to."""
    root = Path(config.config_file_path).parent
    texts: dict[str, str] = {}
    for source, page in PAGES.items():
        if page == "index.md":
            continue
        if source.endswith(".ipynb"):
            text, images = notebook_page(root / source, f"../{COPIES}/{source}")
            texts[source] = text
            for name, content in images.items():
                files.append(File.generated(config, f"notebooks/{name}", content=content))
            files.append(File.generated(config, f"{COPIES}/{source}", content=(root / source).read_bytes()))
        else:
            texts[source] = (root / source).read_text()
        files.append(File.generated(config, page, content=texts[source]))
    for file in files.documentation_pages():
        if source_of(file) not in texts:
            texts[source_of(file)] = file.content_string
    copies = set().union(*(linked_files(root, source, text) for source, text in texts.items()))
    for name in sorted(copies):
        files.append(File.generated(config, f"{COPIES}/{name}", content=(root / name).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links into the site, and set formulas."""
    root, here, source = Path(config.config_file_path).parent, dirname(page.file.src_uri), source_of(page.file)

    def lead(link: re.Match[str]) -> str:
        # A notebook's page is made for the site: its links are those of the site.
        known = None if source.endswith(".ipynb") else target_of(source, link["target"])
        if known is None:
            return link[0]
        path, anchor = known
        if path in PAGES:
            uri = PAGES[path]
        elif path.startswith("docs/"):
            uri = path.removeprefix("docs/")
        elif (root / path).is_dir():
            return link["text"]
        else:
            uri = f"{COPIES}/{path}"
        return f"{link['open']}({relpath(uri, here or '.')}{anchor})"

    return outside_fences(markdown, lambda prose: with_formulas(LINK.sub(lead, prose)))
