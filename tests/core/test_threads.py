"""How many threads compute, and that those that wait do not spin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.core import threads
from recsys.core.threads import MAX_THREADS, SMALL_CATALOG, chosen_threads
from recsys.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 64)


@pytest.mark.parametrize(
    ("wanted", "num_items", "said", "expected"),
    [
        (None, SMALL_CATALOG, "", 1),
        (None, SMALL_CATALOG + 1, "", MAX_THREADS),
        (None, SMALL_CATALOG + 1, "3", 3),
        (None, None, "", MAX_THREADS),
        (None, 10, "6,2", 6),
        (None, 10, "many", 1),
        (None, 10, "0", 1),
        (8, 10, "", 8),
        (8, 10, "2", 8),
    ],
)
def test_the_option_then_the_variable_then_the_catalogue_decides(
    wanted: int | None, num_items: int, said: str, expected: int
) -> None:
    assert chosen_threads(wanted, num_items, said) == expected


@pytest.mark.parametrize("wanted", [0, -1, 1.5, "two", True, 10**9])
def test_other_numbers_are_refused(wanted: object) -> None:
    with pytest.raises(InputError, match=r"threads in 1\.\.4096"):
        chosen_threads(wanted, 10, "")


PROGRAM = """
import sys
from recsys import cli

def main(config):
    import os, torch, faiss, scipy.linalg
    from threadpoolctl import threadpool_info
    from recsys.core.threads import chosen_threads, use_threads
    use_threads(chosen_threads(config.threads, 100))
    pools = {pool["num_threads"] for pool in threadpool_info()}
    print(torch.get_num_threads(), faiss.omp_get_max_threads(), sorted(pools))
    print(os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"])

cli.run(main, "train")
"""


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        ([], {}, "1 1 [1]\nPASSIVE 0\n"),
        (["threads=2"], {}, "2 2 [2]\nPASSIVE 0\n"),
        ([], {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "ACTIVE"}, "2 2 [2]\nACTIVE 0\n"),
    ],
)
def test_every_library_keeps_to_it_and_sleeps_while_it_waits(
    arguments: list[str], variables: dict[str, str], expected: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "GOMP"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr
