"""What a study has found, as Markdown and in a few lines for the terminal."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.tuning.space import as_overrides
from benchmarks.tuning.study import best_trials, default_trial, finished, importances

NUM_SHOWN = 10


def summary(study: optuna.Study, metric: str) -> str:
    """The best parameters, ready to paste, and what the configuration as it is reaches."""
    best, default = best_trials(study)[0], default_trial(study)
    lines = [f"best {metric}     {best.value:.4f}  (trial {best.number})"]
    if default is not None:
        lines.append(f"default {metric}  {default.value:.4f}")
    return "\n".join([*lines, "", " ".join(as_overrides(best.params))])


def markdown(study: optuna.Study, title: str, facts: Mapping[str, Any]) -> str:
    """A page with the best parameters, the best trials, and what matters among the parameters."""
    trials, default = best_trials(study), default_trial(study)
    pruned = sum(trial.state == TrialState.PRUNED for trial in finished(study))
    metric = str(facts["metric"])
    shown = trials[:NUM_SHOWN]
    if default is not None and default.number not in [trial.number for trial in shown]:
        shown = [*shown, default]
    keys = list(trials[0].params)
    prefix = _common_prefix(keys)
    lines = [
        f"# {title}",
        "",
        "Made by `benchmarks/tune.py`. Values are on validation events carved out of the training "
        "rows; the test rows are dropped before a search begins.",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        f"- trials: {len(trials)} complete, {pruned} pruned",
        "",
        "Best parameters:",
        "",
        "```",
        *as_overrides(trials[0].params),
        "```",
        "",
        *_table(
            ["trial", metric, *(f"`{key.removeprefix(prefix)}`" for key in keys)],
            [
                _row(trial, default is not None and trial.number == default.number)
                for trial in shown
            ],
        ),
    ]
    shares = importances(study)
    if shares:
        rows = [[f"`{key.removeprefix(prefix)}`", f"{share:.2f}"] for key, share in shares.items()]
        lines += ["", "Importance of each parameter (PED-ANOVA):", ""]
        lines += _table(["parameter", "share"], rows)
    return "\n".join(lines) + "\n"


def _row(trial: FrozenTrial, is_default: bool) -> list[str]:
    values = [text.partition("=")[2] for text in as_overrides(trial.params)]
    return [f"{trial.number}{' (default)' * is_default}", f"{trial.value:.4f}", *values]


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _common_prefix(keys: list[str]) -> str:
    """The leading parts, with their dots, that all keys share."""
    parts = [key.split(".")[:-1] for key in keys]
    shared = 0
    while all(len(part) > shared and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return "".join(f"{part}." for part in parts[0][:shared])
