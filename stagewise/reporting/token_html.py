"""Text coloured by the influence of its tokens on one of them, as a self-contained HTML page."""

import html
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stagewise.files.writing import write_text_file
from stagewise.reporting.token_influence import HARMFUL, HELPFUL, VISIBLE, TokenInfluence, background, is_dark, visible

_STYLE = """
body { background: #fff; color: #111; font: 15px/1.9 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; }
.text { font-family: monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.text span { padding: .18em 0; border-radius: 2px; }
.text span.query { outline: 2.5px solid #111; outline-offset: 1px; }
.text i { font-style: normal; opacity: .5; }
.none { color: #999; }
.bar { display: inline-block; width: 14em; height: 1em; border: 1px solid #999; vertical-align: middle;
  background: linear-gradient(to right, rgb HELPFUL, #fff, rgb HARMFUL); margin: 0 .6em; }
h1 { font-size: 1.25em; } h2 { font-size: 1em; margin: 1.4em 0 .2em; } p { margin: .3em 0; }
"""

_LINE_ENDS = re.compile(f"(<i>{VISIBLE[chr(10)]}</i>)+")


def token_html(
    influence: TokenInfluence, *, title: str = "Token influence", samples: Sequence[int] | None = None
) -> str:
    """Returns the page: blue = negative = helpful, red = positive = harmful, white = zero; the query is outlined.

    Args:
        influence: influence to show; a token's value appears when the pointer rests on it.
        title: of the page, e.g. the step of the probe.
        samples: texts to show, in this order; all, that of the query first, if None.

    Raises:
        InputError: an unknown sample.
    """
    chosen = influence.shown_samples(samples)
    query = html.escape(visible(influence.tokens[influence.sample][influence.token]))
    own = influence.values[influence.sample, influence.token]
    edge = f"{influence.limit:.3g}"
    words = [
        f"Influence of each token on the loss of token {influence.token} of sample {influence.sample}, "
        f"<b>{query}</b>, which is outlined.",
        "<b>Blue = negative = helpful</b>: more weight on a token lowers the loss of the outlined one. <b>Red = "
        "positive = harmful</b>. White: none. Grey letters: no loss.",
        f'-{edge} helpful <span class="bar"></span> harmful +{edge} (minus the {influence.measure}).',
        f"Tokens beyond these limits, which have their colours: {influence.num_beyond}; beside them the outlined one, "
        f"whose influence on itself is {own:.3g}. Influence within the outlined token's own text is of one sequence on "
        "itself: read the other texts.",
    ]
    style = _STYLE.replace("rgb HELPFUL", f"rgb{HELPFUL}").replace("rgb HARMFUL", f"rgb{HARMFUL}")
    body = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{paragraph}</p>" for paragraph in words)]
    for sample in chosen:
        mark = ", with the outlined token" if sample == influence.sample else ""
        body += [f"<h2>sample {sample}{mark}</h2>", f'<p class="text">{_text(influence, sample)}</p>']
    head = f'<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n<style>{style}</style>'
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", head, "</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join(lines) + "\n"


def write_token_html(
    path: Path, influence: TokenInfluence, *, title: str = "Token influence", samples: Sequence[int] | None = None
) -> Path:
    """Writes :func:`token_html` whole or not at all; returns the path.

    Args:
        path: of the file.
        influence: as in :func:`token_html`.
        title: as in :func:`token_html`.
        samples: as in :func:`token_html`.
    """
    return write_text_file(path, token_html(influence, title=title, samples=samples))


def _text(influence: TokenInfluence, sample: int) -> str:
    found = []
    for token, text in enumerate(influence.tokens[sample]):
        value = influence.values[sample, token]
        shown = html.escape(visible(text))
        for sign in VISIBLE.values():
            shown = shown.replace(sign, f"<i>{sign}</i>")
        # Keeps the line ends of the text: what follows in the token is the next line's indentation.
        if "\n" in text:
            shown = _LINE_ENDS.sub(r"\g<0>\n", shown)
        place = f"sample {sample}, token {token}"
        if np.isnan(value):
            found.append(f'<span class="none" title="{place}: no loss">{shown}</span>')
        else:
            side = "" if value == 0 else " helpful" if value < 0 else " harmful"
            mark = ' class="query"' if (sample, token) == (influence.sample, influence.token) else ""
            about = html.escape(f"{place}: {value:.3g} {influence.printed_units}{side}")
            found.append(f'<span{mark} style="{_colours(value / influence.limit)}" title="{about}">{shown}</span>')
    return "".join(found)


def _colours(share: float) -> str:
    """Returns the background and a legible text colour."""
    red, green, blue = colour = background(share)
    return f"background:#{red:02x}{green:02x}{blue:02x}" + (";color:#fff" if is_dark(colour) else "")
