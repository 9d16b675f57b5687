import logging

import pytest

from recsys.core.phases import Phases

LOGGER = logging.getLogger("recsys.tests.phases")


class Clock:
    """Seconds as a test sets them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def phases(clock: Clock, caplog: pytest.LogCaptureFixture) -> Phases:
    caplog.set_level(logging.INFO, LOGGER.name)
    phases = Phases(LOGGER, clock)
    phases.plan(["Data", "Fits", "Folds", "Report"])
    return phases


def test_the_plan_is_told_first_and_each_phase_by_its_number(
    phases: Phases, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    phases.plan(["Data", "Fits", "Folds", "Report"])
    phases.start("Data")
    clock.now += 7.0
    phases.end()
    phases.expect({"Fits": 60.0, "Folds": 600.0, "Report": 5.0})
    phases.start("Fits")
    assert caplog.messages == [
        "4 phases: data, fits, folds, report",
        "[1/4] Data · 0:00 elapsed",
        "the rest takes about 11:00, by the size of the data",
        "[2/4] Fits · 0:07 elapsed, about 11:00 left",
    ]


def test_what_is_left_follows_what_has_been_measured(phases: Phases, clock: Clock) -> None:
    phases.expect({"Fits": 98.0, "Folds": 600.0, "Report": 10.0})
    phases.start("Fits")
    clock.now += 50.0
    assert phases.left() == pytest.approx(48.0 + 610.0)
    clock.now += 248.0
    phases.start("Folds")  # Fits took 298 s where 98 s were expected; 2 s count besides.
    assert phases.left() == pytest.approx(3.0 * 610.0)
    clock.now += 100.0
    assert phases.left() == pytest.approx(3.0 * 610.0 - 100.0)
    phases.part(1, 8)  # one in 100 s, so that seven take 700 s
    assert phases.left() == pytest.approx(700.0 + 3.0 * 10.0)


def test_a_phase_that_takes_longer_than_expected_leaves_the_others(
    phases: Phases, clock: Clock
) -> None:
    phases.expect({"Fits": 10.0, "Folds": 20.0})
    phases.start("Fits")
    clock.now += 1000.0
    assert phases.left() == 20.0


def test_what_may_be_cached_tells_nothing_of_the_others(phases: Phases, clock: Clock) -> None:
    phases.expect({"Fits": 98.0, "Folds": 600.0}, apart=["Fits"])
    phases.start("Fits")
    phases.start("Folds")
    assert phases.left() == 600.0


def test_an_earlier_phase_finds_that_later_ones_are_longer(phases: Phases) -> None:
    phases.expect({"Fits": 10.0, "Folds": 20.0, "Report": 5.0})
    phases.scale(["Folds", "unplanned"], 2.0)
    assert phases.left() == 55.0


def test_phases_that_are_left_out_are_not_waited_for(phases: Phases, clock: Clock) -> None:
    phases.expect({"Fits": 10.0, "Folds": 20.0, "Report": 5.0})
    phases.start("Report")
    assert phases.left() == 5.0
    clock.now += 5.0
    phases.end()
    assert phases.left() == 0.0


def test_parts_are_told_from_time_to_time(
    phases: Phases, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    phases.start("Folds")
    phases.expect({"Report": 10.0})
    caplog.clear()
    for done in range(1, 5):
        clock.now += 6.0
        phases.part(done, 4)
    assert caplog.messages == ["[3/4] Folds, 2 of 4 · 0:12 elapsed, about 0:20 left"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "0:05"),
        (12.0, "0:10"),
        (58.0, "1:00"),
        (131.0, "2:10"),
        (3500.0, "58:00"),
        (7290.0, "2:02:00"),
    ],
)
def test_an_estimate_is_told_no_more_precisely_than_it_is(
    seconds: float, told: str, phases: Phases
) -> None:
    phases.expect({"Folds": seconds})
    assert phases.status() == f"0:00 elapsed, about {told} left"


def test_nothing_is_told_where_nothing_is_planned(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)
    phases = Phases(LOGGER)
    phases.start("Folds")
    phases.part(1, 8)
    phases.end()
    assert phases.left() is None
    assert not caplog.messages
