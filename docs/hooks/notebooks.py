"""Stored notebooks as pages: text, code, and the output they were saved with. Nothing is executed."""

import base64
from pathlib import Path

import nbformat


def notebook_page(path: Path, download: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown.

    Args:
        path: of the notebook.
        download: link to the notebook itself, from the page.

    Returns:
        The page, and its images by file name, which stand beside it.

    Raises:
        ValueError: an output of a kind that this page would not show.
    """
    parts: list[str] = []
    images: dict[str, bytes] = {}
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for place, output in enumerate(cell.outputs):
            data = output.get("data", {})
            if output.output_type == "stream":
                parts.append(f"```text\n{output.text.rstrip()}\n```")
            elif "image/png" in data:
                name = f"{path.stem}-{number}-{place}.png"
                images[name] = base64.b64decode(data["image/png"])
                parts.append(f"![Figure of the cell above]({name})")
            elif "text/markdown" in data:
                parts.append(data["text/markdown"])
            elif "text/plain" in data:
                parts.append(f"```text\n{data['text/plain'].rstrip()}\n```")
            else:
                raise ValueError(
                    f"got output {output.output_type} of {sorted(data)} in {path.name}; expected text or png"
                )
    title, _, rest = "\n\n".join(parts).partition("\n")
    line = f"*This page shows [`{path.name}`]({download}) with the output it was saved with.*"
    return f"{title}\n\n{line}\n{rest}\n", images
