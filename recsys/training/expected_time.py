"""About how long a training run takes, by the size of its data: what its progress lines start from.

The constants are seconds of one core of a laptop-like machine, measured on the bundled sample,
MovieLens-100K and Online Retail. A factor of 2 is what they are good for; a run corrects them by
the phases that it has finished.
"""

from collections.abc import Mapping
from dataclasses import dataclass

DATA = "Data"
TEXT = "Text vectors"
SEARCH = "Search of stage 1"
FITS = "Stage 1"
FOLDS = "Folds of stage 1"
STAGE2 = "Stage 2"
EVALUATION = "Evaluation"
BASELINES = "Baselines"
REFIT = "Refit on all rows"
REPORT = "Report"
FITTED = (FITS, FOLDS, REFIT)
"""Phases that fit a stage 1 for as many epochs as validation has chosen."""
OF_STAGE1 = (TEXT, SEARCH, FITS, FOLDS)

LIKELY_SHARE_OF_EPOCHS = 0.5
"""That validation chooses of those of the recipe."""
_SEARCHED_SHARE_OF_EPOCHS, _LIKELY_SHARE_OF_TRIALS = 0.8, 0.6


def planned(
    stages: tuple[int, ...], *, has_text: bool, has_baselines: bool, refits: bool
) -> list[str]:
    """The phases of a run, in order."""
    return [
        DATA,
        *([TEXT] if 1 in stages and has_text else []),
        *([SEARCH, FITS] if 1 in stages else []),
        *([FOLDS, STAGE2] if 2 in stages else []),
        EVALUATION,
        *([BASELINES] if has_baselines else []),
        *([REFIT] if refits else []),
        REPORT,
    ]


@dataclass(frozen=True)
class Work:
    """What there is to do.

    users, items, events: of the training rows. test_users: of the held-out ones. characters: of all
    texts that have to be encoded. epochs, trials: of stage 1, at most. folds, list_epochs,
    list_length: of stage 2. tuned: whether baselines are. processes: side by side.
    """

    users: int
    items: int
    events: int
    test_users: int
    characters: int
    epochs: int
    trials: int
    folds: int
    list_epochs: int
    list_length: int
    tuned: bool
    processes: int

    def seconds(self, has_stage1: bool = False) -> Mapping[str, float]:
        """By phase, planned or not.

        Args:
            has_stage1: whether that is there from before an interruption.
        """
        scores = self.users * min(self.items, 10_000)
        epoch = 0.02 + 1.0e-7 * scores + 1.0e-6 * self.events
        closed_form = 3e-10 * min(self.items, 10_000) ** 3 + 1e-8 * scores
        fit = closed_form + LIKELY_SHARE_OF_EPOCHS * self.epochs * epoch
        lists = self.users * self.folds
        found = {
            TEXT: 1.5 + 1e-4 * self.characters,
            SEARCH: (1 + _LIKELY_SHARE_OF_TRIALS * self.trials) * closed_form
            + _SEARCHED_SHARE_OF_EPOCHS * self.epochs * epoch,
            FITS: fit * (2 if self.processes < 2 else 1),
            FOLDS: (self.folds * fit + 5e-4 * lists) / max(min(self.processes, self.folds), 1),
            STAGE2: 3.0 + 1e-5 * lists * self.list_epochs * self.list_length,
            EVALUATION: 1.0 + 1e-3 * self.test_users,
            BASELINES: (0.5 + 1e-5 * self.events + closed_form) * (30 if self.tuned else 1),
            REFIT: 3.0 + fit,
            REPORT: 1.0,
        }
        return found | dict.fromkeys((TEXT, SEARCH, FITS), 0.0) if has_stage1 else found
