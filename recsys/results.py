"""The table of results, for a terminal and for Markdown."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

TABLE_METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "recall@100", "ndcg@100")
STAGES = ("stage1", "stage2")
CHAMPION = "champion"
"""What is served now, among the systems of metrics.json."""

_LABELS = {
    "popularity": "popularity",
    "recent_popularity": "popularity of late",
    "item_neighbours": "item-kNN",
    "als": "implicit ALS",
    "ease": "EASE",
    CHAMPION: "champion (served now)",
    "stage1": "stage 1 (two-tower)",
    "stage2": "stage 2 (cross-encoder)",
}
_DECIMALS = 4
_MINUS = "\N{MINUS SIGN}"


def label(system: str) -> str:
    """How a system is called in tables and plots."""
    return _LABELS.get(system, system)


def systems(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The evaluated systems and their metrics in reading order: baselines, then the stages."""
    known = [name for name in _LABELS if name in metrics["baselines"]]
    others = [name for name in metrics["baselines"] if name not in _LABELS]
    baselines = {name: metrics["baselines"][name] for name in known + others}
    return baselines | {stage: metrics[stage] for stage in STAGES if stage in metrics}


def column_name(metric: str) -> str:
    """``recall@10`` -> ``R@10``."""
    name, k = metric.split("@")
    return f"{name[0].upper()}@{k}"


def table_cells(metrics: dict[str, Any]) -> dict[str, list[tuple[str, bool]]]:
    """Per system the printed value of each of TABLE_METRICS, and whether it is the column's best.

    What prints alike ties: all of them are best.
    """
    printed = {
        system: [f"{values[metric]:.{_DECIMALS}f}" for metric in TABLE_METRICS]
        for system, values in systems(metrics).items()
    }
    best = [max(column) for column in zip(*printed.values(), strict=True)]
    return {
        system: [(text, text == top) for text, top in zip(row, best, strict=True)]
        for system, row in printed.items()
    }


def interval_text(metrics: dict[str, Any], metric: str = "ndcg@10") -> str | None:
    """The sentence on stage 2 minus stage 1, or None where stage 2 was not evaluated."""
    difference = metrics.get("stage2_minus_stage1", {}).get(metric)
    if difference is None:
        return None
    name, k = metric.split("@")
    name = {"ndcg": "NDCG"}.get(name, name)
    mean, low, high = (f"{difference[key]:+.{_DECIMALS}f}" for key in ("mean", "low", "high"))
    return (
        f"Stage 2 - stage 1 in {name}@{k}: {mean} "
        f"(95% interval {low} to {high}, paired bootstrap over {metrics['n_users']:,} users)"
    ).replace("-", _MINUS)


def best_line(metrics: dict[str, Any]) -> str:
    """What is served on this data, and how much better than the best baseline it is."""
    served = metrics["served_stage"]
    why = ""
    if served == "stage1" and "stage2" in metrics:
        why = ", since stage 2 did not pay for the users kept aside in training"
    told = f"served is {label(served)}{why}: NDCG@10 {metrics[served]['ndcg@10']:.{_DECIMALS}f}"
    against = metrics.get("minus_best_baseline")
    if against is None:
        return told
    difference = against["ndcg@10"]
    mean, low, high = (f"{difference[key]:+.{_DECIMALS}f}" for key in ("mean", "low", "high"))
    return f"{told}, {mean} ({low} to {high}) to the best baseline, {label(against['baseline'])}"


def target_lines(metrics: dict[str, Any], metric: str = "ndcg@10") -> list[str]:
    """A line for each kind of held-out event that was looked at by itself, such as purchases."""
    name, k = metric.split("@")
    name = {"ndcg": "NDCG"}.get(name, name)
    return [
        f"{name}@{k} of {kind} alone ({one['n_users']:,} users): "
        + ", ".join(
            f"{label(system)} {values[metric]:.{_DECIMALS}f}"
            for system, values in systems(one).items()
        )
        for kind, one in metrics.get("targets", {}).items()
    ]


def results_table(metrics: dict[str, Any]) -> Table:
    """The table for a terminal, from the content of metrics.json; best per column in bold."""
    below = [line for line in (interval_text(metrics), *target_lines(metrics)) if line]
    table = Table(
        # Text, and not a string: a name may hold what Rich takes for markup.
        title=Text(data_line(metrics)),
        caption=Text("\n".join(below)) if below else None,
        caption_justify="left",
        # Plain rules leave room for six columns on a terminal of 80.
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("model", no_wrap=True)
    for metric in TABLE_METRICS:
        table.add_column(column_name(metric), justify="right")
    rows = table_cells(metrics)
    for number, (system, row) in enumerate(rows.items(), start=1):
        cells = [f"[bold]{text}[/bold]" if best else text for text, best in row]
        last_baseline = number == len(metrics["baselines"])
        table.add_row(Text(label(system)), *cells, end_section=last_baseline and number < len(rows))
    return table


def data_line(metrics: dict[str, Any]) -> str:
    """What the table is of: ``sample, split random, 300 users``."""
    return f"{metrics['dataset']}, split {metrics['split']}, {metrics['n_users']:,} users"


def results_markdown(metrics: dict[str, Any]) -> str:
    """The table as Markdown, from the content of metrics.json; best per column in bold."""
    lines = [
        "| model | " + " | ".join(column_name(metric) for metric in TABLE_METRICS) + " |",
        "|---|" + "---:|" * len(TABLE_METRICS),
    ]
    for system, row in table_cells(metrics).items():
        cells = [f"**{text}**" if best else text for text, best in row]
        lines.append(f"| {label(system)} | " + " | ".join(cells) + " |")
    interval = interval_text(metrics)
    if interval:
        lines += ["", interval + "."]
    for line in target_lines(metrics):
        lines += ["", line + "."]
    return "\n".join(lines) + "\n"
