"""How many workers there are by default."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest

from recsys.api import cores
from recsys.api.cores import MAX_WORKERS, default_workers
from recsys.core.cores import available_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one")


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(cores, "_GPU_NODES", ())
    monkeypatch.setattr(
        cores, "available_cores", partial(available_cores, Path("none"), Path("none"))
    )


def test_each_core_gets_a_worker_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_workers("cpu", None) == MAX_WORKERS
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert default_workers("cpu", None) == 2
    assert default_workers("auto", None) == 2


def test_where_several_would_not_do_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert default_workers("cuda", None) == 1
    assert default_workers("cpu", "20/second") == 1
    monkeypatch.setattr(cores, "_GPU_NODES", (str(tmp_path),))
    assert default_workers("auto", None) == 1
    assert default_workers("cpu", None) == MAX_WORKERS
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_workers("cpu", None) == 1
