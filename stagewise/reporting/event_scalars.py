"""Scalars in the event files of a run, read past its pictures.

TensorBoard's own reader checks a sum over every byte in Python, which takes longer the more pictures a run has.
"""

import struct
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

PATTERN = "events.out.tfevents.*"
"""Names of event files."""

_LARGEST = 1 << 16
"""Bytes beyond which a record is a picture or text."""

_HEAD, _TAIL = struct.Struct("<Q4x"), 4
"""Of a record (TFRecord): its length and a checksum of that before it, a checksum behind it."""


def event_scalars(folder: Path, names: Collection[str]) -> dict[str, dict[int, float]]:
    """Scalars of a run by tag and step; the value that was written last, where a step has several.

    Args:
        folder: of the event files, which are read in the order of their names.
        names: tags that are wanted.

    Returns:
        Only tags that were found. What follows on a record that is cut off, as of a run that was killed, is left out.
    """
    # Late: TensorBoard takes a while to import.
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    found: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.glob(PATTERN)):
        for record in _small_records(path):
            try:
                event: Any = Event.FromString(record)
            except DecodeError:
                break
            if event.session_log.status == SessionLog.START:
                # A resumed run: what an earlier one wrote beyond this step is void.
                for kept in found.values():
                    for step in [step for step in kept if step >= event.step]:
                        del kept[step]
            for value in event.summary.value:
                if value.tag in names and value.HasField("simple_value"):
                    found[value.tag][event.step] = value.simple_value
    return {name: kept for name, kept in found.items() if kept}


def _small_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a file that can be scalars."""
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            (length,) = _HEAD.unpack(head)
            if length > _LARGEST:
                file.seek(length + _TAIL, 1)
                continue
            record = file.read(length)
            if len(record) < length:
                return
            file.seek(_TAIL, 1)
            yield record
