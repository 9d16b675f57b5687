"""One self-contained page with plots of what the benchmarks have measured.

    python benchmarks/report.py

Reads the JSON files in ``benchmarks/results`` and writes ``report.html`` beside them. Where a file
is missing, the page says which command makes it.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.ablation_tables import NOTES
from benchmarks.diversity_charts import coverage_chart, trade_off_chart
from benchmarks.report_charts import (
    ablation_charts,
    cold_item_charts,
    cold_user_charts,
    quality_charts,
)
from benchmarks.runs import ROOT, counted
from recsys.report_drawing import Chart
from recsys.results import label

TEMPLATES = (ROOT / "benchmarks/templates", ROOT / "recsys/templates")


@dataclass(frozen=True)
class Group:
    """Charts that belong together. note: what was measured; may be empty."""

    title: str
    note: str
    charts: list[Chart]


@dataclass(frozen=True)
class Section:
    """One file of results. command: what writes the file. groups: of the file's content."""

    title: str
    lede: str
    file: str
    command: str
    groups: Callable[[Mapping[str, Any]], list[Group]]


def _quality(content: Mapping[str, Any]) -> list[Group]:
    return [
        Group(protocol, f"{max(summary['n_users']):,} users.", quality_charts(summary))
        for protocol, summary in content["protocols"].items()
    ]


def _ablation(content: Mapping[str, Any]) -> list[Group]:
    note = f"{content['dataset']}, split {content['split']}: {content['protocol']}."
    return [
        Group(label(stage), note, ablation_charts(summary))
        for stage, summary in content["stages"].items()
    ]


def _cold_items(content: Mapping[str, Any]) -> list[Group]:
    return [Group(_draws(content), content["protocol"], cold_item_charts(content))]


def _cold_users(content: Mapping[str, Any]) -> list[Group]:
    return [Group(_draws(content), content["protocol"], cold_user_charts(content))]


def _diversity(content: Mapping[str, Any]) -> list[Group]:
    charts = [trade_off_chart(content), coverage_chart(content)]
    return [Group(_draws(content), content["protocol"], charts)]


def _draws(content: Mapping[str, Any]) -> str:
    return f"{content['dataset']}, {counted(len(content['draws']), 'draw')}"


SECTIONS = (
    Section(
        "Both stages and the baselines",
        "Full catalogue, training items left out, every held-out row relevant. Training is handed "
        "no held-out row. An interval that crosses zero shows no difference.",
        "quality.json",
        "python benchmarks/quality.py",
        _quality,
    ),
    Section(
        "What each part is worth",
        " ".join(NOTES),
        "ablation.json",
        "python benchmarks/ablation.py --draws 3 --stage2",
        _ablation,
    ),
    Section(
        "Items without any training row",
        "How well does content alone place them?",
        "cold_items.json",
        "python benchmarks/cold_items.py --output benchmarks/results/cold_items.json",
        _cold_items,
    ),
    Section(
        "Users without any training row",
        "How good are lists after the first few interactions? EASE answers with the given history "
        "times its weights.",
        "cold_users.json",
        "python benchmarks/cold_users.py --output benchmarks/results/cold_users.json",
        _cold_users,
    ),
    Section(
        "Lists of items that are less alike",
        "What does the dial of diversity cost, and what does it give?",
        "diversity.json",
        "python benchmarks/diversity.py --draws 1",
        _diversity,
    ),
)


def render(results: Path) -> str:
    """The page as HTML that asks nothing of the network, from the JSON files in ``results``."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = []
    for section in SECTIONS:
        file = results / section.file
        groups = section.groups(json.loads(file.read_text())) if file.is_file() else []
        sections.append((section, groups))
    return environment.get_template("benchmarks.html.j2").render(sections=sections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    results = parser.parse_args().results
    for section in SECTIONS:
        if not (results / section.file).is_file():
            print(f"{section.file} is missing; to make it: {section.command}")
    page = results / "report.html"
    page.write_text(render(results), encoding="utf-8")
    print(f"written to {page}")


if __name__ == "__main__":
    main()
