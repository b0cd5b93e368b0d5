"""What a call on input of others comes to: a value, or a refusal in one line; any other exception is let through."""

from stagewise.errors import InputError


def outcome(call):
    """Value and None, or None and the words of the refusal."""
    try:
        return call(), None
    except InputError as error:
        words = str(error)
    assert words.startswith("got ")
    assert "\n" not in words
    assert "expected" in words
    return None, words
