"""report.html: one self-contained file with what metrics.json says and how it was measured."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recsys.report_curves import training_charts
from recsys.report_plots import (
    bar_charts,
    interval_chart,
    metric_name,
    ndcg_chart,
    recall_charts,
    shape,
    short_name,
    signed,
    slice_charts,
    style_class,
)
from recsys.results import (
    TABLE_METRICS,
    column_name,
    interval_text,
    label,
    systems,
    table_cells,
    target_lines,
)

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    path: Path,
    metrics: dict[str, Any],
    *,
    training_curves: dict[str, pd.DataFrame],
    run_info: dict[str, str],
    examples: list[dict[str, Any]],
) -> None:
    """Write ``render_report`` to ``path``, all of it or nothing; folders are made."""
    html = render_report(
        metrics, training_curves=training_curves, run_info=run_info, examples=examples
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(html, encoding="utf-8")
    unfinished.replace(path)


def render_report(
    metrics: dict[str, Any],
    *,
    training_curves: dict[str, pd.DataFrame],
    run_info: dict[str, str],
    examples: list[dict[str, Any]],
) -> str:
    """The report as HTML that asks nothing of the network. What is missing is left out.

    Args:
        metrics: the content of metrics.json.
        training_curves: stage ("Stage 1") -> frame indexed by epoch; columns such as "train/loss"
            and "val/recall@100"; NaN where not measured.
        run_info: label -> value, shown in this order.
        examples: "user", and lists of titles "history" (oldest first), "stage1", "stage2" and
            "held_out". Titles are data: they are escaped.

    Returns:
        The same text for the same arguments.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    order = list(systems(metrics))
    return environment.get_template("report.html.j2").render(
        metrics=metrics,
        lede=_lede(metrics),
        headlines=_headlines(metrics),
        systems=[
            {
                "label": label(system),
                "short": short_name(system),
                "shape": shape(system),
                "style": style_class(system),
            }
            for system in order
        ],
        columns=[(column_name(metric), metric_name(metric)) for metric in TABLE_METRICS],
        cells=list(table_cells(metrics).values()),
        interval_text=interval_text(metrics),
        target_lines=target_lines(metrics),
        main_charts=[c for c in (ndcg_chart(metrics), interval_chart(metrics)) if c is not None],
        recall=recall_charts(metrics),
        slices=slice_charts(metrics),
        bars=bar_charts(metrics),
        training={
            stage: charts
            for stage, curves in training_curves.items()
            if (charts := training_charts(stage, curves))
        },
        run_info=run_info,
        examples=[_example(example) for example in examples],
    )


def _final(metrics: dict[str, Any]) -> str:
    """The stage that answers users; a report of baselines alone has none."""
    return list(systems(metrics))[-1]


def _rival(metrics: dict[str, Any], metric: str) -> str | None:
    baselines = metrics["baselines"]
    return max(baselines, key=lambda system: baselines[system][metric]) if baselines else None


def _lede(metrics: dict[str, Any]) -> str:
    final, rival = _final(metrics), _rival(metrics, "ndcg@10")
    value = systems(metrics)[final]["ndcg@10"]
    sentence = f"On {metrics['n_users']:,} users, {label(final)} reaches an NDCG@10 of {value:.4f}"
    if rival is None or rival == final:
        return sentence + "."
    other = metrics["baselines"][rival]["ndcg@10"]
    side = "above" if value >= other else "below"
    return f"{sentence}: {abs(value - other):.4f} {side} the best baseline, {short_name(rival)}."


def _headlines(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """The figures at the top: value and what to compare it with."""
    final = _final(metrics)
    cards = []
    for metric in ("ndcg@10", "recall@10", "recall@100"):
        value, rival = systems(metrics)[final][metric], _rival(metrics, metric)
        note = short_name(final)
        if rival not in (None, final):
            other = metrics["baselines"][rival][metric]
            note += f"; {short_name(str(rival))}, the best baseline: {other:.3f}"
        cards.append({"name": metric_name(metric), "value": f"{value:.3f}", "note": note})
    difference = metrics.get("stage2_minus_stage1", {}).get("ndcg@10")
    if difference:
        low, high = signed(difference["low"]), signed(difference["high"])
        crosses = difference["low"] <= 0 <= difference["high"]
        verdict = "crosses zero: no difference shown" if crosses else "does not cross zero"
        cards.append(
            {
                "name": "Stage 2 gain, NDCG@10",
                "value": signed(difference["mean"]),
                "note": f"95% interval {low} to {high}, {verdict}",
            }
        )
    return cards


def _example(example: dict[str, Any]) -> dict[str, Any]:
    """Lists in reading order, each title with whether it was held out."""
    held_out = set(example.get("held_out", []))
    names = {"stage1": "Stage 1", "stage2": "Stage 2"}
    lists = [
        {
            "name": name,
            "style": style_class(stage),
            "titles": [(title, title in held_out) for title in example[stage]],
            "found": sum(title in held_out for title in example[stage]),
        }
        for stage, name in names.items()
        if example.get(stage)
    ]
    return {
        "user": example["user"],
        "history": example.get("history", []),
        "held_out": example.get("held_out", []),
        "lists": lists,
    }
