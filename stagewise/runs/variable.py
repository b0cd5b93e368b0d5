"""Description of a variable of a run."""

from dataclasses import dataclass

from stagewise.errors import InputError


@dataclass(frozen=True)
class Variable:
    """One variable of a run.

    Attributes:
        name: in the data set.
        axes: at one probe; a run has ``step`` in front, except for coordinates.
        units: as in the attribute; ``1`` for pure numbers, ``""`` for text and booleans.
        long_name: a few words, for axes of figures.
        meaning: a sentence of the documentation.
        sign: meaning of a negative or positive value, or empty.
        source: paper, or the module that has the formula.
        coordinate: True for a coordinate.

    Raises:
        InputError: an empty name, long_name or meaning.
    """

    name: str
    axes: tuple[str, ...]
    units: str
    long_name: str
    meaning: str
    sign: str = ""
    source: str = ""
    coordinate: bool = False

    def __post_init__(self) -> None:
        if not (self.name and self.long_name and self.meaning):
            raise InputError(f"got {self!r}; expected a name, a long_name and a meaning; describe the variable")
