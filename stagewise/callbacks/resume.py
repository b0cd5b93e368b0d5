"""What a resumed run must have in common with its checkpoint."""

from collections.abc import Mapping

from stagewise.errors import InputError


def check_unchanged(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on with other settings or data: probes would be compared that do not compare.

    Args:
        before: fingerprint in the checkpoint, see :meth:`stagewise.probes.prober.Prober.fingerprint`.
        now: fingerprint of the run.

    Raises:
        InputError: they differ.
    """
    for name in dict.fromkeys([*now, *before]):
        # The component is a word for the masks: two names may stand for the same.
        if name == "component" or before.get(name) == now.get(name):
            continue
        what, was = f"{name} {now.get(name)}", f" ({before.get(name)})"
        if name == "masks":
            now_moves, moved = _moves(now), _moves(before)
            other = " of other entries" if now_moves == moved else ""  # the same name in another model
            what, was = f"component {now_moves}", f", {moved}{other}"
        elif name == "data":
            what, was = "other data", ""
        raise InputError(
            f"got {what} for the probes of a resumed run; expected that of its checkpoint{was}; change it back, or "
            "start a new run"
        )


def _moves(fingerprint: Mapping[str, str]) -> str:
    """What the chains move, by name."""
    return fingerprint.get("component", "without a name") if "masks" in fingerprint else "null (all weights)"
