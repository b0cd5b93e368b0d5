import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.errors import InputError
from stagewise.sweep.step_names import check_pattern, step_of
from tests.outcomes import outcome

NAMES = {
    "step500": 500,
    "step-500": 500,
    "step_500": 500,
    "Step 500": 500,
    "step=500": 500,
    "steps_500": 500,
    "checkpoint-500": 500,
    "checkpoint_500": 500,
    "ckpt-500": 500,
    "global_step500": 500,
    "global-step-500": 500,
    "iter_0000500": 500,
    "iteration-500": 500,
    "epoch=1-step=500": 500,
    "epoch=1-step=500-val_loss=0.25": 500,
    "ep1-ba500": 500,
    "checkpoint-3-step-500": 500,
    "step500-tokens4B": 500,
    "stage1-step500-tokens2B": 500,
    "model-0.5B-step500": 500,
    "run2_checkpoint-500": 500,
    "step0": 0,
}
NONE = [
    "stepx",
    "final",
    "best",
    "step10k",
    "footstep",
    "step1e5",
    "step1-step2",
    "checkpoint",
    "tokens4B",
    "step0.5",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_step_is_the_number_after_the_word_for_it(name):
    assert step_of(name) == NAMES[name]
    assert step_of(name, any_number=True) == NAMES[name]


@pytest.mark.parametrize("name", NONE)
def test_other_names_tell_no_step(name):
    assert step_of(name) is None
    assert step_of(name, any_number=True) is None


@pytest.mark.parametrize(("name", "step"), [("500", 500), ("model_500", 500), ("7b_500", 500), ("1_500", None)])
def test_a_lone_number_counts_where_it_may(name, step):
    assert step_of(name, any_number=True) == step
    assert step_of(name) is None


def test_a_pattern_is_for_the_whole_name_and_goes_before_the_rule():
    assert step_of("model_e3_s500", r"model_e\d+_s(\d+)") == 500
    assert step_of("step_3", r"model_(\d+)") is None
    assert step_of("a_model_3", r"model_(\d+)") is None
    assert step_of("step_x", r"step_(.*)") is None
    assert step_of("step", r"step(\d+)?") is None


@pytest.mark.parametrize("pattern", ["step", r"(\d+)-(\d+)", "("])
def test_patterns_without_one_group_are_refused(pattern):
    with pytest.raises(InputError, match="step_pattern=" + re.escape(repr(pattern)) + ".*with one group"):
        check_pattern(pattern)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=30) | st.from_regex(r"(step|ckpt|iter|x)?[-_ =]?[0-9²٣]{1,8}[a-zB.k]?", fullmatch=True),
    st.none() | st.sampled_from([r".*?(\d+).*", r"(.*)", r"a(b)?|(?:.*)"]),
    st.booleans(),
)
def test_any_name_tells_a_step_or_none(name, pattern, any_number):
    found = step_of(name, pattern, any_number=any_number)
    assert found is None or (type(found) is int and 0 <= found < 10**18)


def test_a_pattern_that_would_never_end_is_stopped_at_the_name():
    with pytest.raises(InputError, match="repeats within repeats"):
        step_of("a" * 70 + "!", r"(?:a|aa)+(\d)")


def test_more_digits_than_a_step_has_are_none():
    assert step_of("step" + "9" * 5000) is None
    assert step_of("9" * 5000, r"(\d+)") is None


@settings(max_examples=200, deadline=None)
@given(st.text("()[]ab\\d+*?|{}0", max_size=15))
def test_any_text_is_a_step_pattern_or_refused(text):
    found, refused = outcome(lambda: check_pattern(text))
    assert refused is not None or found.groups == 1
