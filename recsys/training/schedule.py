"""The learning-rate schedule of both stages."""

from collections.abc import Sequence

import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig

WARMUP_SHARE = 0.1
# Where the warm-up is exactly one step, OneCycleLR divides by zero.
_FEWEST_STEPS = 11


def one_cycle(
    optimizer: torch.optim.Optimizer, max_lr: float | Sequence[float], total_steps: int
) -> OptimizerLRSchedulerConfig:
    """One cycle (Smith 2018) over ``total_steps`` optimiser steps; shorter runs end within it.

    Args:
        max_lr: the peak, for all parameter groups or one each.
    """
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=max_lr if isinstance(max_lr, float) else list(max_lr),
        total_steps=max(total_steps, _FEWEST_STEPS),
        pct_start=WARMUP_SHARE,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
