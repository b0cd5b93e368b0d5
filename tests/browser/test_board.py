"""TensorBoard in a browser: which cards each tab shows, in which order, and what they say."""

import asyncio
import json
import urllib.request
from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from tensorboard import program

from stagewise import InfluenceCallback, ProbeConfig, ProbeSchedule
from stagewise.loading.loader import ResumableLoader
from tests.browser.chromium import CHROMIUM, open_page
from tests.callbacks.runs import SGLD, Regression, regression_data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.whole_probes,
    pytest.mark.filterwarnings("ignore"),
]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: it looks at TensorBoard's tabs")

GROUPS = {"few": torch.arange(64) < 20, "many": torch.arange(64) >= 20}
CURVES = ["influence_within", "influence_within_and_gradients", "learning_coefficient"]
IMAGES = ["00_overview", *(f"01_curves/{name}" for name in CURVES)]


def train(folder, seed):
    pl.seed_everything(seed, verbose=False)
    probe = ProbeConfig(control_every=2, check_curvature=False, draw_matrices=True)
    callback = InfluenceCallback(ProbeSchedule(every_n_steps=2), replace(SGLD, lr=0.02), probe, groups=GROUPS)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=10,
        callbacks=[callback],
        logger=pl.loggers.TensorBoardLogger(folder, name="", version=f"seed_{seed}", default_hp_metric=False),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Regression(), ResumableLoader(regression_data(), 8, seed=seed))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """TensorBoard on two seeds, at a free port of this machine alone."""
    folder = tmp_path_factory.mktemp("board")
    for seed in (1, 2):
        train(folder, seed)
    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0", "--load_fast", "false"])
    address = board.launch()
    for _ in range(240):  # it reads the runs in a thread of its own
        if len(data(address, "scalars/tags")) == 2 and "transition/windows" in data(address, "scalars/tags")["seed_2"]:
            break
        asyncio.run(asyncio.sleep(0.25))
    return address


def data(address, path, **post):
    body = json.dumps(post).encode() if post else None
    request = urllib.request.Request(f"{address}data/plugin/{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def look(address, tab, expression, *, until="true", shot=None):
    async def go():
        async with open_page() as page:
            await page.go(f"{address}#{tab}")
            assert await page.until(until), f"{tab} did not show it; it shows {await page.evaluate('words(document)')}"
            if shot:
                await page.shoot(shot)
            return await page.evaluate(expression)

    return asyncio.run(go())


def test_tensorboard_has_the_tags_images_text_and_charts(address):
    scalars = data(address, "scalars/tags")
    assert list(scalars) == ["seed_1", "seed_2"]  # and no run of a report or of hyperparameters
    assert scalars["seed_1"].keys() == scalars["seed_2"].keys() | ({"transition/first_peak"} & scalars["seed_1"].keys())
    images = data(address, "images/tags")["seed_1"]
    assert sorted(images)[:4] == IMAGES
    assert images["00_overview"]["samples"] == 1
    assert sorted(data(address, "text/tags")["seed_1"]) == ["run/classes/text_summary", "run/summary/text_summary"]
    layout = data(address, "custom_scalars/layout")
    assert [item["title"] for item in layout["category"]] == [
        "influence within phases", "influence, all parts", "transitions",
    ]  # fmt: skip


def test_hyperparameters_and_outcomes_of_both_seeds_stand_side_by_side(address):
    experiment = data(address, "hparams/experiment", experimentName="")
    metrics = [metricinfo["name"] for metricinfo in experiment["metricInfos"]]
    assert [metric["tag"] for metric in metrics][:3] == [
        "transition/windows",
        "transition/first_peak",
        "sampler/flagged_share",
    ]
    names = sorted(hparaminfo["name"] for hparaminfo in experiment["hparamInfos"])
    columns = [{"hparam": name} for name in names]
    columns += [{"metric": {"tag": metric["tag"], "group": ""}} for metric in metrics]
    asked = {"experimentName": "", "sliceSize": 10, "startIndex": 0, "allowedStatuses": ["STATUS_SUCCESS"]}
    groups = data(address, "hparams/session_groups", colParams=columns, **asked)["sessionGroups"]
    assert sorted(item["hparams"]["global_seed"] for item in groups) == [1, 2]
    assert all(item["hparams"]["lr"] == 0.02 for item in groups)
    for group in groups:
        values = {metricvalue["name"]["tag"]: metricvalue["value"] for metricvalue in group["metricValues"]}
        assert 0 <= values["sampler/flagged_share"] <= 1
        assert values["influence/loss/few"] > 0


@needs_browser
def test_time_series_opens_on_the_overview_then_the_curves(address):
    titles, shown = look(
        address,
        "timeseries",
        "[texts('metrics-card-group-toolbar .group-title'), texts('image-card .tag')]",
        until="all('image-card img').filter(it => it.naturalWidth > 500).length >= 4",
    )
    assert titles[:2] == ["00_overview", "01_curves"]
    assert titles[2:] == sorted(titles[2:])
    assert titles.index("01_curves") < titles.index("baseline") < titles.index("influence")
    cards = [card.replace(" ", "") for card in shown]
    assert list(dict.fromkeys(cards)) == IMAGES


@needs_browser
def test_images_have_the_same_order(address):
    headings = look(address, "images", "texts('tf-card-heading')", until="all('tf-image-loader').length >= 8")
    shown = [heading.split()[0] for heading in headings]
    assert list(dict.fromkeys(shown))[:4] == IMAGES


@needs_browser
def test_the_card_is_read_under_text(address):
    (said,) = look(
        address,
        "text",
        "[texts('tf-markdown-view').join(' ')]",
        until="texts('tf-markdown-view').join(' ').includes('Files')",
    )
    for words in ("What can be read off these curves", "negative = helpful", "set Smoothing to 0", "Training goes on"):
        assert words in said


@needs_browser
def test_the_table_of_hyperparameters_has_a_row_for_each_seed(address):
    cells = look(
        address,
        "hparams",
        "texts('vaadin-grid-cell-content')",
        until="texts('vaadin-grid-cell-content').some(it => it.startsWith('seed_2'))",
    )
    for words in ("arm", "global_seed", "localization", "lr", "nbeta", "transition/windows", "seed_1", "seed_2"):
        assert words in cells


@needs_browser
def test_custom_scalars_start_with_influence_within_phases(address):
    titles, matches = look(
        address,
        "custom_scalars",
        "[texts('tf-card-heading'), texts('#matches-list-title')]",
        until="all('tf-custom-scalar-multi-line-chart-card').length >= 4 && texts('#matches-list-title').length >= 4",
    )
    assert titles[0].startswith("BIF within, all pairs")
    assert [title.split("(")[0].strip() for title in titles[1:4]] == [
        "BIF within, few ~ few", "BIF within, few ~ many", "BIF within, many ~ many",
    ]  # fmt: skip
    # Three pairs of each of two seeds; then influence and control of one pair.
    assert matches[:2] == ["Matches (6)", "Matches (4)"]
