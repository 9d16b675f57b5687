"""From the draws of the ablation to its tables: means, and paired differences to the full model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.ablation_variants import FULL
from benchmarks.harness import plain_table
from benchmarks.quality_tables import Unit, difference
from benchmarks.runs import counted, machine_line
from recsys.results import column_name, label

NOTES = (
    "Each row is trained anew without the named part; towers alone are the full model's, the "
    "other tower's scores counting nothing. All rows of stage 2 re-rank the lists of the full "
    "stage 1: text is changed in stage 2 alone there. Shuffled, its vectors keep their statistics "
    "and lose their meaning.",
    "Differences are to the full model, with 95% intervals of a paired bootstrap over users: each "
    "user's rows of all draws are drawn together.",
)


def summarize(draws: Sequence[Unit]) -> dict[str, Any]:
    """Means over draws, and paired differences to the full model, by variant and metric.

    Raises:
        ValueError: when draws have other users, whose rows could not be drawn together.
    """
    counts = [unit.content["n_users"] for unit in draws]
    if len(set(counts)) > 1:
        raise ValueError(f"expected the same users in each draw; found {counts} of them")
    metrics = list(draws[0].content["metrics"])
    return {
        "num_draws": len(draws),
        "n_users": counts[0],
        "metrics": metrics,
        "variants": {
            name: {
                metric: float(np.mean([unit.per_user[name][:, j].mean() for unit in draws]))
                for j, metric in enumerate(metrics)
            }
            for name in draws[0].per_user
        },
        "differences": {
            name: difference(draws, name, FULL, metrics)
            for name in draws[0].per_user
            if name != FULL
        },
    }


def results_table(stage: str, summary: Mapping[str, Any]) -> Table:
    """For a terminal: per metric the mean and the difference, and below it the interval."""
    table = plain_table(
        f"{label(stage)}: {_size(summary)}",
        "mean and difference to the full model, with its 95% interval",
    )
    table.add_column("variant")
    for metric in summary["metrics"]:
        table.add_column(column_name(metric), justify="right", no_wrap=True)
    for name, values in summary["variants"].items():
        cells = []
        for metric in summary["metrics"]:
            text = f"{values[metric]:.4f}"
            if name in summary["differences"]:
                mean, low, high = _signed(summary["differences"][name][metric])
                text += f"  {mean}\n{low} to {high}"
            cells.append(text.replace("0.", "."))
        table.add_row(name, *cells)
    return table


def markdown(content: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "# What each part is worth",
        "",
        f"Printed by `python benchmarks/ablation.py`. {content['dataset']}, split "
        f"{content['split']}: {content['protocol']}. {NOTES[0]}",
        "",
        NOTES[1],
        "",
        machine_line(content["machine"]),
    ]
    if content["overrides"]:
        lines += ["", f"Overrides: `{' '.join(content['overrides'])}`."]
    for stage, summary in content["stages"].items():
        lines += ["", f"## {label(stage)}", "", *variants_table(summary)]
    return "\n".join(lines) + "\n"


def variants_table(summary: Mapping[str, Any]) -> list[str]:
    """One row per variant; the columns of a metric: mean, difference, interval."""
    header = [_size(summary)]
    for metric in summary["metrics"]:
        header += [column_name(metric), "difference", "95% interval"]
    lines = [
        "| " + " | ".join(header) + " |",
        "|---|" + "---:|---:|---|" * len(summary["metrics"]),
    ]
    for name, values in summary["variants"].items():
        cells = [name]
        for metric in summary["metrics"]:
            cells.append(f"{values[metric]:.4f}")
            if name in summary["differences"]:
                mean, low, high = _signed(summary["differences"][name][metric])
                cells += [mean, f"{low} to {high}"]
            else:
                cells += ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _size(summary: Mapping[str, Any]) -> str:
    return f"{counted(summary['n_users'], 'user')}, {counted(summary['num_draws'], 'draw')}"


def _signed(interval: Mapping[str, float]) -> list[str]:
    return [f"{interval[key]:+.4f}" for key in ("mean", "low", "high")]
