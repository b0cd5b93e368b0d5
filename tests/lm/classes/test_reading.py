import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.errors import InputError
from stagewise.lm.classes import DEFAULT_CLASSES, ClassSpec
from stagewise.lm.classes.reading import read_specs
from tests.outcomes import outcome

HERE = "tests.lm.classes.user_predicates"


def test_classes_are_named_by_lists_and_mappings():
    assert read_specs(["numeric", "spacing"]) == {name: DEFAULT_CLASSES[name] for name in ("numeric", "spacing")}
    own = ClassSpec(pattern="^ def", not_preceded_by="x")
    read = read_specs(
        {
            "definitions": own,
            "the_same": {"pattern": "^ def", "not_preceded_by": "x"},
            "numbers": "numeric",
            "spacing": "spacing",
            "third": {"predicate": f"{HERE}.third_position"},
        }
    )
    assert list(read) == ["definitions", "the_same", "numbers", "spacing", "third"]
    assert read["definitions"] == read["the_same"]
    assert read["numbers"] == DEFAULT_CLASSES["numeric"]
    assert read_specs(list(DEFAULT_CLASSES)) == dict(DEFAULT_CLASSES)
    assert read_specs(dict(DEFAULT_CLASSES), complements=True) == dict(DEFAULT_CLASSES)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "expected a list of default classes"),
        ({}, "expected a list of default classes"),
        ("numeric", "expected a list of default classes"),
        (None, "expected a list of default classes"),
        (["numbers"], "got class 'numbers'; expected one of word_start, word_part"),
        ({"mine": "numbers"}, "got class 'numbers'; expected one of word_start"),
        (["numeric", "spacing", "numeric"], "'numeric' twice"),
        ([ClassSpec(pattern="x")], "got class name ClassSpec.*of type ClassSpec"),
        ({"a/b": "numeric"}, "got class name 'a/b'"),
        ({"a~b": "numeric"}, "got class name 'a~b'"),
        ({"": "numeric"}, "got class name ''"),
        ({1: "numeric"}, "got class name 1"),
        ({"numeric": {"pattern": "x"}}, "'numeric' with conditions of its own"),
        ({"numeric": "spacing"}, "'numeric' with conditions of its own"),
        ({"mine": None}, "got class 'mine' as NoneType"),
        ({"mine": {"patern": "x"}}, "got 'patern' in class 'mine'; expected only pattern, followed_by"),
        ({"mine": {}}, "without a condition"),
        ({"mine": {"pattern": "("}}, r"got pattern='\(' \(missing \) at character 2\); expected a regular expression"),
        ({"mine": {"pattern": 3}}, "got pattern=3"),
        ({"mine": {"pattern": "x", "not_followed_by": "a\n["}}, r"got not_followed_by='a\\n\[' .*at character 4"),
        ({"mine": {"predicate": len}}, "got predicate="),
        ({"mine": {"predicate": "len"}}, "predicate 'len', which cannot be imported"),
        ({"mine": {"predicate": f"{HERE}.absent"}}, "cannot be imported"),
        ({"mine": {"predicate": f"{HERE}.not_a_predicate"}}, r"which is a int; expected a function \(text\) -> bool"),
        ({"mine": {"pattern": "x", "max_bigram_frequency": 0.0}}, "got max_bigram_frequency=0.0"),
        ({"mine": {"pattern": "x", "max_bigram_frequency": 1.0}}, "got max_bigram_frequency=1.0"),
        (
            {"mine": {"pattern": "x", "max_bigram_frequency": "1e-4"}},
            "max_bigram_frequency='1e-4'.*YAML takes 1.0e-4",
        ),
        ({"mine": {"pattern": "x", "max_bigram_frequency": float("nan")}}, "got max_bigram_frequency=nan"),
    ],
)
def test_what_cannot_be_a_class_is_refused_in_one_line(specs, message):
    with pytest.raises(InputError, match=message) as caught:
        read_specs(specs)
    assert "\n" not in str(caught.value)


def test_a_class_that_is_named_as_a_complement_clashes_only_where_complements_are_asked_for():
    specs = {"x": {"pattern": "x"}, "not_x": {"pattern": "y"}}
    assert list(read_specs(specs)) == ["x", "not_x"]
    with pytest.raises(InputError, match="'not_x', which is also the complement of 'x'"):
        read_specs(specs, complements=True)


SINGLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = SINGLE | st.lists(st.text(max_size=3))
ONE_CLASS = VALUES | st.dictionaries(st.sampled_from([*ClassSpec.__dataclass_fields__, "patern"]) | SINGLE, VALUES)
NAMES = st.sampled_from(["mine", "yours", *DEFAULT_CLASSES]) | SINGLE


@settings(max_examples=300, deadline=None)
@given(VALUES | st.lists(NAMES | ONE_CLASS, max_size=4) | st.dictionaries(NAMES, ONE_CLASS, max_size=4), st.booleans())
def test_whatever_yaml_may_hold_is_classes_or_refused_in_one_line(specs, complements):
    found, refused = outcome(lambda: read_specs(specs, complements=complements))
    if refused is None:
        assert found
        assert all(isinstance(spec, ClassSpec) for spec in found.values())


def test_conditions_of_several_types_are_named_in_one_line():
    _, refused = outcome(lambda: read_specs({"mine": {1: "a", "patern": "b", None: 3}}))
    assert refused.startswith("got 1, 'patern', None in class 'mine'; expected only pattern")
