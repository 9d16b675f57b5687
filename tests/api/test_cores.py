"""How many workers there are by default."""

import os
import sys
from pathlib import Path

import pytest

from recsys.api import cores
from recsys.api.cores import MAX_WORKERS, available_cores, default_workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one")


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(cores, "_GPU_NODES", ())


def test_each_core_gets_a_worker_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_workers("cpu", None) == MAX_WORKERS
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert default_workers("cpu", None) == 2
    assert default_workers("auto", None) == 2


def test_where_several_would_not_do_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert default_workers("cuda", None) == 1
    assert default_workers("cpu", "20/second") == 1
    monkeypatch.setattr(cores, "_GPU_NODES", (str(tmp_path),))
    assert default_workers("auto", None) == 1
    assert default_workers("cpu", None) == MAX_WORKERS
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_workers("cpu", None) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [("max 100000", 64), ("150000 100000", 1), ("50000 100000", 0), ("400000 100000", 4), ("", 64)],
)
def test_a_containers_quota_counts(content: str, expected: int, tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(content)
    assert available_cores(quota) == expected
    assert available_cores(tmp_path / "none") == 64
