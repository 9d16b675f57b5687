"""Metrics of several processes, added up through memory that all of them map."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Metric, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_GAUGE = "gauge"


class MetricFiles:
    """A file for each of several processes; it lasts as long as this object.

    Each belongs to a place rather than to a process: one that takes the place of another goes on
    with its counts, and however many have died, there are no more files.

    descriptors: to be passed on to the processes. paths: of the files, as each process opens them.

    They lie in memory, where nobody can delete them and no disk is too full, or on systems without
    such files in a temporary folder.
    """

    def __init__(self, number: int) -> None:
        self.descriptors: list[int] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if hasattr(os, "memfd_create"):
            for _ in range(number):
                self.descriptors.append(os.memfd_create("recsys-metrics"))
            self.paths = [f"/proc/self/fd/{descriptor}" for descriptor in self.descriptors]
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="recsys-", ignore_cleanup_errors=True)
            folder = Path(self._folder.name)
            self.paths = [str(folder / f"{slot}.metrics") for slot in range(number)]

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        if self._folder is not None:
            self._folder.cleanup()

    def forget(self, slot: int) -> None:
        """Leave a process that has died out of what only the living have, such as queues."""
        with contextlib.closing(MmapedDict(self.paths[slot])) as file:  # type: ignore[no-untyped-call]
            for key, _, _ in file.read_all_values():  # type: ignore[no-untyped-call]
                if json.loads(key)[0] == _GAUGE:
                    file.write_value(key, 0.0, 0.0)  # type: ignore[no-untyped-call]


def share(path: str) -> None:
    """Keep the values of metrics that this process makes from now on in this file."""
    file, lock = MmapedDict(path), Lock()  # type: ignore[no-untyped-call]

    class SharedValue(_Value):
        def __init__(self, *told: Any, **_: Any) -> None:
            super().__init__(file, lock, *told)

    values.ValueClass = SharedValue


class _Value:
    """What prometheus_client keeps a number in: here a place in a file.

    Args:
        lock: of all values in the file. kind: of the metric. metric, name: of the metric and of
            this number of it. label_names, label_values: its labels. text: the metric's help.
    """

    def __init__(
        self,
        file: MmapedDict,
        lock: Lock,
        kind: str,
        metric: str,
        name: str,
        label_names: Sequence[str],
        label_values: Sequence[str],
        text: str,
    ) -> None:
        labels = dict(sorted(zip(label_names, label_values, strict=True)))
        self._key = json.dumps([kind, metric, name, labels, text])
        self._file, self._lock = file, lock
        with lock:
            self._value: float = file.read_value(self._key)[0]  # type: ignore[no-untyped-call]

    def inc(self, amount: float) -> None:
        with self._lock:
            self._put(self._value + amount)

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002
        with self._lock:
            self._put(value)

    def get(self) -> float:
        return self._value

    def get_exemplar(self) -> None:
        """There are none."""

    def _put(self, value: float) -> None:
        self._value = value
        self._file.write_value(self._key, value, 0.0)  # type: ignore[no-untyped-call]


class Shared(Collector):
    """What all processes have written to their files, added up."""

    def __init__(self, registry: CollectorRegistry, paths: Sequence[str]) -> None:
        self.paths = paths
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Without models that nobody serves: a label cannot be taken out of a file."""
        metrics: dict[str, Metric] = {}
        for path in self.paths:
            for key, value in _numbers(path):
                kind, name, number, labels, text = json.loads(key)
                if name not in metrics:
                    metrics[name] = Metric(name, text, kind)
                    metrics[name]._multiprocess_mode = "sum"  # type: ignore[attr-defined]
                metrics[name].add_sample(number, tuple(sorted(labels.items())), value)  # type: ignore[arg-type]
        for metric in MultiProcessCollector._accumulate_metrics(metrics, True):  # type: ignore[no-untyped-call]
            if metric.name.endswith("_info"):
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric


def _numbers(path: str) -> Iterator[tuple[str, float]]:
    """Keys and values of a file, which is empty until its process writes to it."""
    if Path(path).exists() and Path(path).stat().st_size > 0:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
            yield key, value
