import pytest
import torch

from stagewise.errors import InputError
from stagewise.lm.classes import class_coverage


def _random(*names, shape=(6, 9)):
    return {name: torch.rand(shape) < 0.4 for name in names}


def test_counts_equal_a_plain_loop():
    groups = _random("a", "b", "c")
    among = torch.rand(6, 9) < 0.7
    for kept in (None, among):
        places = [(i, k) for i in range(6) for k in range(9) if kept is None or kept[i, k]]
        held = [[name for name, mask in groups.items() if mask[place]] for place in places]
        found = class_coverage(groups, among=kept)
        assert found.num_targets == len(places)
        assert found.in_none == sum(not names for names in held)
        assert found.in_several == sum(len(names) > 1 for names in held)
        expected = [[sum(a in names and b in names for names in held) for b in groups] for a in groups]
        assert found.overlap.tolist() == expected
        assert found.shares == {name: sum(name in names for names in held) / len(places) for name in groups}


def test_complements_do_not_count():
    groups = _random("a", "b")
    both = groups | {"not_a": ~groups["a"]}
    assert class_coverage(both).names == ("a", "b")
    assert class_coverage(both).in_none == class_coverage(groups).in_none
    assert class_coverage({"not_a": groups["a"]}).names == ("not_a",)


def test_markdown_says_counts_and_shares():
    groups = {"a": torch.tensor([[True, True, False, False]]), "b": torch.tensor([[False, True, False, False]])}
    assert class_coverage(groups).markdown().splitlines() == [
        "| class | targets | share |",
        "| --- | ---: | ---: |",
        "| a | 2 | 50.0% |",
        "| b | 1 | 25.0% |",
        "| *in none* | 2 | 50.0% |",
        "| *in several* | 1 | 25.0% |",
        "| *all targets* | 4 | 100.0% |",
        "",
        "| in both | a | b |",
        "| --- | ---: | ---: |",
        "| a | 2 | 1 |",
        "| b | 1 | 1 |",
    ]


def test_groups_of_whole_samples_are_counted_in_samples():
    groups = {"a": torch.tensor([True, True, False]), "b": torch.tensor([False, True, False])}
    found = class_coverage(groups)
    assert (found.unit, found.num_targets, found.overlap.tolist()) == ("samples", 3, [[2, 1], [1, 1]])
    lines = found.markdown().splitlines()
    assert lines[0] == "| group | samples | share |"
    assert "| *all samples* | 3 | 100.0% |" in lines


def test_more_targets_than_are_multiplied_at_a_time_are_all_counted():
    groups = _random("a", "b", shape=(90, 100))
    both = int((groups["a"] & groups["b"]).sum())
    assert class_coverage(groups).overlap[0, 1] == both


@pytest.mark.parametrize(("number", "paired"), [(64, True), (65, False)])
def test_very_many_classes_are_counted_but_not_paired(number, paired):
    text = class_coverage({f"c{row}": torch.arange(number) == row for row in range(number)}).markdown()
    assert f"| c{number - 1} | 1 |" in text
    assert ("in both" in text) == paired


@pytest.mark.parametrize(
    ("groups", "among", "message"),
    [
        ({}, None, "no class"),
        ({"a": torch.ones(2, 3) > 0, "b": torch.ones(3, 2) > 0}, None, r"shapes \[\(2, 3\), \(3, 2\)\]"),
        ({"a": torch.ones(2, 3) > 0}, torch.ones(2) > 0, r"shapes \[\(2,\), \(2, 3\)\]"),
        ({"a": torch.ones(2, 3) > 0}, torch.zeros(2, 3) > 0, "no target"),
    ],
)
def test_masks_that_do_not_fit_are_refused(groups, among, message):
    with pytest.raises(InputError, match=message):
        class_coverage(groups, among=among)


def test_a_name_with_a_bar_breaks_no_table():
    lines = class_coverage({"a|b": torch.tensor([True, False])}).markdown().splitlines()
    assert any(line.startswith(r"| a\|b | 1 |") for line in lines)
