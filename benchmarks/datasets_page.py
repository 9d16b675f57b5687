"""One page with a plot per public data set, from the figures of the benchmark."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.datasets_tables import BEST
from benchmarks.runs import ROOT, counted
from recsys.report_drawing import Chart, Mark, Scale, Text, nice_ticks, tick_labels
from recsys.report_plots import WIDTH, metric_name, shape, short_name, signed, style_class
from recsys.results import STAGES, label

TEMPLATES = (ROOT / "benchmarks/templates", ROOT / "recsys/templates")
_METRIC = "ndcg@10"
_LEFT, _RIGHT, _STEP, _GAP = 146.0, 346.0, 24.0, 34.0


def page(content: Mapping[str, Any]) -> str:
    """HTML that asks nothing of the network."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts = {name: set_chart(name, entry) for name, entry in content["sets"].items()}
    return environment.get_template("datasets.html.j2").render(charts=charts)


def set_chart(name: str, entry: Mapping[str, Any]) -> Chart:
    """NDCG@10 of each system, a block per protocol, beside the lead over the best baseline."""
    protocols = entry["protocols"]
    values = [
        figures[_METRIC]["mean"]
        for summary in protocols.values()
        for figures in summary["systems"].values()
    ]
    ticks = nice_ticks(0.0, max(values), about=4)
    x = Scale(ticks[0], ticks[-1], _LEFT, _RIGHT)
    height = sum(_GAP + _STEP * len(summary["systems"]) for summary in protocols.values()) + 28
    caption = (
        f"{entry['note']}. Each baseline with its best settings on validation rows; the line is at "
        "the best of them. Beside the stages: their lead over it, * where its 95% interval "
        "excludes zero."
    )
    columns = ["Protocol", "System", metric_name(_METRIC), "Lead", "Low", "High"]
    chart = Chart(f"{name}, {metric_name(_METRIC)}", caption, WIDTH, height, columns, [])
    top = 0.0
    for protocol, summary in protocols.items():
        top = _block(chart, x, top, protocol, summary)
    for tick, text in zip(ticks, tick_labels(ticks), strict=True):
        chart.texts.append(Text(x(tick), height - 8, text, "middle"))
    return chart


def _block(chart: Chart, x: Scale, top: float, protocol: str, summary: Mapping[str, Any]) -> float:
    """Draw one protocol's systems; returns where the next block begins."""
    seeds = counted(summary["num_seeds"], "seed")
    title = f"{protocol}, {max(summary['n_users']):,} users, {seeds}"
    chart.texts.append(Text(4, top + 18, title))
    start, best = top + _GAP - 6, summary["best_baseline"]
    end = start + _STEP * len(summary["systems"])
    bar = summary["systems"][best][_METRIC]["mean"]
    chart.rule(x(0.0), start, x(0.0), end)
    chart.rule(x(bar), start, x(bar), end, "axis")
    for number, (system, figures) in enumerate(summary["systems"].items()):
        y, value = start + _STEP * (number + 0.5), figures[_METRIC]["mean"]
        text, lead = f"{value:.4f}", ["", "", ""]
        if system in STAGES:
            entry = summary["differences"][f"{system} - {BEST}"][_METRIC]
            lead = [signed(entry[key]) for key in ("mean", "low", "high")]
            text += f" ({lead[0]}{'*' * (entry['low'] > 0 or entry['high'] < 0)})"
        chart.rows.append([protocol, short_name(system), f"{value:.4f}", *lead])
        chart.texts.append(Text(_LEFT - 12, y + 4, short_name(system), "end", "row"))
        chart.texts.append(Text(WIDTH - 4, y + 4, text, "end", "value"))
        style = style_class(system)
        chart.rule(x(0.0), y, x(value), y, f"interval {style}")
        chart.marks.append(Mark(x(value), y, shape(system), style, f"{label(system)}: {text}"))
    return end + 6
