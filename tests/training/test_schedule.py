"""The schedule: up for a tenth of the steps, then down, whatever their number."""

import pytest
import torch

from recsys.training.schedule import one_cycle


def rates(total_steps: int) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = one_cycle(optimizer, [0.5], total_steps)["lr_scheduler"]["scheduler"]
    seen = []
    for _ in range(total_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_the_peak_comes_after_a_tenth_of_the_steps() -> None:
    seen = rates(200)
    assert seen.index(max(seen)) == 19
    assert max(seen) == pytest.approx(0.5)
    assert seen[-1] < 0.001 * max(seen)


@pytest.mark.parametrize("total_steps", range(1, 31))
def test_runs_of_any_length_have_a_schedule(total_steps: int) -> None:
    seen = rates(total_steps)
    assert len(seen) == total_steps
    assert all(0 < rate <= 0.5 + 1e-9 for rate in seen)
