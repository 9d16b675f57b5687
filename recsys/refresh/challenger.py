"""A challenger is trained in a process of its own, which ends with the one that has started it.

``python -m recsys.refresh.challenger`` takes the overrides of ``train.py`` and trains until its
standard input, a pipe to the process that refreshes, is closed: whatever ends that one, ``kill -9``
included, no training goes on that nobody waits for.
"""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from recsys import cli
from recsys.bundle import list_bundles
from recsys.core.heartbeat import heartbeat
from recsys.core.phases import Phases
from recsys.errors import InputError
from recsys.overrides import quoted
from recsys.training.interruption import interruptible

log = logging.getLogger(__name__)

_SECONDS_PER_HOUR = 3600


def train_challenger(
    root: Path, prefix: str, overrides: Sequence[str], hours: float, descriptors: Sequence[int]
) -> Path:
    """A new bundle in ``root``, whose name begins with the prefix; ``latest`` stays where it is.

    Args:
        overrides: of configs/train.yaml, besides those that say this. hours: that it may take.
        descriptors: of files that the training has open, too, such as a lock that is to be held for
            as long as it goes on.

    Raises:
        InputError: when the training fails or takes too long.
    """
    before = set(list_bundles(root))
    own = [f"output_dir={quoted(str(root.absolute()))}", f"name={quoted(prefix)}", "promote=false"]
    command = [sys.executable, "-m", __name__, *own, *overrides]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=descriptors)
    try:
        status = process.wait(hours * _SECONDS_PER_HOUR)
    except subprocess.TimeoutExpired as error:
        found = f"one that went on after {hours:g} hours"
        remedy = "see above, or give it more time by --hours; the champion stays"
        raise InputError("a training of the challenger", found, remedy) from error
    finally:
        process.terminate()  # nothing happens to one that has ended
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    if status:
        found = f"one that ended with status {status}"
        raise InputError("a training of the challenger", found, "see above; the champion stays")
    made = [
        one for one in list_bundles(root) if one not in before and one.name.startswith(f"{prefix}-")
    ]
    if len(made) != 1:
        raise InputError("one new bundle", f"{len(made)} in {root}", "run refresh again")
    return made[0]


def main(cfg: DictConfig) -> None:
    """Train as ``cfg`` says, until standard input is closed."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    # Imported here, since they load PyTorch.
    from recsys.results import best_line
    from recsys.training.run import train

    phases = Phases()
    # Its tables are removed with the turn: nobody could go on with what an interruption leaves.
    with (
        interruptible(lambda: "interrupted"),
        heartbeat(logging.getLogger("recsys"), status=phases.status),
    ):
        done = train(cfg, phases=phases)
    log.info(
        "challenger %s: best %s; report: %s", done.bundle, best_line(done.metrics), done.report
    )


def _end_with_input() -> None:
    while os.read(0, 1 << 16):
        pass
    os._exit(1)


if __name__ == "__main__":
    cli.run(main, "train", conditions=["data.positive"])
