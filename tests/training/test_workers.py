"""Calls side by side: results in order, errors and interruptions as of calls one by one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from recsys.errors import InputError
from recsys.training import workers
from recsys.training.workers import Workers, chosen_processes

ROOT = Path(__file__).parents[2]


def square_after(seconds: float, number: int) -> tuple[int, int, int]:
    time.sleep(seconds)
    return number * number, os.getpid(), torch.get_num_threads()


def fail(error: Exception) -> None:
    raise error


class OddError(Exception):
    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    with Workers(2, threads=1) as pair:
        yield pair


def test_results_are_in_the_order_of_the_calls_and_come_from_two_processes(two) -> None:
    calls = [partial(square_after, 0.2 * (number == 0), number) for number in range(5)]
    found = two.results(calls)
    assert [result for result, _, _ in found] == [0, 1, 4, 9, 16]
    processes = {process for _, process, _ in found}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert {threads for _, _, threads in found} == {1}


def test_one_worker_is_this_process() -> None:
    with Workers() as one:
        one.start()
        found = one.results([partial(square_after, 0.0, number) for number in range(3)])
    assert [(result, process) for result, process, _ in found] == [
        (number * number, os.getpid()) for number in range(3)
    ]


def test_no_call_is_taken_before_a_process_is_free(two) -> None:
    taken = []

    def calls() -> Iterator[partial[None]]:
        for number in range(6):
            taken.append(number)
            yield partial(fail, ValueError("the first"))

    with pytest.raises(ValueError, match="the first"):
        two.results(calls())
    assert taken == [0, 1]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (InputError("this", "that", "mend it"), InputError, "expected this; found that; mend it"),
        (KeyError("absent"), KeyError, "absent"),
    ],
)
def test_an_error_is_that_of_the_call_with_its_own_traceback(two, error, kind, message) -> None:
    with pytest.raises(kind, match=message) as raised:
        two.results([partial(fail, error)])
    assert "in fail" in "".join(raised.value.__notes__)


def fail_oddly() -> None:
    raise OddError(1, 2)


def test_an_error_that_cannot_be_sent_is_told(two) -> None:
    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        two.results([fail_oddly])


def test_a_process_that_ends_is_told_and_others_take_its_place(two) -> None:
    with pytest.raises(InputError, match=r"exit code 7; .*processes=1"):
        two.results([partial(os._exit, 7), partial(time.sleep, 60)])
    found = two.results([partial(square_after, 0.0, 3)])
    assert found[0][0] == 9


PROGRAM = """
import signal
import time
from functools import partial
from recsys.training.workers import Workers
if __name__ == "__main__":
    # Who runs the tests in the background may have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Workers(2) as workers:
        workers.results([partial(time.sleep, 0)] * 2)
        print(*(process.pid for process in workers._processes.values()), flush=True)
        workers.results([partial(time.sleep, 120)] * 2)
"""


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_a_run_ends_its_processes(tmp_path, signal_number) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    run = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with run:
        processes = [int(number) for number in run.stdout.readline().split()]
        assert len(processes) == 2
        run.send_signal(signal_number)
        assert run.wait(timeout=60) != 0
    deadline = time.monotonic() + 60
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, processes))


def is_running(process: int) -> bool:
    """Not where it has ended, though nobody has asked for its exit code."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True
    )
    return found.stdout.strip() not in ("", "Z", "Z+")


@pytest.mark.parametrize(
    ("wanted", "threads", "most", "on_cpu", "expected"),
    [
        (None, 1, 8, True, 4),
        (None, 2, 8, True, 2),
        (None, 8, 8, True, 1),
        (None, 1, 2, True, 2),
        (None, 1, 8, False, 1),
        (3, 1, 8, False, 3),
        (30, 4, 8, True, 8),
    ],
)
def test_the_option_then_cores_decide(monkeypatch, wanted, threads, most, on_cpu, expected) -> None:
    monkeypatch.setattr(workers, "available_cores", lambda: 4)
    assert chosen_processes(wanted, threads, most, on_cpu) == expected


@pytest.mark.parametrize("wanted", [0, -1, True, 1.5, "two"])
def test_other_numbers_of_processes_are_refused(wanted) -> None:
    with pytest.raises(InputError, match="processes in"):
        chosen_processes(wanted, 1, 8, on_cpu=True)
