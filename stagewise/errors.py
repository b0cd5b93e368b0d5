"""Errors that a user can act on: each says what was got, what was expected and what to do."""


class InputError(ValueError):
    """A setting, data set or file is unusable; raised before work starts, shown as one line by the command line."""


class LossContractError(InputError, TypeError):
    """A module offers no usable per-sample loss, or one that breaks the loss contract."""


def require(condition: bool, name: str, got: object, expected: str, advice: str) -> None:
    """Refuse a setting that breaks its condition.

    Raises:
        InputError: with what was got, what was expected, what to do.
    """
    if not condition:
        raise InputError(f"got {name}={got}; expected {expected}; {advice}")
