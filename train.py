"""Train, evaluate and bundle the recommender: ``python train.py stage=1 | 2 | all``.

What a run does is in ``recsys/training/run.py``.
"""

import logging
import shlex
import sys
from contextlib import ExitStack
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from recsys import cli
from recsys.core.heartbeat import heartbeat
from recsys.core.phases import Phases
from recsys.training.composed_config import load_data
from recsys.training.interruption import HowToGoOn, interruptible
from recsys.training.resumed_arguments import resumed_arguments
from recsys.training.run import table_of, train

__all__ = ["load_data", "main"]


def main(cfg: DictConfig) -> dict[str, Any]:
    """Train as ``cfg`` says and print the table; returns the content of metrics.json."""
    arguments = list(HydraConfig.get().overrides.task)
    output_dir = next((one for one in arguments if one.startswith("output_dir=")), "")
    phases, log, interrupted = Phases(), logging.getLogger("recsys"), HowToGoOn()
    with ExitStack() as stack:
        stack.enter_context(interruptible(lambda: interrupted.line(output_dir)))
        if not sys.stderr.isatty():  # a terminal has progress bars
            stack.enter_context(heartbeat(log, status=phases.status))
        done = train(
            cfg,
            phases=phases,
            opened=interrupted.opened,
            arguments=arguments,
        )
    print_summary(done.metrics, str(done.bundle), str(done.report), str(cfg.output_dir))
    return done.metrics


def print_summary(metrics: dict[str, Any], bundle: str, report: str, root: str) -> None:
    from rich.console import Console

    from recsys.evaluation import results_table
    from recsys.results import best_line

    Console().print(results_table(metrics))
    # As they are: what is in brackets may be a part of a path.
    for label, value in (
        ("best", best_line(metrics)),
        ("table", table_of(metrics)),
        ("bundle", bundle),
        ("report", report),
        ("watch", f"tensorboard --logdir {shlex.quote(root)}"),
        ("serve", f"python serve.py {cli.as_override('bundle', bundle)}"),
    ):
        print(f"{label:>8}  {value}")


if __name__ == "__main__":
    cli.run(main, "train", conditions=["data.positive"], expand=resumed_arguments)
