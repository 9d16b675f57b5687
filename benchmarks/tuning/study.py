"""One study: the configuration as it is, then what Optuna proposes, up to a number of trials."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.tuning.progress import TrialProgress
from benchmarks.tuning.space import Params, Space
from recsys.errors import InputError

Evaluate = Callable[[Params, TrialProgress], float]
"""The value of a trial's parameters; reports on the way, and may be pruned there."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_DEFAULT = "default"
_SETTING = "setting"


def open_study(path: Path, setting: Mapping[str, Any], warmup: int) -> optuna.Study:
    """The study kept in the SQLite file ``path``, or a new one. One process may have it open.

    Args:
        setting: what values depend on besides parameters: values of two settings do not compare.
        warmup: the reports within a draw before which no trial is pruned.

    Raises:
        InputError: when the study was made in another setting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{path}",
        study_name=path.stem,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup),
    )
    given = {key: _digest(value) for key, value in setting.items()}
    stored = study.user_attrs.get(_SETTING)
    if stored is None:
        study.set_user_attr(_SETTING, given)
    elif stored != given:
        keys = [key for key in given | stored if given.get(key) != stored.get(key)]
        raise InputError(
            f"the setting in which the study {path} was begun",
            f"another {', '.join(keys)}",
            "give its options again, choose another --study, or remove the file",
        )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # cut off in an earlier run
    return study


def run_study(
    study: optuna.Study,
    space: Space,
    default: Params,
    evaluate: Evaluate,
    *,
    num_trials: int,
    num_draws: int,
    seed: int,
) -> Iterator[FrozenTrial]:
    """Run trials until ``num_trials`` have finished, those of earlier runs included.

    The first one has the parameters of the configuration as it is, and is never pruned. The
    sampler depends on the seed, a trial's number and the trials before, so that an interrupted
    study goes on as if it had not been.

    Yields:
        Each trial that was run here.
    """
    while len(finished(study)) < num_trials:
        if not any(_DEFAULT in t.user_attrs for t in (*finished(study), *_waiting(study))):
            study.enqueue_trial(default, user_attrs={_DEFAULT: True})
        number = len(study.get_trials(deepcopy=False))
        mixed = np.random.SeedSequence([seed, number]).generate_state(1)
        study.sampler = optuna.samplers.TPESampler(seed=int(mixed[0]))
        trial = study.ask(space)
        progress = TrialProgress(trial, num_draws, prune=_DEFAULT not in trial.user_attrs)
        try:
            value = evaluate(dict(trial.params), progress)
        except optuna.TrialPruned:
            yield study.tell(trial, state=TrialState.PRUNED)
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            raise
        else:
            yield study.tell(trial, value)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=FINISHED)


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Complete trials, best first; equal ones in the order they were run."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: -_value(trial))


def default_trial(study: optuna.Study) -> FrozenTrial | None:
    """The trial of the configuration as it is, once it has run."""
    return next((t for t in best_trials(study) if _DEFAULT in t.user_attrs), None)


def importances(study: optuna.Study) -> dict[str, float]:
    """Each parameter's share of what sets good trials apart, largest first.

    By PED-ANOVA (Watanabe et al. 2023); empty where there are too few trials to tell.
    """
    values = {trial.value for trial in best_trials(study)}
    if len(values) < 4 or len(best_trials(study)[0].params) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _waiting(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.WAITING,))


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 40 else hashlib.sha256(text.encode()).hexdigest()[:16]
