import pytest

from stagewise.studies.toy.figures.flips import flips
from stagewise.studies.toy.stages import METHODS
from tests.studies.toy.figures.synthetic import CROSSING, config_of, results_of


def test_every_pair_of_every_seed_is_a_dot_where_it_flips(results, config):
    for axes, relation, pairs in zip(
        flips(results, config).axes, ("sibling", "cousin", "far"), (4, 8, 16), strict=True
    ):
        dots = [line.get_data() for line in axes.lines if line.get_marker() == "o"]
        assert len(dots) == len(METHODS)
        for place, (method, (x, y)) in enumerate(zip(METHODS, dots, strict=True)):
            own = [
                flip
                for result in results
                for flip in result.flips
                if (flip.method, flip.relation) == (method, relation)
            ]
            assert len(own) == 2 * pairs
            assert y.tolist() == [item.from_helpful.step for item in own]
            assert abs(x - place).max() < 0.5
            assert len(set(x)) == len(x)
        # The curves were made to cross there.
        assert dots[0][1] == pytest.approx(CROSSING[relation], rel=0.1)
        assert [text.get_text() for text in axes.texts] == [f"{2 * pairs}/{2 * pairs}"] * 5
        assert axes.get_title().strip() == f"{relation} pairs"


def test_only_flips_from_chains_have_bars(results, config):
    axes = flips(results, config).axes[0]
    own = [
        flip
        for result in results
        for flip in result.flips
        if (flip.method, flip.relation) == ("SGLD chains", "sibling")
    ]
    bars = [collection.get_segments()[0][:, 1].tolist() for collection in axes.collections]
    assert bars == [[item.from_helpful.earliest, item.from_helpful.latest] for item in own]


def test_pairs_that_do_not_flip_are_counted():
    config = config_of(seeds=(3,))
    axes = flips(results_of(config, error=1e3), config).axes[1]
    assert [text.get_text() for text in axes.texts] == ["0/8", "8/8", "8/8", "8/8", "8/8"]
