"""The command on a tiny data set, and each target's way to a value."""

from types import SimpleNamespace

import optuna
import pytest
import torch

from benchmarks import tune as tune_module
from benchmarks.tune import parse_arguments, tune
from benchmarks.tuning.lists import ListCache
from benchmarks.tuning.progress import TrialProgress
from benchmarks.tuning.rows import TrainingRows
from benchmarks.tuning.study import default_trial, open_study, run_study
from benchmarks.tuning.targets import TARGETS, Problem, configuration
from recsys.errors import InputError
from recsys.training.composed_config import load_data

TINY = [
    "data=synthetic",
    "data.num_users=40",
    "data.num_items=60",
    "data.num_interactions=1200",
    "experiment=quick",
    "retrieval.epochs=4",
    "retrieval.validate_every=1",
    "retrieval.num_candidates=20",
    "retrieval.towers.linear.model.dim=8",
    "retrieval.towers.content.model.dim=8",
    "reranking.epochs=2",
    "reranking.cross_encoder.dim=8",
    "lambdamart.min_data_in_leaf=5",
    "lambdamart.max_rounds=5",
    "trainer.accelerator=cpu",
]


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def problem(tmp_path) -> Problem:
    """Random text vectors stand in for the language model's."""
    rows = TrainingRows.of(load_data(configuration(TINY)))
    made = Problem(rows, tuple(TINY), "ndcg@10", ListCache(tmp_path / "lists"))
    vectors = torch.randn(rows.num_items, 6, generator=torch.Generator().manual_seed(0))
    text = torch.nn.functional.normalize(vectors, dim=1)
    made.__dict__["text"] = torch.nn.functional.pad(text, (0, 0, 1, 0))
    made.__dict__["encoder"] = SimpleNamespace(fingerprint="random")
    return made


def arguments(tmp_path, *options):
    return parse_arguments([*options, *TINY, f"output_dir={tmp_path}"])


def test_a_study_is_run_shown_and_gone_on_with(tmp_path, capsys):
    three = arguments(tmp_path, "ease", "--trials", "3", "--draws", "2")
    study = tune(three, tmp_path / "results")
    assert len(study.trials) == 3
    assert default_trial(study).params == {"baselines.ease.regularization": 400.0}
    best = max(trial.value for trial in study.trials)
    page = (tmp_path / "results" / "ease.md").read_text()
    assert f"{best:.4f}" in page
    assert "3 complete" in page
    shown = capsys.readouterr()
    assert "baselines.ease.regularization=" in shown.out
    assert shown.err.count("ndcg@10") == 3

    assert len(tune(three, tmp_path / "results").trials) == 3
    four = arguments(tmp_path, "ease", "--trials", "4", "--draws", "2")
    assert len(tune(four, tmp_path / "results").trials) == 4
    with pytest.raises(InputError, match="found another draws"):
        tune(arguments(tmp_path, "ease", "--trials", "4"), tmp_path / "results")


def test_trials_see_no_test_rows(tmp_path, monkeypatch):
    seen = []

    def measure(problem, cfg, draw, report):
        data = problem.rows.data
        seen.append(len(data.split.test))
        assert len(draw.train) + len(draw.held_out) == len(data.train) == len(data.split.train)
        return 0.5

    target = TARGETS["ease"]
    monkeypatch.setitem(tune_module.TARGETS, "ease", type(target)(measure, target.groups, 1))
    assert len(load_data(configuration(TINY)).split.test)
    tune(arguments(tmp_path, "ease", "--trials", "2"), tmp_path / "results")
    assert seen == [0, 0]


@pytest.mark.parametrize("target", ["als", "ease", "stage1", "lambdamart", "stage2"])
def test_a_target_has_a_value_that_repeats(problem, target):
    draw = problem.rows.draws(1, seed=0)[0]
    steps = []
    cfg = problem.configured({})
    value = TARGETS[target].measure(problem, cfg, draw, lambda v, step: steps.append((step, v)))
    assert 0 < value < 1
    again = TARGETS[target].measure(problem, cfg, draw, lambda v, step: None)
    assert again == value
    expected = {"stage1": [1, 2, 3, 4], "stage2": [2, 4]}  # validations; quarters of 2 epochs
    assert [step for step, _ in steps] == expected.get(target, [])
    if target == "stage2":
        assert steps[-1][1] == pytest.approx(value)


def test_lists_are_made_once_per_stage_1_setting(problem, monkeypatch):
    draw = problem.rows.draws(1, seed=0)[0]
    measure = TARGETS["lambdamart"].measure
    value = measure(problem, problem.configured({}), draw, None)
    monkeypatch.setattr("benchmarks.tuning.targets.make_lists", None)  # not called again
    other = problem.configured({"lambdamart.num_leaves": 3})
    measure(problem, other, draw, None)
    fresh = Problem(problem.rows, problem.overrides, "ndcg@10", ListCache(problem.lists.folder))
    fresh.__dict__.update({key: problem.__dict__[key] for key in ("text", "encoder")})
    assert measure(fresh, fresh.configured({}), draw, None) == value
    with pytest.raises(TypeError, match="not callable"):
        measure(problem, problem.configured({"retrieval.batch_size": 7}), draw, None)


def test_a_training_is_cut_short_within_a_draw(problem, tmp_path):
    draw = problem.rows.draws(1, seed=0)[0]
    study = open_study(tmp_path / "s.db", {}, 0)
    space = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
    steps = []

    def evaluate(params, progress: TrialProgress) -> float:
        number = progress.trial.number
        if number < 6:
            for step in range(1, 5):
                progress.report(2.0, step)  # what no metric reaches
            return 2.0

        def report(value, step):
            steps.append(step)
            progress.report(value, step)

        return TARGETS["stage1"].measure(problem, problem.configured({}), draw, report)

    options = {"num_trials": 7, "num_draws": 1, "seed": 0}
    list(run_study(study, space, {"x": 0.5}, evaluate, **options))
    assert study.trials[6].state == optuna.trial.TrialState.PRUNED
    assert steps == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        ["nothing"],
        ["als", "--trials", "0"],
        ["als", "--draws", "0"],
        ["als", "--metric", "map@10"],
        ["als", "--metric", "ndcg@101"],
        ["als", "--study", "../x"],
    ],
)
def test_what_the_command_line_cannot_mean_is_refused(wrong):
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(wrong)


def test_options_and_overrides_mix():
    parsed = parse_arguments(["als", "data=sample", "--trials", "5", "seed=1"])
    assert (parsed.target, parsed.trials, parsed.draws) == ("als", 5, None)
    assert parsed.overrides == ["data=sample", "seed=1"]
