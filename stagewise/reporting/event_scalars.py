"""Scalars in the event files of a run, read without its images.

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
"""Bytes beyond which a record is an image or text."""

_HEAD, _TAIL = struct.Struct("<Q4x"), 4
"""Layout of a TFRecord: before the data their length and a checksum of it, after them a checksum."""


def event_scalars(folder: Path, names: Collection[str]) -> dict[str, dict[int, float]]:
    """Returns scalars of a run by tag and step; the value written last, if a step has several.

    Args:
        folder: of the event files, which are read in the order of their names.
        names: requested tags.

    Returns:
        Only the tags found. Data after a truncated record, as in a killed run, are left out.
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
                # A resumed run: earlier values from this step on are void.
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
