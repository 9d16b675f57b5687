"""What training changes of its process is as before afterwards."""

import logging
import os
import random
import signal
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from recsys.core.threads import use_threads
from recsys.guest import as_guest

log = logging.getLogger("recsys.somewhere")


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A program that has neither seeded nor set up logging, whatever other tests have done."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    loggers = logging.getLogger("recsys"), logging.getLogger()
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, (logging.NOTSET, logging.WARNING), strict=True):
        logger.setLevel(level)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_seeds_threads_variables_and_handlers_are_given_back(monkeypatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    torch.set_num_threads(2)
    handlers = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    expected = []
    for seeds in (False, True):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
        with as_guest(progress=False):
            if seeds:
                pl.seed_everything(5, verbose=False)
                use_threads(1)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
        expected.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert expected[0] == expected[1]
    assert torch.get_num_threads() == 2
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert not {"GOMP_SPINCOUNT", "PL_GLOBAL_SEED"} & set(os.environ)


def end_as_lightning_does() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(1)


def test_an_interruption_is_one_and_does_not_end_the_program() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), as_guest(progress=False):
        end_as_lightning_does()
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(SystemExit), as_guest(progress=False):
        raise SystemExit(3)


def test_progress_is_shown_and_warnings_go_where_they_always_go(capsys, caplog) -> None:
    package = logging.getLogger("recsys")
    before = package.level, package.propagate, package.handlers[:]
    with as_guest(progress=True):
        log.info("step %d", 1)
        log.warning("odd")
    log.info("step 2")
    assert capsys.readouterr().err == "step 1\n"
    assert [record.getMessage() for record in caplog.records] == ["odd"]
    assert (package.level, package.propagate, package.handlers) == before


def test_a_host_that_shows_progress_itself_is_left_to_it(capsys, caplog) -> None:
    with caplog.at_level(logging.INFO, "recsys"), as_guest(progress=True):
        log.info("step 1")
    assert capsys.readouterr().err == ""
    assert caplog.messages == ["step 1"]
