"""From the units of the quality benchmark to its tables: means, spreads and paired intervals."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.runs import counted, machine_line
from recsys.evaluation import paired_bootstrap
from recsys.results import column_name, label

BARS = {
    ("stage1", "recall@100"): 0.745,
    ("stage1", "ndcg@10"): 0.322,
    ("stage2", "ndcg@10"): 0.335,
    ("stage2", "ndcg@5"): 0.406,
    ("stage2", "recall@10"): 0.284,
    ("stage2", "recall@100"): 0.755,
}
"""What the means over the seeds of ua have to reach."""
ORDER = ("popularity", "als", "ease", "lambdamart", "stage1", "stage2")
DIFFERENCES = (
    ("stage2", "stage1"),
    ("stage2", "lambdamart"),
    ("stage2", "als"),
    ("stage2", "ease"),
    ("stage1", "als"),
    ("stage1", "ease"),
)
LAMBDAMART = "LambdaMART on stage 1's candidates"
STEPS = {"lists": "out-of-fold lists (stage 2, LambdaMART)"}


@dataclass(frozen=True)
class Unit:
    """The result of one seed. per_user: system -> float64 [U, M], columns as in ``metrics``."""

    content: Mapping[str, Any]
    per_user: Mapping[str, NDArray[np.float64]]

    @classmethod
    def load(cls, folder: Path) -> "Unit":
        content = json.loads((folder / "result.json").read_text())
        with np.load(folder / "per_user.npz") as stored:
            return cls(content, {name: stored[name].astype(np.float64) for name in stored.files})


def markdown(
    units: Mapping[str, Sequence[Unit]], machine: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The report as Markdown, and all of its numbers."""
    content: dict[str, Any] = {"machine": dict(machine), "protocols": {}}
    lines = [
        "# Ranking quality",
        "",
        "Printed by `python benchmarks/quality.py`. Full catalogue, training items left out, every "
        "held-out row relevant; means ± standard deviations over seeds. Training is handed no "
        "held-out row. LambdaMART learns from the lists of stage 2 and re-ranks the same "
        "candidates; its trees add to stage 1's score.",
        "",
        machine_line(machine),
    ]
    for protocol, seeds in units.items():
        summary = summarize(seeds)
        content["protocols"][protocol] = summary
        lines += ["", f"## {protocol}", "", f"{seeds[0].content['protocol']}.", ""]
        lines += results_table(summary)
        lines += ["", *differences_table(summary)]
        if protocol == "ua":
            lines += ["", *bars_table(summary)]
        lines += ["", *costs_table(summary)]
    return "\n".join(lines) + "\n", content


def summarize(seeds: Sequence[Unit]) -> dict[str, Any]:
    """Means and deviations over seeds, paired intervals over users, and costs."""
    metrics = list(seeds[0].content["metrics"])
    systems = [name for name in ORDER if name in seeds[0].per_user]
    # By seed, system and metric.
    means = np.array([[unit.per_user[name].mean(axis=0) for name in systems] for unit in seeds])
    deviations = means.std(axis=0, ddof=1) if len(seeds) > 1 else np.zeros_like(means[0])
    return {
        "num_seeds": len(seeds),
        "n_users": [unit.content["n_users"] for unit in seeds],
        "systems": {
            name: {
                metric: {"mean": float(means[:, i, j].mean()), "sd": float(deviations[i, j])}
                for j, metric in enumerate(metrics)
            }
            for i, name in enumerate(systems)
        },
        "differences": {
            f"{better} - {worse}": difference(seeds, better, worse, metrics)
            for better, worse in DIFFERENCES
            if better in systems and worse in systems
        },
        "costs": {
            step: {
                "seconds": float(np.median([unit.content["seconds"][step] for unit in seeds])),
                "peak_gb": float(np.median([unit.content["peak_gb"][step] for unit in seeds])),
            }
            for step in seeds[0].content["seconds"]
        },
    }


def difference(
    seeds: Sequence[Unit], better: str, worse: str, metrics: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Mean difference and its 95% interval.

    With one set of users for all seeds, each user's difference is averaged over the seeds before
    users are drawn; otherwise (splits of different seeds) the users of all seeds are pooled.
    """
    per_seed = [unit.per_user[better] - unit.per_user[worse] for unit in seeds]
    same = len({len(values) for values in per_seed}) == 1
    values = np.mean(per_seed, axis=0) if same else np.concatenate(per_seed)
    low, high = paired_bootstrap(values, seed=0)
    return {
        metric: {"mean": float(values[:, j].mean()), "low": float(low[j]), "high": float(high[j])}
        for j, metric in enumerate(metrics)
    }


def results_table(summary: Mapping[str, Any]) -> list[str]:
    systems = summary["systems"]
    metrics = list(next(iter(systems.values())))
    best = {
        metric: max(values[metric]["mean"] for values in systems.values()) for metric in metrics
    }
    lines = [
        f"| {counted(summary['num_seeds'], 'seed')} | "
        + " | ".join(map(column_name, metrics))
        + " |",
        "|---|" + "---:|" * len(metrics),
    ]
    for name, values in systems.items():
        cells = []
        for metric in metrics:
            mean, sd = values[metric]["mean"], values[metric]["sd"]
            text = f"{mean:.4f} ± {sd:.4f}" if sd else f"{mean:.4f}"
            cells.append(f"**{text}**" if mean == best[metric] else text)
        lines.append(f"| {system_label(name)} | " + " | ".join(cells) + " |")
    return lines


def differences_table(summary: Mapping[str, Any]) -> list[str]:
    lines = [
        "| difference | NDCG@10 | 95% interval | R@100 | 95% interval |",
        "|---|---:|---|---:|---|",
    ]
    for pair, values in summary["differences"].items():
        better, worse = pair.split(" - ")
        cells = []
        for metric in ("ndcg@10", "recall@100"):
            one = values[metric]
            cells += [f"{one['mean']:+.4f}", f"{one['low']:+.4f} to {one['high']:+.4f}"]
        name = f"{system_label(better)} minus {system_label(worse)}"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def bars_table(summary: Mapping[str, Any]) -> list[str]:
    lines = ["| bar | needed | reached | |", "|---|---:|---:|---|"]
    for (system, metric), needed in BARS.items():
        reached = summary["systems"][system][metric]["mean"]
        verdict = "yes" if reached >= needed else "**no**"
        name = f"{system_label(system)}, {column_name(metric)}"
        lines.append(f"| {name} | {needed:.3f} | {reached:.4f} | {verdict} |")
    return lines


def costs_table(summary: Mapping[str, Any]) -> list[str]:
    lines = ["| step | seconds (median) | peak memory so far, GB |", "|---|---:|---:|"]
    for step, cost in summary["costs"].items():
        name = STEPS.get(step) or system_label(step)
        lines.append(f"| {name} | {cost['seconds']:.1f} | {cost['peak_gb']:.2f} |")
    return lines


def system_label(system: str) -> str:
    """How the tables call a system."""
    return LAMBDAMART if system == "lambdamart" else label(system)
