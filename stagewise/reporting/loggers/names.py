"""Tags as names of files and MLflow metrics, which allow fewer characters; different tags stay different."""

import re
import zlib

_PAIR = " - "
"""Replacement of the ``~`` between two groups."""


def plain_name(tag: str) -> str:
    """Returns a tag with only letters, digits, ``_``, ``-``, ``.``, space and ``/``.

    ``influence/within/cats~dogs`` becomes ``influence/within/cats - dogs``. A tag that loses more than its ``~`` gets a
    checksum at its end, so that no two tags share a name. No part of the result is a path that leads elsewhere.

    Args:
        tag: any text.
    """
    name = tag.replace("~", _PAIR)
    parts = [re.sub(r"[^a-zA-Z0-9_. -]", "_", part).strip(" .") or "_" for part in name.split("/")]
    plain = "/".join(parts)
    lossless = plain == name and _PAIR not in tag
    return plain if lossless else f"{plain}_{zlib.crc32(tag.encode()):08x}"
