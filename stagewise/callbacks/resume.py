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
    for name, value in now.items():
        if before.get(name) != value:
            what = "other data" if name == "data" else f"{name} {value}"
            was = "" if name == "data" else f" ({before.get(name)})"
            raise InputError(
                f"got {what} for the probes of a resumed run; expected that of its checkpoint{was}; change it back, or "
                "start a new run"
            )
