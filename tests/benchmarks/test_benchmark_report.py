"""The benchmarks' report shows every figure of the files, and says how to make missing ones."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.diversity_charts import coverage_chart, trade_off_chart
from benchmarks.report import SECTIONS, render
from benchmarks.report_charts import (
    ablation_charts,
    cold_item_charts,
    cold_user_charts,
    quality_charts,
)

METRICS = ("ndcg@10", "recall@10", "recall@100")


class Numbers:
    """A different number each time, so that none on the page stands for another."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def __call__(self, scale: float = 1.0) -> float:
        self.drawn.append(round(scale * (0.3 + 0.0017 * len(self.drawn)), 4))
        return self.drawn[-1]

    def interval(self) -> dict[str, float]:
        low, mean, high = self(0.01), self(0.02), self(0.03)
        return {"mean": mean, "low": -low, "high": high}


def quality(number: Numbers) -> dict[str, Any]:
    systems = ("popularity", "ease", "lambdamart", "stage1", "stage2")
    return {
        "protocols": {
            "ua": {
                "num_seeds": 5,
                "n_users": [943] * 5,
                "systems": {
                    system: {
                        metric: {"mean": number(), "sd": number(0.01)}
                        for metric in ("ndcg@10", "recall@100")
                    }
                    for system in systems
                },
                "differences": {
                    "stage2 - stage1": {m: number.interval() for m in ("ndcg@10", "recall@100")}
                },
            }
        }
    }


def ablation(number: Numbers) -> dict[str, Any]:
    summary = {
        "metrics": list(METRICS),
        "variants": {"full model": {metric: number() for metric in METRICS}},
        "differences": {"without <text>": {metric: number.interval() for metric in METRICS}},
    }
    return {"dataset": "d", "split": "ua", "protocol": "p", "stages": {"stage1": summary}}


def cold_items(number: Numbers) -> dict[str, Any]:
    def figures() -> dict[str, Any]:
        return {part: {"recall@20": number()} for part in ("cold", "catalogue")}

    names = ("random", "text kNN", "ridge, text", "two-tower", "two-tower, without text")
    mean = {"num_cold": 9, "systems": {name: figures() for name in names}}
    sd = {"num_cold": 0, "systems": {name: figures() for name in names}}
    return {"dataset": "d", "protocol": "p", "draws": [{}], "mean": mean, "sd": sd}


def cold_users(number: Numbers) -> dict[str, Any]:
    def curves() -> dict[str, Any]:
        return {
            system: {
                length: {metric: number() for metric in ("ndcg@10", "recall@100")}
                for length in ("0", "1", "20")
            }
            for system in ("popularity", "ease", "stage1")
        }

    mean = {"num_users": 9, "by time": curves(), "in random order": curves()}
    return {"dataset": "d", "protocol": "p", "draws": [{}, {}], "mean": mean}


def diversity(number: Numbers) -> dict[str, Any]:
    metrics = ("ndcg@10", "diversity@10", "coverage@10")
    mean = {
        method: {dial: {metric: number() for metric in metrics} for dial in ("0.0", "0.5", "1.0")}
        for method in ("mmr", "dpp")
    }
    return {"dataset": "d", "protocol": "p", "draws": [{}], "mean": mean}


MAKE = {
    "quality.json": (quality, 4),
    "ablation.json": (ablation, 4),
    "cold_items.json": (cold_items, 3),
    "cold_users.json": (cold_users, 4),
    "diversity.json": (diversity, 4),
}


@pytest.mark.parametrize("file", MAKE)
def test_every_figure_of_a_file_is_on_the_page(tmp_path: Path, file: str) -> None:
    make, decimals = MAKE[file]
    number = Numbers()
    (tmp_path / file).write_text(json.dumps(make(number)))
    page = render(tmp_path)
    missing = [value for value in number.drawn if f"{value:.{decimals}f}" not in page]
    assert not missing
    assert len(number.drawn) >= 12


def test_missing_files_name_the_command_that_makes_them(tmp_path: Path) -> None:
    page = render(tmp_path)
    assert len(SECTIONS) == 5
    assert all(section.command in page for section in SECTIONS)
    assert "<figure>" not in page
    (tmp_path / "quality.json").write_text(json.dumps(quality(Numbers())))
    page = render(tmp_path)
    assert page.count("<figure>") == 4
    assert SECTIONS[0].command not in page


def test_commands_name_scripts_that_exist() -> None:
    root = Path(__file__).parents[2]
    scripts = [section.command.split()[1] for section in SECTIONS]
    assert all((root / script).is_file() for script in scripts)


def test_the_page_asks_nothing_of_the_network_and_escapes_names(tmp_path: Path) -> None:
    for file, (make, _) in MAKE.items():
        (tmp_path / file).write_text(json.dumps(make(Numbers())))
    page = render(tmp_path)
    assert not re.search(r"https?://|@import|<script|<link(?! rel=\"icon\" href=\"data:)", page)
    assert "without &lt;text&gt;" in page


def test_differences_have_a_zero_line_and_their_intervals() -> None:
    content = ablation(Numbers())
    chart = ablation_charts(content["stages"]["stage1"])[0]
    assert sum(line.style == "axis" for line in chart.lines) == 1
    assert sum(line.style.startswith("interval") for line in chart.lines) == 1
    (zero,) = (line for line in chart.lines if line.style == "axis")
    at_zero = float(zero.points.split(",")[0])
    assert chart.marks[0].x > at_zero


def test_popularity_far_below_leaves_the_scale_to_the_others() -> None:
    summary = quality(Numbers())["protocols"]["ua"]
    near = quality_charts(summary)[0]
    assert len(near.marks) == 5
    summary["systems"]["popularity"]["ndcg@10"]["mean"] = 0.01
    far = quality_charts(summary)[0]
    assert len(far.marks) == 4
    assert "Popularity" in far.caption
    assert all(106 <= mark.x <= 348 for mark in far.marks)


def test_ours_are_told_from_the_baselines_by_colour() -> None:
    chart = cold_item_charts(cold_items(Numbers()))[0]
    assert [bar.style for bar in chart.bars] == ["s-popularity"] + ["s-other"] * 2 + [
        "s-stage1"
    ] * 2


def test_nothing_is_drawn_outside_of_a_chart() -> None:
    charts = [
        *quality_charts(quality(Numbers())["protocols"]["ua"]),
        *ablation_charts(ablation(Numbers())["stages"]["stage1"]),
        *cold_item_charts(cold_items(Numbers())),
        *cold_user_charts(cold_users(Numbers())),
        trade_off_chart(diversity(Numbers())),
        coverage_chart(diversity(Numbers())),
    ]
    for chart in charts:
        for mark in chart.marks:
            assert 0 <= mark.x <= chart.width
            assert 0 <= mark.y <= chart.height
        for text in chart.texts:
            # Seven units a letter is more than these fonts take.
            width = 7.0 * len(text.text)
            start = text.x - width * {"start": 0, "middle": 0.5, "end": 1}[text.anchor]
            assert start >= -16, text
            assert start + width <= chart.width + 16, text
