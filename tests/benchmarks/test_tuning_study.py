"""Studies: what runs first, what goes on, what is cut short."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from benchmarks.tuning.progress import REPORTS_PER_DRAW
from benchmarks.tuning.report import markdown, summary
from benchmarks.tuning.study import (
    best_trials,
    default_trial,
    finished,
    importances,
    open_study,
    run_study,
)
from recsys.errors import InputError

SPACE = {"a.x": FloatDistribution(0.0, 1.0), "a.y": FloatDistribution(0.0, 1.0)}
DEFAULT = {"a.x": 0.9, "a.y": 0.9}
SETTING = {"target": "peak", "draws": 1}


def peak(params, progress) -> float:
    """Best at (0.3, 0.5); the default is poor."""
    return 1.0 - (params["a.x"] - 0.3) ** 2 - 0.01 * (params["a.y"] - 0.5) ** 2


def run(study, num_trials, evaluate=peak, num_draws=1):
    options = {"num_trials": num_trials, "num_draws": num_draws, "seed": 0}
    return list(run_study(study, SPACE, DEFAULT, evaluate, **options))


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_the_first_trial_is_the_default(tmp_path):
    study = open_study(tmp_path / "s.db", SETTING, 0)
    first, *others = run(study, 3)
    assert first.params == DEFAULT
    assert default_trial(study).number == 0
    assert all(trial.params != DEFAULT for trial in others)


def test_a_study_goes_on_up_to_the_number_of_trials_and_no_further(tmp_path):
    path = tmp_path / "s.db"
    assert len(run(open_study(path, SETTING, 0), 3)) == 3
    assert run(open_study(path, SETTING, 0), 3) == []
    assert [trial.number for trial in run(open_study(path, SETTING, 0), 5)] == [3, 4]


def test_an_interrupted_study_ends_as_an_uninterrupted_one(tmp_path):
    whole = open_study(tmp_path / "whole.db", SETTING, 0)
    run(whole, 14)
    run(open_study(tmp_path / "parts.db", SETTING, 0), 5)
    parts = open_study(tmp_path / "parts.db", SETTING, 0)
    run(parts, 14)
    assert [t.params for t in whole.trials] == [t.params for t in parts.trials]
    assert best_trials(whole)[0].value > 0.99


def test_a_trial_that_fails_is_run_again_and_the_default_too(tmp_path):
    def fails(params, progress):
        raise RuntimeError("out of memory")

    path = tmp_path / "s.db"
    with pytest.raises(RuntimeError, match="out of memory"):
        run(open_study(path, SETTING, 0), 2, fails)
    cut_off = open_study(path, SETTING, 0)
    cut_off.ask(SPACE)  # and never told, as when the process is killed
    study = open_study(path, SETTING, 0)
    assert len(run(study, 2)) == 2
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert default_trial(study).params == DEFAULT


def test_trials_that_fall_behind_are_pruned_but_never_the_default(tmp_path):
    reached = []

    def slow(params, progress) -> float:
        # The default is the worst of all; so is every trial from the eighth on.
        value = -1.0 if progress.trial.number in (0, 8, 9) else 1.0
        for step in range(1, 5):
            progress.report(value, step)
            reached.append((progress.trial.number, step))
        return value

    study = open_study(tmp_path / "s.db", SETTING, 2)
    run(study, 10, slow)
    assert [t.number for t in study.trials if t.state == TrialState.PRUNED] == [8, 9]
    assert (0, 4) in reached
    assert (8, 1) in reached  # the warm-up
    assert (8, 2) not in reached
    assert len(finished(study)) == 10


def test_trials_are_pruned_between_draws(tmp_path):
    measured = []

    def by_draw(params, progress) -> float:
        for draw in range(2):
            measured.append((progress.trial.number, draw))
            progress.finish_draw(-1.0 if progress.trial.number >= 8 else 1.0)
        return progress.mean

    study = open_study(tmp_path / "s.db", SETTING, 0)
    run(study, 9, by_draw, num_draws=2)
    assert study.trials[8].state == TrialState.PRUNED
    assert (8, 1) not in measured
    assert list(study.trials[0].intermediate_values) == [REPORTS_PER_DRAW]


def test_a_study_of_another_setting_is_refused(tmp_path):
    open_study(tmp_path / "s.db", SETTING, 0)
    with pytest.raises(InputError, match="found another draws"):
        open_study(tmp_path / "s.db", SETTING | {"draws": 2}, 0)


def test_the_page_shows_the_best_the_default_and_what_matters(tmp_path):
    study = open_study(tmp_path / "s.db", SETTING, 0)
    run(study, 25)
    assert next(iter(importances(study))) == "a.x"
    page = markdown(study, "Tuning a peak", {"metric": "ndcg@10"})
    best = best_trials(study)[0]
    assert f"a.x={best.params['a.x']:.4g}" in page
    assert "| 0 (default) | 0.6384 | 0.9 | 0.9 |" in page
    assert "25 complete, 0 pruned" in page
    assert "| `x` |" in page
    assert f"{best.value:.4f}" in summary(study, "ndcg@10")
    assert "default ndcg@10  0.6384" in summary(study, "ndcg@10")


def test_a_page_of_one_trial_has_no_importances(tmp_path):
    study = open_study(tmp_path / "s.db", SETTING, 0)
    run(study, 1)
    assert importances(study) == {}
    assert "Importance" not in markdown(study, "Tuning a peak", {"metric": "ndcg@10"})
