"""The soak benchmark: figures by hand, and a real server for a few seconds."""

import argparse
import shutil
from pathlib import Path

import pytest

from benchmarks import soak


def test_memory_strays_by_its_largest_distance_from_the_mean() -> None:
    found = soak.summary(7, [1024 * mib for mib in (90, 100, 100, 110, 100)])
    assert (found["lowest_mib"], found["mean_mib"], found["highest_mib"]) == (90, 100, 110)
    assert found["strays"] == pytest.approx(0.1)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_each_process_of_a_server_is_watched(untrained_bundle: Path) -> None:
    arguments = argparse.Namespace(
        bundle=untrained_bundle, minutes=0.05, warm_up=1, overrides=["workers=2"]
    )
    content = soak.measure(arguments)
    assert content["requests"] > 0
    assert content["bad"] == 0
    assert 0 < content["seconds_to_ready"] < 60
    assert len(content["processes"]) >= 3  # a supervisor and two workers
    assert all(one["lowest_mib"] > 10 for one in content["processes"])
