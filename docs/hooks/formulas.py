"""Formulas as MathML, which browsers draw by themselves: no script, no font, no request."""

import re

from latex2mathml.converter import convert

BLOCK = re.compile(r"^[ \t]*\$\$(.+?)\$\$[ \t]*$", flags=re.MULTILINE | re.DOTALL)


def with_formulas(prose: str) -> str:
    """Markdown with every ``$$...$$`` that stands by itself as a MathML block."""
    return BLOCK.sub(lambda found: f"\n{convert(found[1].strip(), display='block')}\n", prose)
