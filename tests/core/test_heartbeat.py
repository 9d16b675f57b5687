import logging
import time

import pytest

from recsys.core.heartbeat import heartbeat

LOGGER = logging.getLogger("recsys.tests.heartbeat")


def test_a_silent_step_is_repeated_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name), heartbeat(LOGGER, 0.1):
        LOGGER.info("fold 3 of 8")
        time.sleep(0.5)
        LOGGER.info("fold 4 of 8")
    beats = [line for line in caplog.messages if line.startswith("... still at:")]
    assert beats
    assert all(line.startswith("... still at: fold 3 of 8 (0 s; ") for line in beats)
    assert caplog.messages[-1] == "fold 4 of 8"
    assert not LOGGER.handlers


def test_who_speaks_is_not_interrupted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name), heartbeat(LOGGER, 60.0):
        for number in range(5):
            LOGGER.info("step %d", number)
    assert caplog.messages == [f"step {number}" for number in range(5)]
