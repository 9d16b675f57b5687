"""The cores that a process may keep busy: affinity, and the quotas of control groups."""

import os
import sys
from pathlib import Path

import pytest

from recsys.core.cores import available_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no control groups")


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


def write(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("cpu_max", "cpu.max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        *(("max 100000", 64), ("150000 100000", 1), ("50000 100000", 1), ("400000 100000", 4)),
        *(("", 64), ("6400000 100000", 64), ("0 0", 64)),
    ],
)
def test_a_containers_quota_counts(content: str, expected: int, tmp_path: Path) -> None:
    assert available_cores(write(tmp_path, cpu_max=content), tmp_path / "none") == expected


def test_the_tightest_of_the_groups_around_a_process_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    write(tmp_path, outer__cpu_max="300000 100000", outer__inner__cpu_max="max 100000")
    assert available_cores(tmp_path, own) == 3
    write(tmp_path, outer__inner__cpu_max="200000 100000")
    assert available_cores(tmp_path, own) == 2


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "expected"), [("250000", 2), ("-1", 64)])
def test_version_1_counts_too(mount: str, quota: str, expected: int, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text(f"5:{mount}:/docker/abc\n3:memory:/other\n")
    folder = tmp_path / mount / "docker" / "abc"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path, own) == expected


def test_without_control_groups_affinity_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert available_cores(tmp_path / "none", tmp_path / "none") == 64
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert available_cores(tmp_path / "none", tmp_path / "none") == 2
