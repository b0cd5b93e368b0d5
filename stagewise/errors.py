"""Errors that a user can act on: each says what was got, what was expected and what to do."""


class InputError(ValueError):
    """A setting, data set or file is unusable; raised before work starts, shown as one line by the command line."""


class LossContractError(InputError, TypeError):
    """A module offers no usable per-sample loss, or one that breaks the loss contract."""


def first_line(error: BaseException, *, typed: bool = False) -> str:
    """Returns the first line of an error's message that is not blank; the name of its type if there is none.

    Args:
        error: of any type, with any message.
        typed: put the name of the type before the line.
    """
    name = type(error).__name__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if typed and line:
        return f"{name}: {line}"
    return line or name


def require(condition: bool, name: str, got: object, expected: str, advice: str) -> None:
    """Refuse a setting that breaks its condition.

    Raises:
        InputError: with what was got, what was expected, what to do.
    """
    if not condition:
        raise InputError(f"got {name}={got}; expected {expected}; {advice}")
