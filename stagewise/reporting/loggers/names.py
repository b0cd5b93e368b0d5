"""Tags as names of files and of MLflow's metrics, which allow fewer characters: different tags stay different."""

import re
import zlib

_PAIR = " - "
"""Stands for the ``~`` between two groups."""


def plain_name(tag: str) -> str:
    """Tag in letters, digits, ``_``, ``-``, ``.``, space and ``/`` alone.

    ``influence/within/cats~dogs`` becomes ``influence/within/cats - dogs``. A tag that loses more than its ``~`` gets a
    checksum at its end, so that no two tags share a name. It never is, or holds, a path that leads elsewhere.

    Args:
        tag: any text.
    """
    name = tag.replace("~", _PAIR)
    parts = [re.sub(r"[^a-zA-Z0-9_. -]", "_", part).strip(" .") or "_" for part in name.split("/")]
    plain = "/".join(parts)
    lossless = plain == name and _PAIR not in tag
    return plain if lossless else f"{plain}_{zlib.crc32(tag.encode()):08x}"
