"""From units of the benchmark of data sets to its figures and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets_registry import SETS
from benchmarks.quality_tables import Unit, difference, system_label
from benchmarks.runs import counted, machine_line
from recsys.results import STAGES, column_name, label

BEST, STRONGEST = "best baseline", "strongest other"
"""By NDCG@10 of the validation rows; and of the test rows, which is more than could be known, other
libraries included."""
DIFFERENCES = (
    ("stage1", BEST),
    ("stage2", BEST),
    ("stage2", "stage1"),
    ("stage2", "lambdamart"),
    ("stage1", STRONGEST),
    ("stage2", STRONGEST),
)
_SHOWN = ("ndcg@10", "recall@100")
_LEDE = (
    "Printed by `python benchmarks/datasets.py`. Each set is trained with the defaults; "
    "every baseline has its settings chosen on validation rows, which are carved out of the "
    "training rows as the split carves out the test rows. The best baseline has the best "
    "validation NDCG@10. LambdaMART, where it is there, learns from stage 2's lists and re-ranks "
    "the same candidates; models of other libraries have these libraries' settings, and epochs "
    "chosen on validation rows. Full catalogue, training items left out, every held-out row "
    "relevant; training is handed no held-out row. Where another of them is ahead of the best "
    "baseline on the test rows, the differences from that one are given, too. Intervals: 95%, "
    "paired bootstrap over users."
)


def contents(
    units: Mapping[tuple[str, str], Sequence[Unit]], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures: ``machine`` and, by set and protocol, what ``summarize`` returns."""
    sets: dict[str, Any] = {}
    for (name, protocol), seeds in units.items():
        public = SETS[name]
        entry = sets.setdefault(
            name,
            {"note": public.note, "texts": public.texts, "times": public.times, "protocols": {}},
        )
        entry["protocols"][protocol] = summarize(seeds)
    return {"machine": dict(machine), "sets": sets}


def summarize(seeds: Sequence[Unit]) -> dict[str, Any]:
    """Means and deviations over seeds, what was chosen, paired intervals, and costs."""
    first = seeds[0].content
    metrics = list(first["metrics"])
    names = [name for name in first["baselines"] if len(_having(seeds, name)) == len(seeds)]
    peers = list(dict.fromkeys(name for unit in seeds for name in unit.content.get("peers", {})))
    stages = [name for name in ("lambdamart", *STAGES) if len(_having(seeds, name)) == len(seeds)]
    # By system, seed and metric; of peers there may be fewer seeds.
    means = {
        name: np.array([unit.per_user[name].mean(axis=0) for unit in _having(seeds, name)])
        for name in (*names, *peers, *stages)
    }
    validation = {
        name: float(np.mean([unit.content["baselines"][name]["validation"] for unit in seeds]))
        for name in names
    }
    top = {
        name: float(means[name][:, metrics.index("ndcg@10")].mean()) for name in (*names, *peers)
    }
    roles = {
        BEST: max(names, key=lambda name: validation[name]),
        STRONGEST: max(top, key=lambda name: top[name]),
    }
    return {
        "protocol": first["protocol"],
        "num_seeds": len(seeds),
        "n_users": [unit.content["n_users"] for unit in seeds],
        "rows": first["rows"],
        "configuration": first["configuration"],
        "epochs": [unit.content["epochs"] for unit in seeds],
        "systems": {
            name: {
                metric: {"mean": float(own[:, j].mean()), "sd": _deviation(own[:, j])}
                for j, metric in enumerate(metrics)
            }
            for name, own in means.items()
        },
        "baselines": {
            name: {
                "validation": validation[name],
                "settings": [unit.content["baselines"][name]["settings"] for unit in seeds],
            }
            for name in names
        },
        "best_baseline": roles[BEST],
        "strongest_other": roles[STRONGEST],
        "differences": {
            f"{better} - {worse}": difference(_having(seeds, other), better, other, metrics)
            for better, worse in DIFFERENCES
            if better in stages and (other := roles.get(worse, worse)) in means
        },
        "peers": {
            name: [unit.content["peers"][name] for unit in _having(seeds, name)] for name in peers
        },
        "costs": {
            step: {
                key: float(np.median([unit.content[key][step] for unit in seeds]))
                for key in ("seconds", "cpu_seconds", "peak_gb")
            }
            for step in first["seconds"]
        },
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The report: an overview, and the tables of each set and protocol."""
    lines = ["# Public data sets", "", _LEDE, "", machine_line(content["machine"]), ""]
    lines += overview(content)
    for name, entry in content["sets"].items():
        facts = f"{entry['note']}. Texts: {entry['texts']}. Times: {entry['times']}."
        lines += ["", f"## {name}", "", facts]
        for protocol, summary in entry["protocols"].items():
            lines += ["", f"### {name}, {protocol}", "", *_section(summary)]
    return "\n".join(lines) + "\n"


def overview(content: Mapping[str, Any]) -> list[str]:
    """By metric, a row per set and protocol: where the product leads, and where it does not."""
    lines: list[str] = []
    for metric in _SHOWN:
        lines += [
            *([""] if lines else []),
            f"| {column_name(metric)} | best baseline | its | stage 1 | minus best | stage 2 | "
            "minus best | stage 2 minus stage 1 |",
            "|---|---|---:|---:|---|---:|---|---|",
        ]
        for name, entry in content["sets"].items():
            for protocol, summary in entry["protocols"].items():
                cells = [f"{name}, {protocol}", *_leads(summary, metric)]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def _leads(summary: Mapping[str, Any], metric: str) -> list[str]:
    """Cells of a row of ``overview``; empty where stage 2 was left out."""
    best, systems, differences = (
        summary[key] for key in ("best_baseline", "systems", "differences")
    )
    cells = [label(best), f"{systems[best][metric]['mean']:.4f}"]
    for stage in STAGES:
        is_there = stage in systems
        cells += (
            [
                f"{systems[stage][metric]['mean']:.4f}",
                _interval(differences[f"{stage} - {BEST}"][metric]),
            ]
            if is_there
            else ["", ""]
        )
    both = differences.get("stage2 - stage1")
    return [*cells, _interval(both[metric]) if both else ""]


def _section(summary: Mapping[str, Any]) -> list[str]:
    rows = summary["rows"]
    facts = f"{rows['users']:,} users, {rows['items']:,} items, {rows['train']:,} training rows"
    told = ", ".join(f"`{one}`" for one in summary["configuration"]) or "the defaults"
    lines = [f"{summary['protocol']}. {facts}; {told}.", ""]
    lines += _systems(summary)
    lines += ["", *_differences(summary), "", *_costs(summary)]
    return lines


def _systems(summary: Mapping[str, Any]) -> list[str]:
    metrics = list(next(iter(summary["systems"].values())))
    seeds = counted(summary["num_seeds"], "seed")
    lines = [
        f"| {seeds} | {' | '.join(map(column_name, metrics))} | validation N@10 | settings |",
        "|---|" + "---:|" * (len(metrics) + 1) + "---|",
    ]
    for name, values in summary["systems"].items():
        cells = [
            f"{values[metric]['mean']:.4f}"
            + (f" ± {values[metric]['sd']:.4f}" if values[metric]["sd"] else "")
            for metric in metrics
        ]
        found = summary["baselines"].get(name)
        cells.append(f"{found['validation']:.4f}" if found else "")
        told = list(map(settings_text, _distinct(found["settings"]))) if found else []
        told += map(_peer_text, summary["peers"].get(name, []))
        cells.append("; ".join(told))
        lines.append(f"| {system_label(name)} | {' | '.join(cells)} |")
    return lines


def _differences(summary: Mapping[str, Any]) -> list[str]:
    metrics = list(next(iter(summary["differences"].values())))
    lines = [
        f"| difference | {' | '.join(map(column_name, metrics))} |",
        "|---|" + "---|" * len(metrics),
    ]
    for pair, values in summary["differences"].items():
        better, worse = pair.split(" - ")
        if worse == STRONGEST and summary["strongest_other"] == summary["best_baseline"]:
            continue
        other = system_label(summary.get(worse.replace(" ", "_"), worse))
        other += " (best on test rows)" if worse == STRONGEST else ""
        cells = [_interval(values[metric]) for metric in metrics]
        lines.append(f"| {system_label(better)} minus {other} | {' | '.join(cells)} |")
    return lines


def _costs(summary: Mapping[str, Any]) -> list[str]:
    names = {
        "texts": "rows and texts (vectors are kept)",
        "lists": "out-of-fold lists",
        "baselines": "search and fits of baselines",
    }
    lines = ["| step | seconds | CPU seconds | peak GB so far |", "|---|---:|---:|---:|"]
    for step, cost in summary["costs"].items():
        figures = f"{cost['seconds']:.0f} | {cost['cpu_seconds']:.0f} | {cost['peak_gb']:.2f}"
        lines.append(f"| {names.get(step) or system_label(step)} | {figures} |")
    return lines


def settings_text(settings: Mapping[str, Any]) -> str:
    """``regularization 400, by_user no``."""
    words = {None: "none", True: "yes", False: "no"}
    parts = []
    for key, value in settings.items():
        known = value is None or isinstance(value, bool)
        parts.append(f"{key} {words[value] if known else f'{value:g}'}")
    return ", ".join(parts)


def _peer_text(facts: Mapping[str, Any]) -> str:
    """``20 epochs, 61 s, 1.2 GB``."""
    return f"{facts['epochs']} epochs, {facts['seconds']:.0f} s, {facts['peak_gb']:.1f} GB"


def _having(seeds: Sequence[Unit], name: str) -> list[Unit]:
    """Those in which a system was measured."""
    return [unit for unit in seeds if name in unit.per_user]


def _deviation(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _distinct(settings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for number, one in enumerate(settings) if one not in settings[:number]]


def _interval(entry: Mapping[str, float]) -> str:
    return f"{entry['mean']:+.4f} ({entry['low']:+.4f} to {entry['high']:+.4f})"
