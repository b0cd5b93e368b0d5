"""Means over spans, compared with a plain loop; their errors under shared noise, and their description."""

import json
from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from stagewise.errors import InputError
from stagewise.runs.time_spans import influence_by_span, training_spans
from tests.runs.flipping_run import STEPS, flipping_run


def with_windows(run, *windows):
    rows = [{"start": one, "peak": two, "end": three, "value": height} for one, two, three, height in windows]
    run.attrs["summary"] = json.dumps({"transitions": rows})
    return run


def constant(value, **settings):
    run = with_windows(flipping_run(**settings)).copy(deep=True)
    run["group_bif"].loc[{"part": "within"}] = 0.0
    run["group_bif"].loc[{"part": "within", "group": "cat", "group_j": "cat"}] = value
    return run


def many_groups_run(names):
    """Returns a run with zero influence within phases for every pair, errors of .05; the rest as in the small run."""
    run = flipping_run().copy(deep=True)
    dims = run["group_bif"].dims
    shape = [len(names) if name in ("group", "group_j") else run.sizes[name] for name in dims]
    return xr.Dataset(
        {"group_bif": (dims, np.zeros(shape)), "group_bif_se": (dims, np.full(shape, 0.05))},
        coords={"step": run["step"].values, "part": run["part"].values, "group": names, "group_j": names},
        attrs=run.attrs,
    )


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_means_sides_and_changes_equal_those_of_a_plain_loop(confidence):
    generator = np.random.default_rng(1)
    run = flipping_run(chains=5)
    run["group_bif_se"] = run["group_bif_se"] * generator.uniform(0.5, 2, run["group_bif"].shape)
    run = run.assign(equilibrated=("step", np.r_[0, np.ones(9)]))
    found = influence_by_span(run, [("cat", "cat"), ("cat", "dog")], confidence=confidence)
    assert found.windows
    parts = [[200, 300], [400, 500, 600, 700], [800, 900, 1000]]
    assert [(span.first, span.last, len(span.places)) for span in found.spans] == [
        (part[0], part[-1], len(part)) for part in parts
    ]
    couples = list(combinations(range(3), 2))
    for pair in found.pairs:
        moments = []
        for part, mean in zip(parts, pair.means, strict=True):
            value = error = 0.0
            for step in part:
                at = {"step": step, "part": "within", "group": pair.group, "group_j": pair.group_j}
                value += float(run["group_bif"].sel(at)) / len(part)
                error += float(run["group_bif_se"].sel(at)) / len(part)
            half = stats.t.isf((1 - confidence) / 2, 4) * error
            assert (mean.value, mean.half) == (pytest.approx(value), pytest.approx(half))
            side = "unresolved" if abs(value) <= half else "helpful" if value < 0 else "harmful"
            assert mean.side == side
            moments.append((value, error))
        limit = stats.t.isf((1 - confidence) / 2 / (len(couples) * 2), 4)
        sure = [
            (one, two)
            for one, two in couples
            if abs(moments[two][0] - moments[one][0]) > limit * np.hypot(moments[one][1], moments[two][1])
        ]
        assert (pair.change is None) == (not sure)
        if pair.change is not None:
            assert (pair.change.earlier, pair.change.later) in sure
            assert pair.change.value == pytest.approx(moments[pair.change.later][0] - moments[pair.change.earlier][0])


def test_spans_are_bounded_by_windows_in_equilibrium_or_are_thirds():
    run = flipping_run()
    two = with_windows(run.copy(), (200, 300, 400, 1.0), (600, 700, 800, 2.0))
    assert [span.first for span in training_spans(two)[0]] == [100, 300, 700]
    many = with_windows(run.copy(), *((at, at, at, at) for at in (200, 400, 600, 800)))
    assert [span.first for span in training_spans(many)[0]] == [100, 400, 600, 800]
    out = two.assign(equilibrated=("step", (STEPS > 300).astype(float)))
    spans, by_windows = training_spans(out)
    assert by_windows
    assert [(span.first, span.last) for span in spans] == [(400, 500), (600, 800), (900, 1000)]
    thirds, by_windows = training_spans(with_windows(run.copy()))
    assert not by_windows
    assert [len(span.places) for span in thirds] == [4, 3, 3]
    assert [span.words for span in training_spans(with_windows(run.isel(step=[2, 5])))[0]] == ["step 300", "step 600"]


@pytest.mark.parametrize("shared", [0.0, 0.7, 1.0])
def test_noise_alone_gets_a_sign_no_more_often_than_stated_whatever_probes_share(shared):
    generator = np.random.default_rng(0)
    run, signs, tries = constant(0.0), 0, 300
    at = {"part": "within", "group": "cat", "group_j": "cat"}
    for _ in range(tries):
        own = generator.standard_normal((8, len(STEPS)))
        draws = np.sqrt(shared) * generator.standard_normal((8, 1)) + np.sqrt(1 - shared) * own
        run["group_bif"].loc[at] = draws.mean(0)
        run["group_bif_se"].loc[at] = draws.std(0, ddof=1) / 8**0.5
        (pair,) = influence_by_span(run, [("cat", "cat")], confidence=0.9).pairs
        signs += pair.means[0].side != "unresolved"
    assert stats.binomtest(signs, tries, 0.1, alternative="greater").pvalue > 0.01
    if shared == 1.0:  # and then as often
        assert stats.binomtest(signs, tries, 0.1).pvalue > 0.01


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2.0, "cat harms itself from step 100 on. From step 100 to 1,000 no pair's mean differs between spans"),
        (np.where(STEPS > 400, -2.0, 0.0), "cat helps itself from step 500 on. Changes over time: cat (+0.0e+00 → -2"),
        (np.where(STEPS > 400, 0.0, 2.0), "cat harms itself up to step 400. Changes over time: cat"),
        (0.0, "No pair is surely helpful or harmful in any span. From step 100 to 1,000 no pair's"),
    ],
)
def test_the_sentence_states_pairs_times_and_changes(value, words):
    assert influence_by_span(constant(value)).words().startswith(words)


def test_influence_of_a_pair_is_mutual_and_unknown_without_errors():
    run = constant(0.0)
    run["group_bif"].loc[{"part": "within", "group": "cat", "group_j": "dog"}] = 2.0
    assert "cat and dog harm each other from step 100 on" in influence_by_span(run).words()
    alone = influence_by_span(constant(2.0, chains=1))
    assert not alone.spans
    assert "sgld.num_chains" in alone.words()


def test_sure_pairs_come_first_two_groups_before_one_with_itself_and_probes_by_chance_do_not_count():
    run = with_windows(many_groups_run(["a", "b", "c", "d", "e"]))
    sure = {("c", "d"): 1.0, ("a", "e"): -2.0, ("b", "b"): 5.0, ("e", "e"): -3.0}
    for (one, two), value in sure.items():
        run["group_bif"].loc[{"part": "within", "group": one, "group_j": two}] = value
    run["group_bif"].loc[{"part": "within", "group": "a", "group_j": "a", "step": 300}] = 9.0  # at one probe of ten
    run["group_bif_se"].loc[{"group": "a", "group_j": "a"}] = 3.0
    found = influence_by_span(run)
    assert len(found.pairs) == 12
    order = [(pair.group, pair.group_j) for pair in found.pairs]
    assert order[:4] == [("a", "e"), ("c", "d"), ("b", "b"), ("e", "e")]
    assert all(one != two for one, two in order[4:])  # 8 unresolved pairs of two groups: the others are left out
    given = influence_by_span(run, [("a", "a"), ("c", "d")])
    assert [(pair.group, pair.group_j) for pair in given.pairs] == [("a", "a"), ("c", "d")]


@pytest.mark.parametrize(
    ("settings", "words"), [({"confidence": 1.0}, "confidence"), ({"pairs": [("cat", "cow")]}, "'cow'")]
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        influence_by_span(flipping_run(), **settings)
    with pytest.raises(InputError, match="group_bif"):
        influence_by_span(flipping_run().drop_vars("group_bif"))
