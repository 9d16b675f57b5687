"""The report's charts, from the content of metrics.json and the training curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys.report_drawing import (
    Bar,
    Chart,
    Line,
    Mark,
    Scale,
    Text,
    nice_ticks,
    path,
    spread,
    tick_labels,
)
from recsys.results import TABLE_METRICS, label, systems

WIDTH = 480.0
_TICK_LABEL_WIDTH = 50.0
_NAMES = {"popularity": "Popularity", "als": "ALS", "stage1": "Stage 1", "stage2": "Stage 2"}
_SHAPES = {"popularity": "down", "als": "diamond", "ease": "square", "stage1": "up"}
_MINUS = "\N{MINUS SIGN}"


def short_name(system: str) -> str:
    """A label that fits beside a line."""
    return _NAMES.get(system, label(system))


def style_class(system: str) -> str:
    """The CSS class that gives a system its colour, the same in every chart."""
    return f"s-{system}" if system in (*_NAMES, "ease") else "s-other"


def shape(system: str) -> str:
    """The symbol of a system, so that nothing hangs on colour alone."""
    return _SHAPES.get(system, "disc")


def metric_name(metric: str) -> str:
    """``ndcg@10`` -> ``NDCG@10``."""
    name, k = metric.split("@")
    return f"{'NDCG' if name == 'ndcg' else name.capitalize()}@{k}"


def signed(value: float, decimals: int = 4) -> str:
    """With a plus or a true minus sign."""
    return f"{value:+.{decimals}f}".replace("-", _MINUS)


def recall_charts(metrics: dict[str, Any]) -> list[Chart]:
    """Recall@K by system, and the same relative to the best baseline, where there is one."""
    curve = metrics["recall_curve"]
    ks = curve["k"]
    values = {system: np.array(curve[system]) for system in systems(metrics)}
    charts = [
        _line_chart(
            "Recall@K",
            "Share of a user's held-out items among the first K; K on a logarithmic scale.",
            ks,
            values,
        )
    ]
    rivals = {s: v for s, v in values.items() if s not in ("stage1", "stage2", "popularity")}
    if rivals:
        best = max(rivals, key=lambda system: metrics["baselines"][system]["ndcg@10"])
        # Popularity is so far below that it would flatten every other line.
        relative = {
            system: series - values[best]
            for system, series in values.items()
            if system not in (best, "popularity")
        }
        if relative:
            title = f"Recall@K compared with {short_name(best)}"
            caption = (
                f"Above the zero line: finds more than {short_name(best)}, the best baseline "
                f"by NDCG@10. Popularity is left out."
            )
            charts.append(_line_chart(title, caption, ks, relative, relative_to=short_name(best)))
    return charts


def _line_chart(
    title: str,
    caption: str,
    ks: Sequence[int],
    values: dict[str, Any],
    relative_to: str | None = None,
) -> Chart:
    left, right, top, bottom, height = 48.0, 396.0, 14.0, 272.0, 316.0
    lowest = min(0.0, *(float(series.min()) for series in values.values()))
    highest = max(0.0, *(float(series.max()) for series in values.values()))
    ticks = nice_ticks(lowest, highest)
    labels = tick_labels(ticks, signed=relative_to is not None)
    x = Scale(ks[0], ks[-1], left, right, log=True)
    y = Scale(ticks[0], ticks[-1], bottom, top)
    text = signed if relative_to else (lambda value: f"{value:.4f}")
    rows = [
        [str(k), *(text(float(series[i])) for series in values.values())] for i, k in enumerate(ks)
    ]
    chart = Chart(title, caption, WIDTH, height, ["K", *map(short_name, values)], rows)
    for tick, name in zip(ticks, labels, strict=True):
        chart.rule(left, y(tick), right, y(tick), "axis" if tick == 0 else "grid")
        chart.texts.append(Text(left - 8, y(tick) + 4, name, "end"))
    for k in (k for k in (1, 2, 5, 10, 20, 50, 100) if ks[0] <= k <= ks[-1]):
        chart.texts.append(Text(x(k), bottom + 20, str(k), "middle"))
    chart.texts.append(Text((left + right) / 2, bottom + 40, "K, length of the list", "middle"))
    if relative_to:
        chart.texts.append(Text(right + 8, y(0) + 4, relative_to, style="tick"))
    for system, series in values.items():
        style = style_class(system)
        points = [(x(k), y(float(value))) for k, value in zip(ks, series, strict=True)]
        chart.lines.append(Line(path(points), f"series {style}"))
        for k, value, (px, py) in zip(ks, series, points, strict=True):
            if k in (1, 5, 10, 20, 50, 100):
                tip = f"{label(system)}, K = {k}: {text(float(value))}"
                chart.marks.append(Mark(px, py, shape(system), style, tip))
        chart.texts.append(
            Text(right + 8, points[-1][1] + 4, short_name(system), style=f"name {style}")
        )
    return names_apart(chart, right + 8)


def names_apart(chart: Chart, x: float) -> Chart:
    """The chart, its texts at ``x`` (names at the right edge) kept from lying on each other."""
    at_edge = [text for text in chart.texts if text.x == x]
    others = [text for text in chart.texts if text.x != x]
    places = spread([text.y for text in at_edge], 16, 12, chart.height - 36)
    moved = [
        Text(text.x, y, text.text, text.anchor, text.style)
        for text, y in zip(at_edge, places, strict=True)
    ]
    chart.texts = others + moved
    return chart


def slice_charts(metrics: dict[str, Any]) -> list[Chart]:
    """A row of symbols per slice: by history length, then by item popularity."""
    names = list(systems(metrics))
    charts = []
    for metric in ("ndcg@10", "recall@100"):
        rows = [
            (part["label"].replace("-", "\N{EN DASH}"), f"{part['n_users']:,} users", part)
            for part in metrics["slices"]["history_length"]
        ]
        caption = "By the number of items in the user's training history."
        charts.append(_dot_chart(f"{metric_name(metric)} by history", caption, rows, names, metric))
    for metric in ("recall@10", "recall@100"):
        rows = [
            (part["label"].capitalize(), f"{part['n_held_out']:,} held out", part)
            for part in metrics["slices"]["item_popularity"]
        ]
        caption = (
            "Of the held-out items in each bin, the share found. Head: the most popular items, "
            "which hold the first 50% of training events; mid: up to 80%; tail: the rest."
        )
        title = f"{metric_name(metric)} by item popularity"
        charts.append(_dot_chart(title, caption, rows, names, metric))
    return [chart for chart in charts if chart.rows]


def _dot_chart(
    title: str,
    caption: str,
    rows: Sequence[tuple[str, str, dict[str, Any]]],
    names: Sequence[str],
    metric: str,
) -> Chart:
    left, right, top = 106.0, 462.0, 6.0
    # A lane of its own per system: symbols of near values would hide each other.
    lane = 10.0
    step = max(lane * len(names) + 14.0, 46.0)
    bottom = top + step * max(len(rows), 1)
    values = [[float(part[system][metric]) for system in names] for _, _, part in rows]
    ticks = nice_ticks(0.0, max((max(row) for row in values), default=1.0))
    x = Scale(ticks[0], ticks[-1], left, right)
    table = [
        [f"{first} ({second})", *(f"{value:.4f}" for value in row)]
        for (first, second, _), row in zip(rows, values, strict=True)
    ]
    chart = Chart(title, caption, WIDTH, bottom + 28, ["Slice", *map(short_name, names)], table)
    for tick, name in zip(ticks, tick_labels(ticks), strict=True):
        chart.rule(x(tick), top, x(tick), bottom, "axis" if tick == 0 else "grid")
        chart.texts.append(Text(x(tick), bottom + 20, name, "middle"))
    for number, ((first, second, _), row) in enumerate(zip(rows, values, strict=True)):
        y = top + step * (number + 0.5)
        chart.texts.append(Text(left - 14, y - 2, first, "end", "row"))
        chart.texts.append(Text(left - 14, y + 13, second, "end"))
        if number:
            chart.rule(0, y - step / 2, right, y - step / 2, "band")
        for position, (system, value) in enumerate(zip(names, row, strict=True)):
            at = y + lane * (position - (len(names) - 1) / 2)
            tip = f"{label(system)}, {first}: {value:.4f}"
            style = style_class(system)
            chart.rule(x(0), at, x(value), at, f"stem {style}")
            chart.marks.append(Mark(x(value), at, shape(system), style, tip))
    return chart


def interval_chart(metrics: dict[str, Any]) -> Chart | None:
    """Stage 2 minus stage 1 with 95% intervals, or None where stage 2 was not evaluated."""
    differences = metrics.get("stage2_minus_stage1")
    if not differences:
        return None
    return difference_chart(
        "What stage 2 adds to stage 1",
        f"Mean difference over users with its 95% interval, from a paired bootstrap over "
        f"{metrics['n_users']:,} users. An interval that crosses zero shows no difference.",
        "Metric",
        {metric_name(metric): differences[metric] for metric in TABLE_METRICS},
    )


def difference_chart(
    title: str,
    caption: str,
    column: str,
    differences: Mapping[str, Mapping[str, float]],
    left: float = 92.0,
) -> Chart:
    """Differences with their intervals beside a zero line, a row each.

    column: what the rows are. differences: row -> ``mean, low, high``. left: room for names.
    """
    right, top, step = 392.0, 10.0, 36.0
    bottom = top + step * len(differences)
    ends = [entry[end] for entry in differences.values() for end in ("low", "high")]
    about = 4 if right - left > 250 else 3
    ticks = nice_ticks(min(0.0, *ends), max(0.0, *ends), about)
    x = Scale(ticks[0], ticks[-1], left, right)
    chart = Chart(title, caption, WIDTH, bottom + 28, [column, "Mean", "Low", "High"], [])
    # Where names would touch, every second tick goes without; zero keeps its own.
    every = math.ceil(_TICK_LABEL_WIDTH * (len(ticks) - 1) / (right - left))
    for number, (tick, name) in enumerate(
        zip(ticks, tick_labels(ticks, signed=True), strict=True), -ticks.index(0.0)
    ):
        chart.rule(x(tick), top, x(tick), bottom, "axis" if tick == 0 else "grid")
        if number % every == 0:
            chart.texts.append(Text(x(tick), bottom + 20, name, "middle"))
    for number, (row, entry) in enumerate(differences.items()):
        y = top + step * (number + 0.5)
        mean, low, high = (signed(entry[key]) for key in ("mean", "low", "high"))
        chart.rows.append([row, mean, low, high])
        chart.texts.append(Text(left - 14, y + 4, row, "end", "row"))
        chart.texts.append(Text(WIDTH - 4, y + 4, mean, "end", "value"))
        chart.rule(x(entry["low"]), y, x(entry["high"]), y, "interval s-stage2")
        tip = f"{row}: {mean} ({low} to {high})"
        chart.marks.append(Mark(x(entry["mean"]), y, "disc", "s-stage2", tip))
    return chart


def ndcg_chart(metrics: dict[str, Any]) -> Chart:
    """NDCG@10 of each system, from zero, so that differences keep their proportion."""
    values = {system: row["ndcg@10"] for system, row in systems(metrics).items()}
    caption = "The quality of the first ten as a whole; hits near the top weigh more."
    texts = {s: (v, f"{v:.4f}") for s, v in values.items()}
    return bar_chart("NDCG@10 by system", caption, texts, step=44.0)


def bar_charts(metrics: dict[str, Any]) -> list[Chart]:
    """Coverage and novelty of the first ten, one bar per system."""
    coverage, novelty = metrics["coverage@10"], metrics["novelty@10"]
    return [
        bar_chart(
            "Catalogue coverage",
            "Share of all items that appear in some user's first ten.",
            {s: (coverage[s], f"{100 * coverage[s]:.1f}%") for s in systems(metrics)},
        ),
        bar_chart(
            "Novelty",
            "Mean self-information of the first ten, in bits: one bit more means items that half "
            "as many users know.",
            {s: (novelty[s], f"{novelty[s]:.2f}") for s in systems(metrics)},
        ),
    ]


def bar_chart(
    title: str,
    caption: str,
    values: Mapping[str, tuple[float, str]],
    step: float = 36.0,
    left: float = 92.0,
    right: float = 410.0,
    styles: Mapping[str, str] | None = None,
) -> Chart:
    """One bar per system.

    values: system -> length of its bar, and what is written beside it. step: height of a row.
    left, right: where bars begin and end. styles: CSS classes in place of the systems' own.
    """
    top = 6.0
    height = top + step * len(values) + 6
    rows = [[short_name(system), text] for system, (_, text) in values.items()]
    chart = Chart(title, caption, WIDTH, height, ["System", title], rows)
    x = Scale(0.0, max(value for value, _ in values.values()) or 1.0, left, right)
    for number, (system, (value, text)) in enumerate(values.items()):
        y = top + step * (number + 0.5)
        style = (styles or {}).get(system, style_class(system))
        chart.texts.append(Text(left - 12, y + 4, short_name(system), "end", "row"))
        chart.bars.append(Bar(left, y - 9, round(x(value) - left, 2), 18, style))
        chart.texts.append(Text(x(value) + 8, y + 4, text, "start", "value"))
    return chart
