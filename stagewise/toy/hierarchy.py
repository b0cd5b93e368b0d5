"""Data of the toy: items at the leaves of a tree, with one property per node."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stagewise.checks.bounds import settle_fields
from stagewise.errors import InputError
from stagewise.toy.modes import Modes, modes_of
from stagewise.toy.tree import Node, read_tree

Array = NDArray[np.float64]
Relation = Literal["self", "sibling", "cousin", "far"]

DEFAULT_TREE: Mapping[str, Any] = {
    "living thing": {
        "animal": {"mammal": ["dog", "cat"], "bird": ["sparrow", "eagle"]},
        "plant": {"tree": ["oak", "pine"], "flower": ["rose", "daisy"]},
    }
}


class Branch(NamedTuple):
    """Node with two or more children.

    Attributes:
        name: of the node.
        children: indices of the items below each child, in tree order.
    """

    name: str
    children: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Hierarchy:
    """Items and properties of a tree.

    Leaves are items. Every node, including the root and the leaves, is one property, shared by exactly the items at or
    below it. Two hierarchies are equal if their nodes, in order, and ``root_property`` are equal.

    Source: Saxe, McClelland and Ganguli, A mathematical theory of semantic development in deep neural networks, PNAS
    2019.

    Attributes:
        tree: a single root, as a mapping from its name to its children. Children are a list of item names and mappings
            of further nodes, or such a mapping. Any depth and branching, see :func:`~stagewise.toy.tree.read_tree`.
            None for :data:`DEFAULT_TREE`, with 8 items and 15 properties.
        root_property: True if the root's property, which all items have, is one of the features.

    Raises:
        InputError: the tree cannot be read, does not have exactly one root, has fewer than two items, an empty subtree,
            or a name that is not a string or occurs twice.
    """

    tree: Mapping[str, Any] | None = None
    root_property: bool = True

    def __post_init__(self) -> None:
        settle_fields(self, leave=("tree",))
        # Read now, and only once: invalid trees are refused early, and later changes to the mapping have no effect.
        _ = self._nodes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hierarchy) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @cached_property
    def items(self) -> tuple[str, ...]:
        """Names of the items, in tree order."""
        return tuple(node.name for node in self._nodes if node.leaf)

    @cached_property
    def properties(self) -> tuple[str, ...]:
        """Names of the properties, in tree order: each node before its children."""
        return tuple(node.name for node in self._nodes[self._first :])

    @cached_property
    def features(self) -> Array:
        """Features ``[item, property]``, 1 where the item has the property, else 0; read-only."""
        table = np.zeros((len(self.items), len(self._nodes)))
        for node, items in enumerate(self._below):
            table[list(items), node] = 1.0
        features = table[:, self._first :].copy()
        features.setflags(write=False)
        return features

    @cached_property
    def relations(self) -> NDArray[np.str_]:
        """Relations of all pairs of items ``[item, item]``, see :meth:`relation`; read-only."""
        count = len(self.items)
        table = np.array([[self.relation(i, j) for j in range(count)] for i in range(count)])
        table.setflags(write=False)
        return table

    def relation(self, item: str | int, other: str | int) -> Relation:
        """Returns the relation of two items.

        It follows from the number of edges from the deeper of the two up to their lowest common ancestor: one for
        siblings (the same parent), two for cousins, more for far relations. If all items are at the same depth, cousins
        have the same grandparent and different parents; otherwise an item and the children of its sibling are cousins
        too.

        Args:
            item: name or index.
            other: name or index.

        Returns:
            "self", "sibling", "cousin" or "far".

        Raises:
            InputError: no such item.
        """
        first, second = self._ancestry[self._index(item)], self._ancestry[self._index(other)]
        if first == second:
            return "self"
        shared = sum(a == b for a, b in zip(first, second, strict=False))
        edges = max(len(first), len(second)) - shared
        return "sibling" if edges == 1 else "cousin" if edges == 2 else "far"

    def pairs(self) -> list[tuple[int, int, Relation]]:
        """Returns all pairs of different items ``(i, j, relation)`` with ``i < j``, in order."""
        return [(i, j, self.relation(i, j)) for i, j in combinations(range(len(self.items)), 2)]

    def branches(self) -> tuple[Branch, ...]:
        """Returns the inner nodes with two or more children, in tree order, with the items below each child."""
        children: list[list[tuple[int, ...]]] = [[] for _ in self._nodes]
        for node, items in zip(self._nodes[1:], self._below[1:], strict=True):
            children[node.parent].append(items)
        return tuple(
            Branch(node.name, tuple(below)) for node, below in zip(self._nodes, children, strict=True) if len(below) > 1
        )

    def modes(self) -> Modes:
        """Returns the modes of ``features.T``, the map from one-hot items to properties: one per item."""
        return modes_of(self.features)

    @cached_property
    def _nodes(self) -> tuple[Node, ...]:
        return read_tree(DEFAULT_TREE if self.tree is None else self.tree)

    @property
    def _identity(self) -> tuple[tuple[Node, ...], bool]:
        return self._nodes, self.root_property

    @property
    def _first(self) -> int:
        """Index of the first node that is a property."""
        return 0 if self.root_property else 1

    @cached_property
    def _ancestry(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the nodes from the root down to each item."""
        lines: list[tuple[int, ...]] = []
        for place, node in enumerate(self._nodes):
            lines.append((*lines[node.parent], place) if node.parent >= 0 else (place,))
        return tuple(line for line, node in zip(lines, self._nodes, strict=True) if node.leaf)

    @cached_property
    def _below(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the items that have the property of each node."""
        below: list[list[int]] = [[] for _ in self._nodes]
        for item, line in enumerate(self._ancestry):
            for place in line:
                below[place].append(item)
        return tuple(tuple(items) for items in below)

    def _index(self, item: str | int) -> int:
        if isinstance(item, str) and item in self.items:
            return self.items.index(item)
        if isinstance(item, int | np.integer) and 0 <= item < len(self.items):
            return int(item)
        raise InputError(
            f"got item {item!r}; expected a name or an index below {len(self.items)}; the names are {self.items}"
        )
