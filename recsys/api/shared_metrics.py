"""Metrics of several processes, added up through files that each of them maps into memory."""

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead


def share(folder: Path, slot: int) -> None:
    """Keep the values of metrics that this process makes from now on in files in ``folder``.

    Args:
        slot: the process's place among its siblings. Files are named by it rather than by process
            id: one that takes the place of another goes on with its counts, and however many have
            died, there are no more files.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def forget(folder: Path, slot: int) -> None:
    """Leave a process that has died out of what only the living have, such as queues."""
    mark_process_dead(slot, str(folder))  # type: ignore[no-untyped-call]


class Shared(MultiProcessCollector):
    """What all processes have written to ``folder``, added up."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        super().__init__(registry, str(folder))  # type: ignore[no-untyped-call]
        self.folder = folder

    def collect(self) -> Iterator[Metric]:
        """Without files that a process is about to make, and without models that nobody serves.

        prometheus_client cannot take a label out of a file, hence the zeros.
        """
        files = [str(file) for file in self.folder.glob("*.db") if _has_content(file)]
        for metric in self.merge(files):  # type: ignore[no-untyped-call]
            if metric.name.endswith("_info"):
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # gauges of a process that has just died
        return False
