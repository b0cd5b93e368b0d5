from pathlib import Path

import pytest
import yaml

from stagewise.errors import InputError
from stagewise.sweep.checkpoint_names import CheckpointName, NameRules, branch_of, tokens_of

SUITES = yaml.safe_load((Path(__file__).parent / "suites.yaml").read_text())
OLMO2 = SUITES["allenai/OLMo-2-1124-7B"]
AMBER = list(SUITES["LLM360/Amber"]["seen"])


def entries(suite):
    return suite["seen"] | suite["by_convention"]


def names(suite):
    return [*suite["without_step"], *entries(suite)]


@pytest.mark.parametrize("name", [name for name in SUITES if name != "LLM360/Amber"])
def test_the_branches_of_a_suite_tell_steps_tokens_and_stages(name):
    suite = SUITES[name]
    expected = {at: tuple(told) for at, told in entries(suite).items()}
    found = {}
    for branch in {told[2] for told in expected.values()}:
        places = NameRules(branch=branch).place(names(suite), name)
        assert list(places) == sorted(places)
        found |= {item.name: (step, item.tokens, item.branch) for step, item in places.items()}
    assert found == expected


def test_eight_kinds_of_suites_are_recorded():
    assert len(SUITES) >= 8
    assert all(entries(suite) for suite in SUITES.values())


def test_a_suite_that_forks_is_refused_with_its_branches_and_what_to_give():
    with pytest.raises(InputError, match="checkpoints of 4 branches in 'OLMo 2'") as caught:
        NameRules().place(names(OLMO2), "'OLMo 2'")
    words = str(caught.value)
    assert "stage1 (5 of steps 150 to 928,646)" in words
    assert "stage2-ingredient3 (2 of steps 1,000 to 11,931)" in words
    assert "--branch stage1 or stage1+stage2-ingredient1" in words
    assert "\n" not in words


def test_a_fork_is_counted_on_from_the_stage_before():
    places = NameRules(branch="stage1+stage2-ingredient2").place(names(OLMO2), "it")
    assert list(places)[-3:] == [928646, 928646 + 1000, 928646 + 11000]
    last = places[928646 + 11000]
    assert (last.name, last.tokens) == ("stage2-ingredient2-step11000-tokens47B", 3896 * 10**9 + 47 * 10**9)
    assert [place.branch for place in places.values()] == ["stage1"] * 5 + ["stage2-ingredient2"] * 2


def test_a_stage_that_counts_on_itself_is_left_as_it_is():
    given = ["stage1-step-40000", "stage1-step-3440000", "stage2-step-3480000", "lc-4k-to-32k-step-4000"]
    places = NameRules(branch="stage1+stage2").place(given, "it")
    assert list(places) == [40000, 3440000, 3480000]
    assert list(NameRules(branch="lc-4k-to-32k").place(given, "it")) == [4000]


def test_a_branch_that_is_not_there_is_told_from_those_that_are():
    with pytest.raises(InputError, match=r"got branch 'stage3', which it does not have; expected one of stage1 \("):
        NameRules(branch="stage1+stage3").place(names(OLMO2), "it")


def test_checkpoints_that_are_only_numbered_ask_for_steps_or_tokens():
    with pytest.raises(
        InputError, match=r"got checkpoints ckpt_000, ckpt_001, .*numbered.*give name_tokens, e.g. \{ckpt_000"
    ):
        NameRules().place(["main", *AMBER], "it")
    tokens = {name: 3.5e9 * (int(name[-3:]) + 1) for name in AMBER}
    places = NameRules(tokens=tokens).place(["main", *AMBER, "ckpt_123"], "it")
    assert list(places) == [0, 1, 40, 355, 356, 358]
    assert places[40].tokens == round(3.5e9 * 41)
    steps = NameRules(steps={"ckpt_001": 2000, "main": 360000}).place(["main", *AMBER], "it")
    assert steps == {2000: CheckpointName("ckpt_001", 2000), 360000: CheckpointName("main", 360000)}
    assert list(NameRules(pattern=r"ckpt_(\d+)").place(AMBER, "it")) == [0, 1, 40, 355, 356, 358]


def test_both_steps_and_tokens_can_be_given():
    rules = NameRules(steps={"a": 5, "b": 7}, tokens={"a": 10})
    places = rules.place(["a", "b", "c"], "it")
    assert {step: item.tokens for step, item in places.items()} == {5: 10, 7: None}


def test_tokens_of_a_step_are_multiplied_out_and_go_before_the_rounded_ones_of_names():
    places = NameRules(tokens_per_step=2_097_152).place(["step-001000-2BT", "step-002000-4BT"], "it")
    assert [place.tokens for place in places.values()] == [2_097_152_000, 4_194_304_000]


def test_tokens_that_are_given_for_a_name_go_before_those_of_a_step():
    rules = NameRules(tokens={"ckpt_000": 3.5e9, "ckpt_001": 7e9}, tokens_per_step=1000)
    places = rules.place(["ckpt_000", "ckpt_001"], "it")
    assert [place.tokens for place in places.values()] == [3_500_000_000, 7_000_000_000]


@pytest.mark.parametrize("kind", ["checkpoint-0100", "ckpt_05", "epoch_3", "model_epoch-3", "ep12"])
def test_numbers_of_checkpoints_and_epochs_are_no_steps(kind):
    with pytest.raises(InputError, match="numbered"):
        NameRules().place([kind], "it", any_number=lambda _: True)


def test_a_lone_number_is_no_step_where_other_names_say_step():
    def place(*given):
        return list(NameRules().place(given, "it", any_number=lambda _: True))

    assert place("step500", "step1000", "gpt2", "epoch-1", "7") == [500, 1000]
    assert place("7", "20") == [7, 20]


def test_long_numbers_with_zeros_in_front_are_steps():
    assert list(NameRules().place(["CrystalCoder_phase1_checkpoint_055500"], "it")) == [55500]


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("step1-tokens0B", 0), ("step5-tokens1.5T", 1.5e12), ("step-3-7MT", 7e6), ("step3-2BTx", None), ("step500", None)],
)
def test_tokens_are_read_with_their_unit(name, tokens):
    assert tokens_of(name) == tokens


@pytest.mark.parametrize(
    ("name", "branch"),
    [("stage2-step4", "stage2"), ("backstage2-step4", "main"), ("run2_checkpoint-500", "main"), ("step4", "main")],
)
def test_branches_are_told_by_stages_alone(name, branch):
    assert branch_of(name) == branch


def test_two_of_one_step_are_refused_within_a_branch():
    with pytest.raises(InputError, match="two checkpoints of step 5, step5-tokens1B and step5 in it"):
        NameRules().place(["step5-tokens1B", "step5"], "it")
