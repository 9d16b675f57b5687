"""The charts of the benchmarks' report, each from the content of a JSON file of results."""

from collections.abc import Mapping
from typing import Any

from benchmarks.runs import counted
from recsys.report_drawing import (
    Chart,
    Line,
    Mark,
    Scale,
    Text,
    nice_ticks,
    path,
    tick_labels,
)
from recsys.report_plots import (
    WIDTH,
    bar_chart,
    difference_chart,
    metric_name,
    names_apart,
    shape,
    short_name,
    style_class,
)
from recsys.results import label

_NAMES = {"lambdamart": "LambdaMART"}
_MINUS = "\N{MINUS SIGN}"
_INTERVALS = "Mean difference over users with its 95% paired bootstrap interval."


def name_of(system: str) -> str:
    """What charts call a system."""
    return _NAMES.get(system, short_name(system))


def quality_charts(summary: Mapping[str, Any]) -> list[Chart]:
    """Of one protocol: each metric by system, and the paired differences below it."""
    metrics = ("ndcg@10", "recall@100")
    by_system = [_systems_chart(summary, metric) for metric in metrics]
    return by_system + [_pairs_chart(summary["differences"], metric) for metric in metrics]


def _systems_chart(summary: Mapping[str, Any], metric: str) -> Chart:
    """A symbol per system, with a line of one standard deviation to either side."""
    left, right, top, step = 106.0, 348.0, 8.0, 34.0
    values = {system: figures[metric] for system, figures in summary["systems"].items()}
    bottom = top + step * len(values)
    far = _far_below(values)
    shown = [value for system, value in values.items() if system not in far]
    ends = [value["mean"] + side * value["sd"] for value in shown for side in (-1, 1)]
    ticks = nice_ticks(min(ends), max(ends), about=4)
    x = Scale(ticks[0], ticks[-1], left, right)
    seeds = counted(summary["num_seeds"], "seed")
    caption = f"Mean ± standard deviation of {seeds}. The axis does not begin at zero"
    caption += f", and {' and '.join(map(name_of, far))} would lie far to its left." if far else "."
    chart = Chart(metric_name(metric), caption, WIDTH, bottom + 28, ["System", "Mean", "SD"], [])
    for tick, text in zip(ticks, tick_labels(ticks), strict=True):
        chart.rule(x(tick), top, x(tick), bottom)
        chart.texts.append(Text(x(tick), bottom + 20, text, "middle"))
    for number, (system, value) in enumerate(values.items()):
        y, style = top + step * (number + 0.5), style_class(system)
        mean, sd = f"{value['mean']:.4f}", f"{value['sd']:.4f}"
        chart.rows.append([name_of(system), mean, sd])
        chart.texts.append(Text(left - 14, y + 4, name_of(system), "end", "row"))
        chart.texts.append(Text(WIDTH - 4, y + 4, f"{mean} ± {sd}", "end", "value"))
        if system in far:
            chart.texts.append(Text(left + 4, y + 4, "\N{LEFTWARDS ARROW}"))
            continue
        ends = [value["mean"] - value["sd"], value["mean"] + value["sd"]]
        chart.rule(x(ends[0]), y, x(ends[1]), y, f"interval {style}")
        tip = f"{name_of(system)}: {mean} ± {sd}"
        chart.marks.append(Mark(x(value["mean"]), y, shape(system), style, tip))
    return chart


def _far_below(values: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Popularity, where it is so far below the others that it would press them into one spot."""
    others = [value["mean"] for system, value in values.items() if system != "popularity"]
    if "popularity" not in values or not others:
        return []
    gap = min(others) - values["popularity"]["mean"]
    return ["popularity"] if gap > max(others) - min(others) else []


def _pairs_chart(differences: Mapping[str, Any], metric: str) -> Chart:
    rows = {}
    for pair, values in differences.items():
        better, worse = (name_of(system) for system in pair.split(" - "))
        rows[f"{better} {_MINUS} {worse}"] = values[metric]
    title = f"{metric_name(metric)}, paired differences"
    return difference_chart(title, _INTERVALS, "Difference", rows, left=184.0)


def ablation_charts(summary: Mapping[str, Any]) -> list[Chart]:
    """Each variant minus the full model, a chart per metric."""
    charts = []
    for metric in summary["metrics"]:
        full = summary["variants"]["full model"][metric]
        caption = f"{_INTERVALS} The full model reaches {full:.4f}."
        rows = {name: values[metric] for name, values in summary["differences"].items()}
        title = f"{metric_name(metric)}, minus the full model"
        charts.append(difference_chart(title, caption, "Variant", rows, left=226.0))
    return charts


def cold_item_charts(content: Mapping[str, Any]) -> list[Chart]:
    """Recall@20 by system, among the cold items and within the whole catalogue."""
    captions = {
        "cold": ("among the cold items", "Ranked among items without any training row."),
        "catalogue": ("in the whole catalogue", "The same items ranked among all others."),
    }
    systems = content["mean"]["systems"]
    styles = {name: "s-stage1" for name in systems if name.startswith("two-tower")}
    styles |= {name: "s-stage2" for name in systems if name.startswith("both stages")}
    styles |= dict.fromkeys(("random", "oracle: true popularity"), "s-popularity")
    charts = []
    for candidates, (title, caption) in captions.items():
        values = {}
        for name, figures in systems.items():
            mean = figures[candidates]["recall@20"]
            sd = content["sd"]["systems"][name][candidates]["recall@20"]
            values[name] = (mean, f"{mean:.3f} ± {sd:.3f}")
        charts.append(bar_chart(f"Recall@20 {title}", caption, values, 30.0, 206.0, 374.0, styles))
    return charts


def cold_user_charts(content: Mapping[str, Any]) -> list[Chart]:
    """Curves by the length of the history given, per metric and order of events."""
    orders = {key: curves for key, curves in content["mean"].items() if isinstance(curves, dict)}
    return [
        _curves_chart(f"{metric_name(metric)}, history {order}", curves, metric)
        for order, curves in orders.items()
        for metric in ("ndcg@10", "recall@100")
    ]


def _curves_chart(title: str, curves: Mapping[str, Any], metric: str) -> Chart:
    left, right, top, bottom = 48.0, 396.0, 14.0, 236.0
    lengths = list(next(iter(curves.values())))
    values = {
        system: [curve[length][metric] for length in lengths] for system, curve in curves.items()
    }
    ticks = nice_ticks(min(map(min, values.values())), max(map(max, values.values())))
    # Lengths lie evenly apart: from 10 events to 20 there is no more to tell than from 1 to 3.
    x = Scale(0, len(lengths) - 1, left + 8, right)
    y = Scale(ticks[0], ticks[-1], bottom, top)
    rows = [
        [length, *(f"{series[i]:.4f}" for series in values.values())]
        for i, length in enumerate(lengths)
    ]
    chart = Chart(title, "", WIDTH, bottom + 44, ["Events", *map(name_of, values)], rows)
    for tick, text in zip(ticks, tick_labels(ticks), strict=True):
        chart.rule(left, y(tick), right, y(tick))
        chart.texts.append(Text(left - 8, y(tick) + 4, text, "end"))
    for place, length in enumerate(lengths):
        chart.texts.append(Text(x(place), bottom + 20, length, "middle"))
    chart.texts.append(Text((left + right) / 2, bottom + 40, "interactions given", "middle"))
    for system, series in values.items():
        style = style_class(system)
        points = [(x(place), y(value)) for place, value in enumerate(series)]
        chart.lines.append(Line(path(points), f"series {style}"))
        for length, value, (px, py) in zip(lengths, series, points, strict=True):
            tip = f"{label(system)}, {length} given: {value:.4f}"
            chart.marks.append(Mark(px, py, shape(system), style, tip))
        at = points[-1][1] + 4
        chart.texts.append(Text(right + 12, at, name_of(system), style=f"name {style}"))
    return names_apart(chart, right + 12)
