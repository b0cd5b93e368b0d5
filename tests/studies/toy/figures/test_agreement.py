import numpy as np

from stagewise.studies.toy.figures.agreement import agreement


def dots_of(axes):
    return np.hstack([np.array(line.get_data()) for line in axes.lines if line.get_marker() == "o"])


def test_dots_are_all_pairs_at_all_probes_and_their_correlation_is_in_the_title(results, config):
    panels = agreement(results, config).axes
    chains, exact = results[0].chains, results[0].exact
    others = [exact["gaussian"], exact["horizon_effect"].sel(horizon=10), exact["unrolled"], exact["leave_one_out"]]
    apart = ~np.eye(8, dtype=bool)
    for axes, other, every in zip(panels, others, (3, 1, 1, 1), strict=False):
        x, y = dots_of(axes)
        expected_x, expected_y = other.values[:, apart].ravel(), chains["bif"].values[::every][:, apart].ravel()
        assert sorted(zip(x, y, strict=True)) == sorted(zip(expected_x, expected_y, strict=True))
        assert f"r = {np.corrcoef(expected_x, expected_y)[0, 1]:.2f}" in axes.get_title()
        assert axes.get_ylabel() == "BIF from chains (nats²)"
    assert panels[0].get_xlabel() == "influence (nats²)"
    assert panels[1].get_xlabel() == "influence (nats per unit of weight)"


def test_correlations_with_horizons_are_those_of_every_seed(results, config):
    axes = agreement(results, config).axes[4]
    assert [get_xticklabel.get_text() for get_xticklabel in axes.get_xticklabels()] == ["5", "10"]
    dots = [line.get_ydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert dots == [[result.figures[f"horizon_{horizon}_r"] for result in results] for horizon in (5, 10)]


def test_correlations_of_the_scatter_plots_stand_beside_that_of_the_baseline(results, config):
    axes = agreement(results, config).axes[5]
    dots = [line.get_ydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    names = ("sgld_gaussian_r", "horizon_loo_r", "unrolled_r", "full_loo_r", "graddot_r")
    assert dots == [[result.figures[name] for result in results] for name in names]
    assert len(axes.get_xticklabels()) == 5
