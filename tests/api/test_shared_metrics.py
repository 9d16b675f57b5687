"""Metrics that several processes keep in files and add up."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from recsys.api.shared_metrics import MetricFiles, Shared

ROOT = Path(__file__).parents[2]
PROCESS = """
import json, sys
from prometheus_client import Counter, Gauge, Histogram
from recsys.api.shared_metrics import share
path, version = json.loads(sys.argv[1])
share(path)
Gauge("model_info", "Models.", ["version"]).labels(version).set(1)
Gauge("depth", "A queue's.").set(2)
sizes = Histogram("size", "Sizes.", buckets=(1, 5))
for size in (1, 3, 9):
    sizes.observe(size)
requests = Counter("requests", "Requests.", ["route"])
for number in range(2000):  # more than a file has room for at first
    requests.labels(f"/route/{number}").inc()
"""


@pytest.fixture
def files() -> Iterator[MetricFiles]:
    with contextlib.closing(MetricFiles(2)) as files:
        yield files


def run(files: MetricFiles, slot: int, version: str) -> None:
    told = json.dumps([files.paths[slot], version])
    command = [sys.executable, "-c", PROCESS, told]
    subprocess.run(command, check=True, cwd=ROOT, pass_fds=files.descriptors)


def numbers(files: MetricFiles) -> dict[str, float]:
    registry = CollectorRegistry()
    Shared(registry, files.paths)
    lines = generate_latest(registry).decode().splitlines()
    rows = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in rows}


def test_nothing_has_been_counted_yet(files: MetricFiles) -> None:
    assert numbers(files) == {}


def test_counts_outlive_processes_and_gauges_do_not(files: MetricFiles) -> None:
    run(files, 0, "a")
    run(files, 1, "a")
    run(files, 0, "b")  # takes the place of the first

    found = numbers(files)
    assert (found["size_count"], found["size_sum"]) == (9, 39)
    buckets = [found[f'size_bucket{{le="{edge}"}}'] for edge in ("1.0", "5.0", "+Inf")]
    assert buckets == [3, 6, 9]
    assert found['requests_total{route="/route/1999"}'] == 3
    assert found["depth"] == 4

    files.forget(0)

    found = numbers(files)
    assert (found["size_count"], found["depth"]) == (9, 2)
    # Nor are models told of that nobody serves.
    assert [name for name in found if "model" in name] == ['model_info{version="a"}']


@pytest.mark.skipif(sys.platform != "linux", reason="files in memory")
def test_they_lie_in_no_folder(files: MetricFiles, tmp_path: Path) -> None:
    run(files, 0, "a")
    assert list(tmp_path.iterdir()) == []


def test_a_system_without_files_in_memory_has_them_in_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with contextlib.closing(MetricFiles(2)) as files:
        run(files, 1, "a")
        assert numbers(files)["size_count"] == 3
        (folder,) = tmp_path.iterdir()
        assert len(list(folder.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
