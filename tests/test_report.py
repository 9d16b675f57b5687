import copy
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.data.histories import Histories
from recsys.data.vocabulary import Vocabulary
from recsys.evaluation import Targets, evaluate, ranked_tensor
from recsys.report import render_report, write_report
from recsys.report_curves import training_charts
from recsys.report_drawing import Scale, nice_ticks, spread, tick_labels
from recsys.report_plots import difference_chart, interval_chart, recall_charts, slice_charts

TITLES = ["<script>alert(1)</script>", 'Tom & "Jerry"', "Amélie"]
EXAMPLE = {
    "user": "<b>7</b>",
    "history": TITLES,
    "stage1": ["Alien", TITLES[0]],
    "stage2": [TITLES[0], "Alien"],
    "held_out": [TITLES[0]],
}
CURVES = pd.DataFrame(
    {"train/loss": [3.0, 2.0, 1.5], "val/recall@100": [0.5, np.nan, 0.6]}, index=[1, 2, 3]
)
ARGUMENTS = {
    "training_curves": {"Stage 1": CURVES},
    "run_info": {"Model": "tiny-1", "Commit": "<unknown>"},
    "examples": [EXAMPLE],
}
VOID = {"meta", "link", "br", "img", "path", "polyline", "rect", "hr"}


def make_metrics() -> dict:
    random = np.random.default_rng(0)
    users, items = Vocabulary(list(range(1, 41))), Vocabulary(list(range(1, 301)))
    lengths = random.integers(1, 60, size=40)
    order = random.random((40, 300)).argsort(axis=1) + 1
    train = pd.concat(
        [
            pd.DataFrame({"user_id": u + 1, "item_id": order[u, :n], "timestamp": range(n)})
            for u, n in enumerate(lengths)
        ]
    )
    test = pd.DataFrame({"user_id": np.repeat(range(1, 41), 5), "item_id": order[:, 60:65].ravel()})
    rankings = {
        name: ranked_tensor(random.permuted(order[:, 60:], axis=1)[:, :100].tolist(), items, 100)
        for name in ("stage1", "stage2", "popularity", "als", "ease")
    }
    return evaluate(
        rankings,
        Targets.from_frame(test, users, items),
        train=Histories.from_frame(train, users, items),
        num_items=300,
        dataset="tiny & small",
        split="ua",
        protocol="Each user's <first> rows are held out.",
        seed=0,
    )


METRICS = make_metrics()


def render(metrics: dict | None = None, **changes) -> str:
    return render_report(metrics or METRICS, **{**ARGUMENTS, **changes})


def without_stage2() -> dict:
    metrics = copy.deepcopy(METRICS)
    del metrics["stage2"], metrics["stage2_minus_stage1"]
    return metrics


class Page(HTMLParser):
    """Collects tags, attributes, ids and text, and checks that tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_tags_nest_and_ids_are_unique():
    page = Page(render())
    assert page.open == []
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    labelled = {value for name, value in page.attributes if name == "aria-labelledby"}
    assert labelled <= set(ids)


def test_titles_are_shown_as_text():
    html = render()
    page = Page(html)
    assert "script" not in page.tags
    text = " ".join(page.text)
    for title in (*TITLES, "<b>7</b>", "<unknown>", "tiny & small", "Each user's <first> rows"):
        assert title in text


def test_nothing_is_fetched():
    html = render()
    page = Page(html)
    references = [v for n, v in page.attributes if n in ("src", "href", "data", "action", "srcset")]
    assert references == ["data:,"]
    assert not {"script", "link", "img", "iframe"} & set(page.tags) - {"link"}
    assert page.tags.count("link") == 1
    assert not re.search(r"url\(|@import|https?:", html)


def test_every_number_of_the_table_is_there():
    text = " ".join(Page(render()).text)
    for values in (METRICS["stage1"], METRICS["stage2"], *METRICS["baselines"].values()):
        for value in values.values():
            assert f"{value:.4f}" in text
    assert "paired bootstrap over 40 users" in text


def test_a_held_out_title_is_marked_in_the_lists_alone():
    html = render()
    assert html.count('class="hit"') == 2
    assert html.count("1 of 2 were held out") == 2


def test_same_arguments_give_the_same_text():
    assert render() == render(make_metrics())


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"training_curves": {}}, "Validation rows are carved out"),
        ({"training_curves": {"Stage 1": CURVES[:0]}}, "Validation rows are carved out"),
        ({"examples": []}, "Users drawn at random"),
        ({"run_info": {}}, "This run"),
    ],
)
def test_missing_parts_are_left_out(changes, gone):
    assert gone in render()
    assert gone not in render(**changes)


def test_without_stage2_nothing_speaks_of_it():
    html = render(without_stage2(), examples=[{**EXAMPLE, "stage2": []}])
    body = html[html.index("<body>") :]
    assert "Stage 2" not in body
    assert "What stage 2 adds" not in body
    assert "stage 1 (two-tower) reaches" in body


def test_without_baselines_the_stages_stand_alone():
    metrics = {**METRICS, "baselines": {}}
    html = render(metrics)
    assert "best baseline" not in html
    assert "EASE" not in html


def test_lede_admits_defeat():
    metrics = copy.deepcopy(METRICS)
    metrics["stage2"]["ndcg@10"], metrics["baselines"]["ease"]["ndcg@10"] = 0.3, 0.4
    assert "0.1000 below the best baseline, EASE" in render(metrics)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_colour_stands_out_in_light_and_dark():
    schemes = re.findall(r":root \{(.*?)\}", render(), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for ground in ("page", "card"):
            for name in ("ink", "soft", "popularity", "als", "ease", "stage1", "stage2", "other"):
                low, high = sorted(luminance(colours[c]) for c in (ground, name))
                # WCAG 2.2, level AA, for text of any size.
                assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


def test_an_interval_across_zero_is_called_no_difference():
    metrics = copy.deepcopy(METRICS)
    metrics["stage2_minus_stage1"]["ndcg@10"] = {"mean": 0.01, "low": -0.01, "high": 0.03}
    assert "crosses zero: no difference shown" in render(metrics)
    metrics["stage2_minus_stage1"]["ndcg@10"]["low"] = 0.001
    assert "no difference shown" not in render(metrics)


def test_write_report_replaces_the_old_one(tmp_path: Path):
    path = tmp_path / "new" / "report.html"
    for _ in range(2):
        write_report(path, METRICS, **ARGUMENTS)
    assert path.read_text(encoding="utf-8") == render()
    assert list(path.parent.iterdir()) == [path]


def test_a_system_looks_the_same_in_every_chart():
    charts = [*recall_charts(METRICS), *slice_charts(METRICS)]
    looks: dict[str, set[tuple[str, str]]] = {}
    for chart in charts:
        for mark in chart.marks:
            looks.setdefault(mark.tooltip.split(",")[0], set()).add((mark.shape, mark.style))
    assert len(looks) == 5
    assert all(len(look) == 1 for look in looks.values())
    assert len(set.union(*looks.values())) == 5


def test_charts_stay_within_their_frames():
    charts = [*recall_charts(METRICS), *slice_charts(METRICS), *training_charts("Stage 1", CURVES)]
    interval = interval_chart(METRICS)
    assert interval is not None
    for chart in [*charts, interval]:
        assert all(0 <= m.x <= chart.width and 0 <= m.y <= chart.height for m in chart.marks)
        assert all(0 <= t.x <= chart.width and 0 <= t.y <= chart.height for t in chart.texts)


def test_training_charts_skip_what_was_not_measured():
    recall, loss = training_charts("Stage 1", CURVES)
    assert loss.title == "Loss, training"
    assert [row[0] for row in recall.rows] == ["1", "3"]
    assert recall.marks[0].tooltip == "best: epoch 3, 0.6000"
    assert training_charts("Stage 1", pd.DataFrame({"val/x": [np.nan, np.inf]})) == []


def test_training_chart_of_a_single_epoch():
    (chart,) = training_charts("Stage 2", pd.DataFrame({"val/ndcg@10": [0.3]}, index=[1]))
    assert chart.rows == [["1", "0.3000"]]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 0.74, [0, 0.2, 0.4, 0.6, 0.8]),
        (-0.003, 0.008, [-0.005, 0, 0.005, 0.01]),
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_nice_ticks_are_round_and_cover_the_range(low, high, expected):
    assert nice_ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
def test_nice_ticks_of_a_constant_still_span_something(value):
    ticks = nice_ticks(value, value)
    assert ticks[0] < value < ticks[-1]


def test_tick_labels_have_the_decimals_of_the_step():
    assert tick_labels([0, 0.05, 0.1]) == ["0.00", "0.05", "0.10"]
    assert tick_labels([-0.5, 0, 0.5], signed=True) == ["\N{MINUS SIGN}0.5", "0.0", "+0.5"]
    assert tick_labels([0, 20, 40]) == ["0", "20", "40"]


def test_log_scale():
    scale = Scale(1, 100, 0, 200, log=True)
    assert [scale(1), scale(10), scale(100)] == [0, 100, 200]


def test_spread_keeps_order_and_distance():
    moved = spread([50, 49, 51, 10], gap=10, low=0, high=60)
    assert moved == [50, 40, 60, 10]


@pytest.mark.parametrize("left", [92.0, 240.0])
@pytest.mark.parametrize("low", [-0.0041, -0.00004, -12.0])
def test_names_of_ticks_keep_apart_and_zero_has_one(low: float, left: float) -> None:
    entry = {"mean": low / 2, "low": low, "high": -low / 4}
    chart = difference_chart("", "", "part", {"without text": entry}, left)
    ticks = sorted((text.x, text.text) for text in chart.texts if text.anchor == "middle")
    assert all(b[0] - a[0] >= 45 for a, b in pairwise(ticks))
    assert any(float(name.replace("\N{MINUS SIGN}", "-")) == 0 for _, name in ticks)


def test_what_was_looked_at_by_itself_is_told_as_text():
    alone = {name: METRICS[name] for name in ("stage1", "stage2", "baselines") if name in METRICS}
    metrics = {**METRICS, "targets": {"<b>buy</b>": {"n_users": 12, **alone}}}
    html = render(metrics)
    assert "NDCG@10 of &lt;b&gt;buy&lt;/b&gt; alone (12 users): " in html
    assert " alone (" not in render()
