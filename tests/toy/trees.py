"""Trees whose inner nodes all have the same number of children."""

from stagewise.toy.hierarchy import Hierarchy


def balanced(depth, branching, *, root_property=True):
    """A tree of ``branching ** depth`` items; depth is the number of edges from the root to an item."""

    def children(path, level):
        names = [f"{path}.{child}" if path else str(child) for child in range(branching)]
        if level == depth:
            return [f"item {name}" for name in names]
        return {f"node {name}": children(name, level + 1) for name in names}

    return Hierarchy({"root": children("", 1)}, root_property)
