"""The report's training curves: one small chart per logged metric."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.report_drawing import (
    Anchor,
    Chart,
    Line,
    Mark,
    Scale,
    Text,
    nice_ticks,
    path,
    tick_labels,
)
from recsys.report_plots import metric_name

_WIDTH = 340.0
_PARTS = {"val": "validation", "train": "training"}
_STYLES = {"Stage 1": "s-stage1", "Stage 2": "s-stage2"}


def training_charts(stage: str, curves: pd.DataFrame) -> list[Chart]:
    """One chart per metric of a stage, validated ones first; ``train/x`` and ``val/x`` share one.

    Args:
        stage: "Stage 1" and "Stage 2" take these stages' colours.
        curves: indexed by epoch; NaN or infinite where not measured.
    """
    columns = sorted(map(str, curves.columns), key=lambda name: not name.startswith("val/"))
    charts = []
    for metric in dict.fromkeys(name.split("/", 1)[-1] for name in columns):
        measured = {part: _measured(curves, f"{part}/{metric}") for part in _PARTS}
        parts = {part: series for part, series in measured.items() if len(series[0])}
        if parts:
            charts.append(_chart(_STYLES.get(stage, "s-other"), metric, parts))
    return charts


_Series = tuple[NDArray[np.int64], NDArray[np.float64]]


def _measured(curves: pd.DataFrame, column: str) -> _Series:
    """The epochs in which a metric was measured, and its values."""
    if column not in curves:
        return np.empty(0, np.int64), np.empty(0)
    values = curves[column].to_numpy(np.float64)
    real = np.isfinite(values)
    return curves.index.to_numpy(np.int64)[real], values[real]


def _chart(style: str, metric: str, parts: dict[str, _Series]) -> Chart:
    left, right, top, bottom = 46.0, 330.0, 24.0, 176.0
    epochs = np.unique(np.concatenate([series[0] for series in parts.values()])).tolist()
    values = np.concatenate([series[1] for series in parts.values()])
    ticks = nice_ticks(float(values.min()), float(values.max()), about=4)
    x = Scale(epochs[0], epochs[-1], left, right)
    y = Scale(ticks[0], ticks[-1], bottom, top)
    name = metric_name(metric) if "@" in metric else metric.replace("_", " ").capitalize()
    at_epoch = [
        dict(zip(*map(np.ndarray.tolist, series), strict=True)) for series in parts.values()
    ]
    rows = [[str(e), *(f"{v[e]:.4f}" if e in v else "" for v in at_epoch)] for e in epochs]
    title = f"{name}, {' and '.join(_PARTS[part] for part in parts)}"
    columns = ["Epoch", *(_PARTS[part].capitalize() for part in parts)]
    chart = Chart(title, "", _WIDTH, 222.0, columns, rows)
    for tick, text in zip(ticks, tick_labels(ticks), strict=True):
        chart.rule(left, y(tick), right, y(tick))
        chart.texts.append(Text(left - 8, y(tick) + 4, text, "end"))
    for tick in nice_ticks(epochs[0], epochs[-1], 6) if len(epochs) > 1 else epochs:
        if tick == int(tick) and epochs[0] <= tick <= epochs[-1]:
            chart.texts.append(Text(x(tick), bottom + 20, f"{tick:g}", "middle"))
    chart.texts.append(Text((left + right) / 2, bottom + 40, "epoch", "middle"))
    for part, (measured_at, series) in parts.items():
        points = [(x(e), y(v)) for e, v in zip(measured_at.tolist(), series.tolist(), strict=True)]
        chart.lines.append(Line(path(points), f"series {style} {part}"))
        if part == "val":
            best = int(series.argmin() if "loss" in metric else series.argmax())
            at, value = points[best]
            tip = f"best: epoch {measured_at[best]}, {series[best]:.4f}"
            anchor: Anchor = "end" if at > (left + right) / 2 else "start"
            chart.marks.append(Mark(at, value, "disc", style, tip))
            chart.texts.append(Text(at, value - 10, tip, anchor, "value"))
    return chart
