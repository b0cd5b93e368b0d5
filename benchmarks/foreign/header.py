"""Facts in a case file, read without running it: its package is missing in the environment that reads them."""

import ast
import re
from dataclasses import dataclass

from case import CASES


@dataclass(frozen=True)
class Header:
    """Of one case.

    Attributes:
        requires: what pip installs.
        package: name of the distribution, which is the first of them.
        trained: what is trained.
        arguments: names of what the callback is given, as written.
        limits: words for the table; empty where there are none.
    """

    requires: tuple[str, ...]
    trained: str
    arguments: str
    limits: str

    @property
    def package(self) -> str:
        """Distribution name of the package."""
        return re.split(r"[\[=<>~!;]", self.requires[0])[0]


def header(case: str) -> Header:
    """Read ``REQUIRES``, ``TRAINED``, ``ARGUMENTS`` and ``LIMITS`` of a case.

    Raises:
        ValueError: one of the first three is missing, or ``ARGUMENTS`` is not a dict of names.
    """
    tree = ast.parse((CASES / f"{case}.py").read_text())
    found = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    missing = {"REQUIRES", "TRAINED", "ARGUMENTS"} - set(found)
    if missing:
        raise ValueError(f"got {case}.py without {', '.join(sorted(missing))}; expected them at its top level")
    arguments = found["ARGUMENTS"]
    if not isinstance(arguments, ast.Dict) or None in arguments.keys:
        raise ValueError(f"got ARGUMENTS = {ast.unparse(arguments)} in {case}.py; expected a dict of names, in braces")
    keys = [ast.literal_eval(key) for key in arguments.keys if key is not None]
    names = [f"{key}={ast.unparse(value)}" for key, value in zip(keys, arguments.values, strict=True)]
    return Header(
        requires=ast.literal_eval(found["REQUIRES"]),
        trained=ast.literal_eval(found["TRAINED"]),
        arguments=", ".join(names),
        limits=ast.literal_eval(found["LIMITS"]) if "LIMITS" in found else "",
    )
