"""How many processes are to answer where nobody says so."""

import os
import sys
from pathlib import Path

MAX_WORKERS = 4
"""More take memory, of which nobody may have asked for so much."""

_GPU_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def default_workers(device: str, rate_limit: str | None) -> int:
    """One for each core, up to ``MAX_WORKERS``; just one where several would not do as well.

    That is so where there may be a GPU, which makes the lists of one process faster than those of
    several that share it; with a rate limit, which each process counts by itself; and on systems
    other than Linux, whose kernels do not deal connections out.

    Args:
        device: as in configs/serve.yaml.
    """
    if sys.platform != "linux" or rate_limit is not None or device == "cuda":
        return 1
    # Asking PyTorch would load it into a supervisor that has no other use for it.
    if device == "auto" and any(Path(node).exists() for node in _GPU_NODES):
        return 1
    return max(1, min(available_cores(), MAX_WORKERS))


def available_cores(cpu_quota: Path = _CPU_QUOTA) -> int:
    """Whole cores that this process may keep busy: of its affinity, and of its container's quota.

    Args:
        cpu_quota: the ``cpu.max`` of control groups (version 2).
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_quota.read_text().split()
        return min(cores, int(quota) // int(period))
    except (OSError, ValueError):  # another version, or the quota "max"
        return cores
