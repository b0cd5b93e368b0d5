"""Nested tree, as written in YAML, read into a list of nodes."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stagewise.errors import InputError

_FORM = 'a mapping such as {"living thing": {"animal": ["dog", "cat"], "plant": ["oak", "rose"]}}'


class Node(NamedTuple):
    """One node of a tree.

    Attributes:
        name: unique in its tree.
        parent: index of its parent in the list of nodes; -1 for the root.
        leaf: True if it has no children.
    """

    name: str
    parent: int
    leaf: bool


def read_tree(tree: Mapping[str, Any]) -> tuple[Node, ...]:
    """Reads and checks a nested tree.

    Args:
        tree: a single root, as a mapping from its name to its children. Children are a list, whose entries are names of
            leaves or mappings from further nodes to their children, or such a mapping itself.

    Returns:
        The nodes in tree order: the root first, each node before its children, children in the order written.

    Raises:
        InputError: the tree is not of this form, does not have exactly one root, has fewer than two leaves, an inner
            node without children, or a name that is not a string, is blank or occurs twice.
    """
    if not isinstance(tree, Mapping):
        raise InputError(f"got a tree of type {type(tree).__name__}; expected {_FORM}; write the root's name first")
    if not tree:
        raise InputError(f"got an empty tree, without any item; expected {_FORM}; leave it out for the default tree")
    if len(tree) > 1:
        raise InputError(f"got a tree of {len(tree)} roots, {list(tree)}; expected one; put them under a common root")
    nodes: list[Node] = []
    seen: set[str] = set()
    for node in _walk(tree, parent=-1):
        # Checked during the walk, so that a tree that contains itself (a YAML alias) is refused too.
        if not isinstance(node.name, str):
            raise InputError(f"got a node named {node.name!r}; expected a string; put it between quotes")
        if not node.name.strip():
            raise InputError("got a node with a blank name; expected one that can be read; give it a name")
        if node.name in seen:
            raise InputError(f"got the name {node.name!r} twice; expected every name once; rename one of the nodes")
        seen.add(node.name)
        nodes.append(node)
    items = sum(node.leaf for node in nodes)
    if items < 2:
        raise InputError(f"got a tree of {items} item; expected 2 or more; add a leaf")
    return tuple(nodes)


def _walk(children: Any, *, parent: int, place: int = 0) -> Iterator[Node]:
    """Yields the nodes below ``parent`` in tree order; the first has index ``place`` in the list."""
    entries = [children] if isinstance(children, Mapping) else children
    for entry in entries:
        if isinstance(entry, list | tuple):
            raise InputError(
                f"got a list within a list, {entry!r:.60}; expected names and mappings; name the inner list's node"
            )
        if not isinstance(entry, Mapping):
            yield Node(entry, parent, leaf=True)
            place += 1
            continue
        for name, below in entry.items():
            if not isinstance(below, Mapping | list | tuple):
                raise InputError(
                    f"got {below!r:.60} below {name!r}; expected a list of items or a mapping; "
                    f"write [name] for a single item, and leave {name!r} in its parent's list if it is an item itself"
                )
            if not below or any(isinstance(inner, Mapping) and not inner for inner in below):
                raise InputError(f"got an empty subtree at {name!r}; expected children; list it as an item or drop it")
            yield Node(name, parent, leaf=False)
            here, place = place, place + 1
            for node in _walk(below, parent=here, place=place):
                place += 1
                yield node
