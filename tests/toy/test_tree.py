import pytest

from stagewise.errors import InputError
from stagewise.toy.tree import Node, read_tree


def test_nodes_come_in_tree_order_with_their_parents():
    tree = {"life": [{"animal": {"mammal": ["dog", {"bat": ("fruit bat", "pipistrelle")}], "bird": ["wren"]}}, "virus"]}
    assert read_tree(tree) == (
        Node("life", -1, False),
        Node("animal", 0, False),
        Node("mammal", 1, False),
        Node("dog", 2, True),
        Node("bat", 2, False),
        Node("fruit bat", 4, True),
        Node("pipistrelle", 4, True),
        Node("bird", 1, False),
        Node("wren", 7, True),
        Node("virus", 0, True),
    )


def test_a_list_of_mappings_is_the_mapping():
    assert read_tree({"r": [{"a": ["x"]}, {"b": ["y"]}]}) == read_tree({"r": {"a": ["x"], "b": ["y"]}})
    assert read_tree({"r": [{"a": ["x"], "b": ["y"]}]}) == read_tree({"r": {"a": ["x"], "b": ["y"]}})


ITSELF: dict = {"a": ["x"]}
ITSELF["a"].append(ITSELF)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (["dog", "cat"], "of type list"),
        ("dog", "of type str"),
        ({}, "empty tree"),
        ({"a": ["x", "y"], "b": ["z", "w"]}, r"2 roots, \['a', 'b'\]"),
        ({"a": ["x"]}, "tree of 1 item;"),
        ({"a": {"b": {"c": ["x"]}}}, "tree of 1 item;"),
        ({"a": []}, "empty subtree at 'a'"),
        ({"a": {}}, "empty subtree at 'a'"),
        ({"a": ["x", {}]}, "empty subtree at 'a'"),
        ({"a": {"b": ["x", "y"], "c": []}}, "empty subtree at 'c'"),
        ({"a": {"b": ["x", "y"], "c": None}}, "got None below 'c'"),
        ({"a": {"b": ["x", "y"], "c": "z"}}, r"got 'z' below 'c'.*\[name\]"),
        ({"a": ["x", ["y", "z"]]}, "a list within a list"),
        ({"a": ["x", "x"]}, "'x' twice"),
        ({"a": {"b": ["x"], "c": ["x"]}}, "'x' twice"),
        ({"a": {"b": ["b", "y"]}}, "'b' twice"),
        ({"a": ["x", 3]}, "named 3; expected a string"),
        ({"a": ["x", None]}, "named None; expected a string"),
        ({True: ["x", "y"]}, "named True; expected a string"),
        ({"a": {1: ["x", "y"]}}, "named 1; expected a string"),
        ({"a": ["x", " "]}, "blank name"),
        (ITSELF, "'a' twice"),
    ],
)
def test_trees_that_cannot_be_read_are_refused_in_one_line(tree, message):
    with pytest.raises(InputError, match=message) as refused:
        read_tree(tree)
    assert "expected" in str(refused.value)
    assert "\n" not in str(refused.value)
