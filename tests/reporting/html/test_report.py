"""The page parses, needs nothing from outside, says what the run has and leaves out what it has not."""

import base64
import json
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from stagewise.errors import InputError
from stagewise.probes.config import ProbeConfig, changed_settings
from stagewise.probes.flags import Thresholds
from stagewise.probes.llc_config import LLCConfig
from stagewise.reporting.glossary import TERMS
from stagewise.reporting.html.blocks import Section, Text
from stagewise.reporting.html.matrices import sample_matrices
from stagewise.reporting.html.repeating import callback_code, settings_section
from stagewise.reporting.html.report import OpenedRun, page, write_html_report
from stagewise.reporting.scores import Score
from stagewise.runs.open import open_run
from tests.blank_figures import drawn
from tests.checks.test_group_names import BAD
from tests.reporting.test_run_pictures import a_run
from tests.runs.flipping_run import flipping_run
from tests.runs.full_run import write_full_run

VOID = {"meta", "img", "input", "source", "br", "hr", "link", "wbr"}


class Parsed(HTMLParser):
    """Sections, text by section, addresses, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sections, self.addresses, self.words, self.tags = [], [], [], {}, []
        self.section = None
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        if tag == "section":
            self.section = given["id"]
            self.sections.append(self.section)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name in given if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words[self.section] = self.words.get(self.section, "") + data


def written(tmp_path, *runs, **settings):
    path = write_html_report(
        tmp_path / "report.html", [OpenedRun.of(Path(folder), run) for folder, run in runs], **settings
    )
    text = path.read_text(encoding="utf-8")
    return Parsed(text), text


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = write_full_run(tmp_path_factory.mktemp("full"))
    return folder, open_run(folder)


@pytest.fixture(scope="module")
def full_page(full, tmp_path_factory):
    """The page of it with scores, parsed and as text."""
    scores = [Score("prefix_matching", np.array([10, 20, 40]), np.array([0.1, 0.2, 0.9]))]
    with drawn():
        return written(tmp_path_factory.mktemp("page"), full, scores=scores)


@pytest.fixture(scope="module")
def flipping_page(tmp_path_factory):
    """The page of a run whose influence turns, parsed and as text."""
    folder = tmp_path_factory.mktemp("flipping")
    return written(folder, (folder, flipping_run()))


def assert_self_contained(parsed, text):
    """Every address is in the page, no style or script fetches, and what pictures hold refers to nothing either."""
    for address in parsed.addresses:
        assert address.startswith(("#", "data:image/"))
        if address.startswith("data:image/svg"):
            picture = base64.b64decode(address.partition(",")[2]).decode()
            assert not re.search(r'(href|src)="(?!#|data:)', picture)
            assert "@import" not in picture
    bare = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "", text)
    assert "://" not in bare
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|<link|<iframe", bare)
    assert "default-src 'none'" in text


def test_a_full_run_has_all_sections_in_order_and_needs_nothing_from_outside(full, full_page):
    _, run = full
    parsed, text = full_page
    assert parsed.sections == [
        "verdict", "overview", "spans", "windows", "signs", "llc", "matrices", "scores", "diagnostics", "settings",
        "repeat", "lacking",
    ]  # fmt: skip
    assert "control was run, but no probe in equilibrium" in parsed.words["lacking"]
    assert_self_contained(parsed, text)
    assert "nbeta" in parsed.words["settings"]
    assert f"seed of the chains {run.attrs['sgld']['seed']}" in parsed.words["repeat"].lower()
    assert "SGLDConfig(lr=" in parsed.words["repeat"]
    assert len(text) < 5e6
    assert text.count("<dt>") == len(TERMS)
    assert escape(TERMS["R-hat"]) in text


def test_sections_without_data_are_left_out_and_the_setting_is_named(flipping_page, tmp_path):
    parsed, _ = flipping_page
    assert parsed.sections == [
        "verdict",
        "overview",
        "spans",
        "windows",
        "signs",
        "matrices",
        "diagnostics",
        "settings",
        "repeat",
        "lacking",
    ]
    of_python = (
        "ProbeConfig(llc=LLCConfig(enabled=True))", "ProbeConfig(control_every=5)", "InductionCallback",
        "ProbeConfig(sample_matrices='within')",
    )  # fmt: skip
    for words in of_python:
        assert words in parsed.words["lacking"]
    (tmp_path / "config.yaml").write_text("seed_everything: 17\n")
    parsed, _ = written(tmp_path, (tmp_path, flipping_run()))
    for words in ("probe.llc.enabled: true", "probe.control_every: 5", "InductionCallback", "sample_matrices: within"):
        assert words in parsed.words["lacking"]


def test_the_numbers_are_those_of_the_run(flipping_page):
    run = flipping_run()
    parsed, _ = flipping_page
    assert "Steps 400 to 700, peak at 500" in parsed.words["windows"]
    # The last probe at or before the start, the first at or after the end.
    assert "-3.33e-01 → +3.33e-01" in parsed.words["windows"]
    assert "helpful, then harmful" in parsed.words["signs"]
    assert "cat ~ cat" in parsed.words["signs"]
    assert f"{float(run['group_bif'][-1, 0, 0, 0]):.1e}".replace("e+0", "e") in parsed.words["matrices"]


def test_the_table_of_spans_says_which_groups_matter_when(flipping_page, tmp_path):
    parsed, _ = flipping_page
    words = parsed.words["spans"]
    assert "steps 100 to 300 (3)" in words
    assert "steps 400 to 700 (4)" in words
    # Means of -1, -7/9, -5/9 and of 5/9, 7/9, 1; the interval of 8 chains.
    assert "helpful -7.8e-01 ± 2.4e-01" in words
    assert re.search(r"unresolved \S+ ± 2\.4e-01", words)
    assert "harmful +7.8e-01 ± 2.4e-01" in words
    assert "Changes over time: cat (-7.8e-01 → +7.8e-01 nats², steps 100 to 300 to steps 800 to 1,000)" in words
    alone, _ = written(tmp_path, (tmp_path, flipping_run(chains=1)))
    assert "no probe in equilibrium has two chains" in alone.words["spans"]


def test_critical_samples_are_named_with_their_change(full, tmp_path):
    folder, run = full
    run = run.copy()
    run.attrs["summary"] = '{"transitions": [{"start": 15, "peak": 20, "end": 30, "value": 0.4}]}'
    parsed, _ = written(tmp_path, (folder, run))
    shift = run["shift"].sel(step=20).values
    top = int(np.nanargmax(np.abs(shift)))
    inside = " (in few)" if top < 3 else ""
    assert f"sample {top} “text {top}”{inside}: {shift[top]:+.3g}" in parsed.words["windows"]
    bare, _ = written(tmp_path, (folder, run.drop_vars(["sample_words", "in_group"])))
    assert f"sample {top} of the observed set: {shift[top]:+.3g}" in bare.words["windows"]
    loss = run["group_loss"].sel(group="few").values
    assert f"{loss[0]:.3g} → {loss[2]:.3g}" in parsed.words["windows"]


def test_sliders_hold_every_step_and_show_the_last_without_scripts(full, full_page):
    _, run = full
    parsed, text = full_page
    found = [json.loads(item) for item in re.findall(r'<script type="application/json">(.*?)</script>', text)]
    groups, samples = found
    assert groups["steps"] == samples["steps"] == [10, 20, 40]
    assert len(groups["values"]) == 3
    for matrix, step in zip(groups["values"], (10, 20, 40), strict=True):
        for row, one in enumerate(("few", "many")):
            for column, two in enumerate(("few", "many")):
                value = float(run["group_bif"].sel(part="within", step=step, group=one, group_j=two))
                assert float(matrix[row][column][0]) == pytest.approx(value, rel=0.06)
    assert samples["pictures"][-1] in parsed.addresses
    assert text.count('type="range" hidden') == 2


def test_names_are_shown_and_never_obeyed(tmp_path):
    chosen = ("HTML", "an entity", "a quotation mark", "a link", "emphasis", "code", "right-to-left override", "a pipe")
    names = [BAD[item] for item in chosen]
    with drawn():
        parsed, text = written(tmp_path, (tmp_path, a_run(steps=[10, 20], names=names)))
    plain, _ = written(tmp_path, (tmp_path, a_run(steps=[10, 20], names=[f"g{row}" for row in range(len(names))])))
    assert sorted(set(parsed.tags) - {"wbr"}) == sorted(set(plain.tags))  # names may break
    assert parsed.tags.count("script") == plain.tags.count("script")
    assert "<script>alert" not in text
    assert_self_contained(parsed, text)


def test_all_words_are_escaped_wherever_they_come_from(tmp_path):
    evil = "<img src=x onerror=alert(1)>'\"&lt;b&gt;"
    text = page(evil, evil, [Section("a", evil, (Text(f"**{evil}** `{evil}` {evil}"),))])
    parsed = Parsed(text)
    assert "img" not in parsed.tags
    run = flipping_run()
    verdict = {name: {"answer": evil, "why": evil} for name in ("positions", "signs", "heights", "landscape")}
    summary = json.loads(run.attrs["summary"])
    run.attrs["summary"] = json.dumps(
        summary
        | {
            "verdict": verdict
            | {"text": evil, "best": {"words": evil}, "flags": {evil: {"probes": evil, "remedy": evil}}}
        }
    )
    run.attrs["sgld"] = run.attrs["sgld"] | {"engine": evil}
    run.attrs["version"] = evil
    parsed, text = written(tmp_path, (tmp_path / "<b>", run))
    assert "<img src=x" not in text
    assert "<b>" not in text
    assert "onerror=alert(1)" in parsed.words["verdict"]


def test_command_of_a_run_with_a_configuration(tmp_path):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed_everything: 17\n")
    (folder / "classes.md").write_text(
        "# Tokens of the observed classes\n\n| class | tokens |\n|---|---|\n| <i>x | 4 |\n"
    )
    parsed, text = written(tmp_path, (folder, flipping_run()))
    assert f"stagewise fit -c '{folder}/config.yaml'" in parsed.words["repeat"]
    assert "Seed of the training 17" in parsed.words["repeat"]
    assert "<i>x" in parsed.words["groups"]
    assert "<i>" not in text


def test_a_run_from_python_is_repeated_by_a_whole_call_that_python_takes(full, full_page):
    _, run = full
    code = callback_code(run)
    parsed, _ = full_page
    assert code in parsed.words["repeat"]
    names = {}
    loss_fn, masks = (lambda module, batch: batch), {"few": torch.ones(4), "many": torch.ones(4)}
    whole = code.replace("loss_fn=...", "loss_fn=loss_fn").replace("observed=...", "observed=torch.ones(4, 2)")
    for name in masks:
        whole = whole.replace(f"{name!r}: ...", f"{name!r}: masks[{name!r}] > 0")
    assert "..." not in whole
    exec(whole, {"loss_fn": loss_fn, "masks": masks, "torch": torch}, names)  # its own words, no others'
    callback = names["callback"]
    sgld = {name: getattr(callback.sgld, name) for name in run.attrs["sgld"]}
    assert sgld == run.attrs["sgld"]
    assert callback.schedule.at_steps == [10, 20, 40]
    assert callback.probe.centering == run.attrs["centering"]
    assert "ProbeSchedule(every_n_steps=100)" in callback_code(flipping_run())


def test_settings_of_the_measurement_are_in_the_call():
    probe = ProbeConfig(control_every=5, llc=LLCConfig(nbeta=3.0), thresholds=Thresholds(rhat_max=1.5))
    run = flipping_run()
    run.attrs["summary"] = json.dumps({"min_prominence": 0.15, "probe": changed_settings(probe)})
    names = {}
    code = callback_code(run).replace("...", "None")
    exec(
        code[: code.index("callback =")] + code[code.index("probe=") : code.index("    observed=")].strip(" ,\n"), names
    )
    assert names["probe"] == replace(probe, centering=names["probe"].centering)


def test_a_sweep_is_repeated_as_a_sweep(tmp_path):
    (tmp_path / "groups.csv").write_text("")
    parsed, _ = written(tmp_path, (tmp_path, flipping_run()))
    assert "stagewise sweep" in parsed.words["repeat"]
    assert "SGLDConfig(num_chains=8, num_draws=5, nbeta=10.0" in parsed.words["repeat"]
    assert "InfluenceCallback" not in parsed.words["repeat"]


def test_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="runs"):
        write_html_report(tmp_path / "report.html", [])


def test_wide_figures_scroll_with_a_visible_edge_on_a_telephone(full_page):
    _, text = full_page
    assert text.count('<figure class="grid" tabindex="0">') >= 2
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "scroll sideways" in style
    assert re.search(r"\.grid \{ overflow-x: auto; border:", style)


def test_every_setting_says_what_it_is(full):
    _, run = full
    (table,) = settings_section(run.assign_attrs(moved_weights=3, component="layer0.head1")).blocks
    assert {name: words for name, _, words in table.rows if not words} == {}
    meanings = {name: words for name, _, words in table.rows}
    assert meanings["sgld.max_loss_rise"].startswith("a chain whose mean observed loss rises by more than this")
    assert meanings["sgld.drift"] == "gradient estimator"
    assert not any(":class:" in words or "~" in words for words in meanings.values())


def test_the_matrix_of_samples_is_sorted_by_group_with_borders(full, full_page):
    _, run = full
    # "few" holds samples 0 to 2, "many" 2 to 7; mixed, and one in no group.
    inside = np.array([[0, 1, 0, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 1, 1, 1]], dtype=bool)
    found = sample_matrices(run.assign_coords(in_group=(("group", "sample"), inside)))
    assert found.borders == (2 / 8, 7 / 8)
    assert "few (2), many (5), in no group (1)" in found.about
    order = [1, 4, 0, 2, 5, 6, 7, 3]
    plain = sample_matrices(run.drop_vars("in_group").isel(sample=order, sample_j=order))
    assert plain.borders == ()
    assert plain.pictures == found.pictures
    _, text = full_page
    assert '<i style="left:37.500%;top:0;bottom:0"></i>' in text
