"""A bundle that all workers load, or none: refused, found twice, or not survived."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from recsys.api.joint_reload import load_in_all
from recsys.api.worker_process import EndedError, WorkerProcess
from recsys.errors import InputError

FOLDER = Path("/bundles/a")


class Stub:
    """A worker that does with a bundle as it is told. is_stuck: ended before it answers at all."""

    def __init__(self, version: str | Exception = "v1", *, is_stuck: bool = False) -> None:
        self.version, self.is_stuck = version, is_stuck
        self.asked: list[str] = []

    async def ask(self, do: str, **content: Any) -> dict[str, Any]:
        self.asked.append(do)
        if self.is_stuck:
            await asyncio.sleep(0.2)  # until the supervisor ends it
            raise EndedError
        await asyncio.sleep(0)
        if do == "load" and isinstance(self.version, Exception):
            raise self.version
        return {"version": self.version}


def load(*stubs: Stub) -> str:
    return asyncio.run(load_in_all(cast("list[WorkerProcess]", stubs), FOLDER))


def test_all_load_it() -> None:
    stubs = Stub(), Stub(), Stub()
    assert load(*stubs) == "v1"
    assert [one.asked for one in stubs] == [["drop", "load"]] * 3


@pytest.mark.parametrize("failure", [InputError("a", "b", "c"), EndedError("one that ended")])
def test_one_that_is_refused_or_not_survived_is_tried_by_one_alone(failure: Exception) -> None:
    stubs = Stub(failure), Stub(failure), Stub(failure)
    with pytest.raises(InputError):
        load(*stubs)
    assert [one.asked.count("load") for one in stubs] == [1, 0, 0]
    assert all(one.asked[-1] == "drop" for one in stubs)


def test_a_stuck_worker_tries_nothing_and_is_left_out() -> None:
    stubs = Stub(is_stuck=True), Stub(), Stub()
    assert load(*stubs) == "v1"
    assert [one.asked.count("load") for one in stubs] == [0, 1, 1]


def test_one_that_ends_after_the_first_has_loaded_is_left_out() -> None:
    assert load(Stub(), Stub(EndedError("one that ended"))) == "v1"


def test_two_versions_or_a_late_refusal_are_dropped_by_all() -> None:
    for other in ("v2", InputError("a", "b", "c")):
        stubs = Stub(), Stub(other)
        with pytest.raises(InputError):
            load(*stubs)
        assert all(one.asked[-1] == "drop" for one in stubs)


def test_without_workers_nothing_is_loaded() -> None:
    for stubs in ((), (Stub(is_stuck=True),)):
        with pytest.raises(InputError, match="others are being started"):
            load(*stubs)
