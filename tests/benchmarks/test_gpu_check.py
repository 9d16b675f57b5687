"""The check of a GPU, with PyTorch on the CPU in the GPU's place."""

import sys

import numpy as np
import pytest
import torch

from benchmarks import gpu_check
from recsys.schema import RankedList

TINY = (
    *("data=synthetic", "data.num_users=60", "data.num_items=80", "data.num_interactions=2000"),
    *("experiment=quick", "retrieval.epochs=2", "retrieval.validate_every=2"),
)


def ranked(items: list[int], scores: list[float]) -> RankedList:
    return RankedList(1, items, np.array(scores, np.float32), "reranked")


def test_differences_are_those_of_one_items_scores() -> None:
    one, other = ranked([5, 6, 7], [3.0, 2.0, 1.0]), ranked([6, 5, 8], [2.5, 2.75, 9.0])
    assert gpu_check.largest_difference(one, other) == 0.5
    assert gpu_check.largest_difference(one, ranked([9], [1.0])) == 0


@pytest.mark.parametrize(
    ("same", "difference", "served", "within"),
    [(0.98, 1e-3, 1.0, True), (0.97, 0.0, 1.0, False), (1.0, 2e-3, 1.0, False), (1, 0, 0.9, False)],
)
def test_lists_must_be_within_the_tolerances(
    same: float, difference: float, served: float, within: bool
) -> None:
    lists = {"stage 1": {"same": same, "difference": difference}}
    assert gpu_check.is_within({"lists": lists, "served_alike": served}) == within


def test_no_card_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    gpu_check.main()
    assert capsys.readouterr().out == "no GPU that PyTorch can use: nothing checked\n"


@pytest.mark.slow
def test_a_device_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "NUM_SERVED", 5)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu", *TINY])
    gpu_check.main()
    page = capsys.readouterr().out
    for text in ("stage 1: same items", "stage 2: training step", "serve.py", "64 lists"):
        assert text in page
