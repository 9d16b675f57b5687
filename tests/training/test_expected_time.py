"""The estimate that a run starts with: right to a factor of 2 where it has been measured."""

from dataclasses import replace

import pytest

from recsys.training.expected_time import FOLDS, SEARCH, STAGE2, TEXT, Work, planned

MOVIELENS = Work(
    users=943,
    items=1682,
    events=90_570,
    test_users=943,
    characters=78_502,
    epochs=60,
    trials=12,
    folds=8,
    list_epochs=5,
    list_length=96,
    tuned=False,
    processes=1,
)
SAMPLE = replace(MOVIELENS, users=300, items=400, events=12_050, test_users=300, characters=53_107)


@pytest.mark.parametrize(("work", "measured"), [(SAMPLE, 32.4), (MOVIELENS, 173.6)])
def test_the_whole_run_takes_about_as_long_as_was_measured(work: Work, measured: float) -> None:
    names = planned((1, 2), has_text=True, has_baselines=True, refits=False)
    expected = sum(work.seconds().get(name, 0.0) for name in names)
    assert measured / 2 < expected < measured * 2


def test_folds_side_by_side_take_less_time() -> None:
    two = replace(MOVIELENS, processes=2).seconds()
    assert two[FOLDS] == pytest.approx(MOVIELENS.seconds()[FOLDS] / 2)
    assert two[STAGE2] == MOVIELENS.seconds()[STAGE2]


def test_what_is_there_already_takes_no_time() -> None:
    seconds = MOVIELENS.seconds(has_stage1=True)
    assert seconds[TEXT] == seconds[SEARCH] == 0.0
    assert seconds[FOLDS] == MOVIELENS.seconds()[FOLDS]


def test_the_phases_are_those_that_the_options_ask_for() -> None:
    assert planned((1,), has_text=False, has_baselines=False, refits=False) == [
        *("Data", "Search of stage 1", "Stage 1", "Evaluation", "Report"),
    ]
    assert planned((2,), has_text=True, has_baselines=True, refits=True) == [
        *("Data", "Folds of stage 1", "Stage 2", "Evaluation", "Baselines"),
        *("Refit on all rows", "Report"),
    ]
