"""MkDocs hook: no page of the site loads anything from another host."""

import re

from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

LOADED = re.compile(r'<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]+)"')


def on_post_page(output: str, page: Page, **_: object) -> str:
    """End the build where a reader's browser would have to ask for something.

    Raises:
        PluginError: a script, an image, a frame or a style is somewhere else.
    """
    found = LOADED.search(output)
    if found:
        raise PluginError(f"got {found[1]} in {page.file.src_uri}; expected files of the site only; copy it into docs/")
    return output
