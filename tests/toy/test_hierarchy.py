import dataclasses
from itertools import combinations

import jsonargparse
import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.toy.hierarchy import Branch, Hierarchy
from tests.toy.trees import balanced

# The wren hangs two edges below the animal, dogs three, the virus right below the root.
ASYMMETRIC = {
    "life": [{"animal": [{"mammal": ["cat", {"canine": ["dog", "wolf"]}]}, {"bird": ["wren"]}]}, "virus", "prion"]
}


def test_the_default_tree_has_eight_items_and_fifteen_properties():
    hierarchy = Hierarchy()
    assert hierarchy.items == ("dog", "cat", "sparrow", "eagle", "oak", "pine", "rose", "daisy")
    assert hierarchy.properties[:4] == ("living thing", "animal", "mammal", "dog")
    assert hierarchy.features.shape == (8, 15)
    assert hierarchy.features.dtype == np.float64


def test_exactly_the_items_below_a_node_have_its_property():
    hierarchy = Hierarchy(ASYMMETRIC)
    below = {
        "life": {"cat", "dog", "wolf", "wren", "virus", "prion"},
        "animal": {"cat", "dog", "wolf", "wren"},
        "mammal": {"cat", "dog", "wolf"},
        "canine": {"dog", "wolf"},
        "bird": {"wren"},
        **{item: {item} for item in ("cat", "dog", "wolf", "wren", "virus", "prion")},
    }
    assert set(hierarchy.properties) == set(below)
    assert len(hierarchy.properties) == len(below)
    for item, row in zip(hierarchy.items, hierarchy.features, strict=True):
        assert row.tolist() == [float(item in below[name]) for name in hierarchy.properties]


def test_the_root_property_can_be_left_out():
    whole, without = Hierarchy(ASYMMETRIC), Hierarchy(ASYMMETRIC, root_property=False)
    assert without.properties == whole.properties[1:]
    assert np.array_equal(without.features, whole.features[:, 1:])
    assert without.items == whole.items
    assert without.branches() == whole.branches()


def test_relations_of_the_default_tree():
    hierarchy = Hierarchy()
    assert hierarchy.relation("dog", "dog") == "self"
    assert hierarchy.relation("dog", "cat") == "sibling"
    assert hierarchy.relation("dog", "eagle") == "cousin"
    assert hierarchy.relation("rose", "pine") == "cousin"
    assert hierarchy.relation("dog", "oak") == "far"
    assert hierarchy.relation(0, np.int64(2)) == "cousin"


@pytest.mark.parametrize(
    ("item", "other", "expected"),
    [
        ("dog", "wolf", "sibling"),
        ("virus", "prion", "sibling"),
        ("cat", "dog", "cousin"),  # child of its sibling
        ("cat", "wren", "cousin"),
        ("dog", "wren", "far"),  # three edges up from the dog, two from the wren
        ("wren", "virus", "far"),
        ("virus", "dog", "far"),
    ],
)
def test_relations_count_the_edges_from_the_deeper_item(item, other, expected):
    hierarchy = Hierarchy(ASYMMETRIC)
    assert hierarchy.relation(item, other) == expected
    assert hierarchy.relation(other, item) == expected


@pytest.mark.parametrize(("depth", "branching"), [(1, 3), (2, 3), (4, 2)])
def test_relations_of_balanced_trees_follow_from_the_properties_that_are_shared(depth, branching):
    hierarchy = balanced(depth, branching)
    shared = (hierarchy.features @ hierarchy.features.T).astype(int)
    names = {depth + 1: "self", depth: "sibling", depth - 1: "cousin"}
    expected = [[names.get(number, "far") if number > 0 else "far" for number in row] for row in shared.tolist()]
    assert hierarchy.relations.tolist() == expected


def test_pairs_are_all_pairs_once_with_their_relation():
    hierarchy = Hierarchy(ASYMMETRIC)
    assert hierarchy.pairs() == [(i, j, hierarchy.relations[i, j]) for i, j in combinations(range(6), 2)]
    assert sum(relation == "sibling" for *_, relation in hierarchy.pairs()) == 2


def test_branches_name_the_items_below_each_child():
    assert Hierarchy(ASYMMETRIC).branches() == (
        Branch("life", ((0, 1, 2, 3), (4,), (5,))),
        Branch("animal", ((0, 1, 2), (3,))),
        Branch("mammal", ((0,), (1, 2))),
        Branch("canine", ((1,), (2,))),
    )


def test_balanced_trees_have_the_items_of_their_depth_and_branching():
    hierarchy = balanced(2, 12, root_property=False)
    assert len(hierarchy.items) == 144
    assert len(set(hierarchy.items)) == 144
    assert len(hierarchy.properties) == 144 + 12
    assert (hierarchy.features.sum(axis=1) == 2).all()
    assert len(balanced(12, 2).items) == 4096


def test_it_is_read_from_yaml_and_written_back(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(
        """
        data:
          tree:
            life:
              - animal:
                - mammal:
                  - cat
                  - canine: [dog, wolf]
                - bird: [wren]
              - virus
              - prion
          root_property: false
        """
    )
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--data", type=Hierarchy, default=Hierarchy())
    config = parser.parse_args(["--config", str(path)])
    assert parser.instantiate_classes(config).data == Hierarchy(ASYMMETRIC, root_property=False)
    again = tmp_path / "again.yaml"
    again.write_text(parser.dump(config))
    assert parser.instantiate_classes(parser.parse_args(["--config", str(again)])).data == Hierarchy(ASYMMETRIC, False)
    assert parser.instantiate_classes(parser.parse_args([])).data == Hierarchy()
    assert parser.instantiate_classes(parser.parse_args(["--data.root_property=false"])).data == Hierarchy(
        root_property=False
    )


def test_its_arguments_can_be_added_as_a_class():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Hierarchy, "data")
    config = parser.parse_args(["--data.tree", "{life: {animal: [dog, cat], plant: [oak]}}"])
    assert parser.instantiate_classes(config).data.items == ("dog", "cat", "oak")


def test_equal_hierarchies_have_equal_nodes_in_equal_order():
    tree = {"r": {"a": ["x"], "b": ["y"]}}
    assert Hierarchy(tree) == Hierarchy({"r": [{"a": ["x"]}, {"b": ["y"]}]})
    assert hash(Hierarchy(tree)) == hash(Hierarchy({"r": [{"a": ["x"]}, {"b": ["y"]}]}))
    assert Hierarchy(tree) != Hierarchy({"r": {"b": ["y"], "a": ["x"]}})
    assert Hierarchy(tree) != Hierarchy(tree, root_property=False)


def test_later_changes_to_the_mapping_have_no_effect():
    tree = {"r": ["x", "y"]}
    hierarchy = Hierarchy(tree)
    tree["r"].append("z")
    assert hierarchy.items == ("x", "y")
    with pytest.raises(ValueError, match="read-only"):
        hierarchy.features[0, 0] = 0.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        hierarchy.root_property = False


@pytest.mark.parametrize(
    ("tree", "message"), [({}, "empty tree"), ({"a": ["x"]}, "1 item"), ({"a": ["x", 2]}, "string")]
)
def test_bad_trees_are_refused_at_the_start(tree, message):
    with pytest.raises(InputError, match=message):
        Hierarchy(tree)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="root_property='no'"):
        Hierarchy(root_property="no")


@pytest.mark.parametrize("item", ["unicorn", "mammal", 8, -1, 1.0])
def test_unknown_items_are_refused(item):
    with pytest.raises(InputError, match="expected a name or an index below 8"):
        Hierarchy().relation("dog", item)
