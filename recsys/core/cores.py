"""The processor cores that this process may keep busy."""

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def available_cores(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int:
    """Whole cores, at least one: of the process's affinity, and of its container's CPU quota.

    Args:
        cgroups: where control groups are mounted. own: the file that names those of this process.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS, Windows
        cores = os.cpu_count() or 1
    quotas = [int(quota) for quota in _quotas(cgroups, own)]
    return max(1, min([cores, *quotas]))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """In cores: of each control group that this process is in, and of those around it."""
    for folder in _folders(cgroups, own):
        try:
            if (folder / "cpu.max").exists():  # version 2
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            if int(quota) > 0 and int(period) > 0:  # version 1 says -1 for none
                yield int(quota) / int(period)
        except (OSError, ValueError):  # none here, or "max"
            continue


def _folders(cgroups: Path, own: Path) -> Iterator[Path]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    # Inside a container the group's own folder is the mount itself.
    found = [(cgroups, ""), (cgroups / "cpu", ""), (cgroups / "cpu,cpuacct", "")]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found.append((cgroups, path))
        elif "cpu" in controllers.split(","):
            found += [(cgroups / controllers, path), (cgroups / "cpu", path)]
    for mount, path in found:
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            yield mount.joinpath(*parts[:depth])
