"""The charts of the dial of diversity, for the benchmarks' report and as a file of its own."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.runs import ROOT
from recsys.report_drawing import Chart, Line, Mark, Scale, Text, nice_ticks, path, tick_labels
from recsys.report_plots import WIDTH, names_apart

NAMES = {"mmr": "MMR", "dpp": "DPP"}
_STYLES = {"mmr": "s-stage2", "dpp": "s-other"}
_SHAPES = {"mmr": "disc", "dpp": "square"}
_LABELLED = ("0.5", "0.8")
"""Values of the dial that are written beside their marks."""


def trade_off_chart(content: Mapping[str, Any]) -> Chart:
    """NDCG over the diversity of lists, a line per method and a mark per value of the dial."""
    caption = (
        "Each mark is a value of the dial, 0 (top left) to 1. To the right, items of a list are "
        "less alike; the axes do not begin at zero."
    )
    return _chart(
        content,
        "Accuracy and diversity",
        caption,
        ("diversity@10", "Mean of 1 - cosine within a list"),
        ("ndcg@10", "NDCG@10"),
    )


def coverage_chart(content: Mapping[str, Any]) -> Chart:
    """The share of the catalogue in any list over the diversity of lists."""
    return _chart(
        content,
        "Coverage and diversity",
        "Share of all items that are in some user's first ten.",
        ("diversity@10", "Mean of 1 - cosine within a list"),
        ("coverage@10", "Coverage"),
    )


def drawing(content: Mapping[str, Any]) -> str:
    """The trade-off as an SVG file."""
    environment = Environment(
        loader=FileSystemLoader((ROOT / "benchmarks/templates", ROOT / "recsys/templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    chart = trade_off_chart(content)
    return environment.get_template("chart.svg.j2").render(chart=chart) + "\n"


def _chart(
    content: Mapping[str, Any],
    title: str,
    caption: str,
    across: tuple[str, str],
    upward: tuple[str, str],
) -> Chart:
    """across, upward: which metric, and its name beside the axis."""
    left, right, top, bottom, height = 56.0, 420.0, 34.0, 272.0, 316.0
    mean = content["mean"]
    points = [values for by_dial in mean.values() for values in by_dial.values()]
    x_ticks, y_ticks = (
        nice_ticks(min(values[key] for values in points), max(values[key] for values in points))
        for key, _ in (across, upward)
    )
    x = Scale(x_ticks[0], x_ticks[-1], left, right)
    y = Scale(y_ticks[0], y_ticks[-1], bottom, top)
    dials = list(next(iter(mean.values())))
    columns = ["Dial"]
    columns += [f"{NAMES[method]}: {name}" for method in mean for _, name in (across, upward)]
    rows = [
        [dial]
        + [f"{mean[method][dial][key]:.4f}" for method in mean for key, _ in (across, upward)]
        for dial in dials
    ]
    chart = Chart(title, caption, WIDTH, height, columns, rows)
    for tick, name in zip(y_ticks, tick_labels(y_ticks), strict=True):
        chart.rule(left, y(tick), right, y(tick))
        chart.texts.append(Text(left - 8, y(tick) + 4, name, "end"))
    for tick, name in zip(x_ticks, tick_labels(x_ticks), strict=True):
        chart.texts.append(Text(x(tick), bottom + 20, name, "middle"))
    chart.texts.append(Text((left + right) / 2, bottom + 40, across[1], "middle"))
    chart.texts.append(Text(8, 14, upward[1]))
    for method, by_dial in mean.items():
        places = [(x(by_dial[dial][across[0]]), y(by_dial[dial][upward[0]])) for dial in dials]
        style = _STYLES[method]
        chart.lines.append(Line(path(places), f"series {style}"))
        for dial, (px, py) in zip(dials, places, strict=True):
            values = by_dial[dial]
            figures = f"{across[1]} {values[across[0]]:.3f}, {upward[1]} {values[upward[0]]:.4f}"
            tip = f"{NAMES[method]}, dial {dial}: {figures}"
            chart.marks.append(Mark(px, py, _SHAPES[method], style, tip))
            if dial in _LABELLED:
                chart.texts.append(Text(px - 8, py + 16, dial, "end"))
        end = Text(right + 12, places[-1][1] + 4, NAMES[method], style=f"name {style}")
        chart.texts.append(end)
    return names_apart(chart, right + 12)
