"""Errors that a user can act on: each message says what was got, what was expected and what to do."""


class InputError(ValueError):
    """Unusable setting, data set or file; raised before work starts, shown as one line on the command line."""


class LossContractError(InputError, TypeError):
    """Missing or unusable per-sample loss of a module, or one that breaks the loss contract."""


def first_line(error: BaseException, *, typed: bool = False) -> str:
    """Returns the first non-blank line of an error message; the name of the error's type if there is none.

    Args:
        error: any exception.
        typed: prefix the line with the name of the type.
    """
    name = type(error).__name__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if typed and line:
        return f"{name}: {line}"
    return line or name


def require(condition: bool, name: str, got: object, expected: str, advice: str) -> None:
    """Raises an error unless a setting meets its condition.

    Raises:
        InputError: the condition is False; the message says what was got, what was expected and what to do.
    """
    if not condition:
        raise InputError(f"got {name}={got}; expected {expected}; {advice}")
