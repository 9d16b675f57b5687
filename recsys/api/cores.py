"""How many processes are to answer where nobody says so."""

import sys
from pathlib import Path

from recsys.core.cores import available_cores

MAX_WORKERS = 4
"""More take memory, of which nobody may have asked for so much."""

_GPU_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


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
    return min(available_cores(), MAX_WORKERS)
