"""Stage 1's recipe: all that its training depends on besides the events."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from recsys.artifact import ModelConfig
from recsys.core.settings import Setting, checked, or_null, real
from recsys.data.histories import Histories
from recsys.training.content_map import KernelRidge
from recsys.training.item_regression import ItemRegression
from recsys.training.retrieval import Objective
from recsys.training.spectral_filter import SpectralFilter

_REMEDY = "train both stages here: python train.py stage=all"


@dataclass(frozen=True)
class RetrievalRecipe:
    """All that training a stage 1 depends on besides the events.

    towers, objectives: one each per tower of the ensemble; one objective at least is learned by
    gradient steps. content_map: how items without events are placed. epochs: length of the
    learning-rate schedule and the most that are trained. patience: validations without improvement
    before training stops. num_validation: events per user held out to choose by: the number of
    epochs, and more. max_trials: fits of a regression at the most, to choose its settings; 0 leaves
    them as they are. choose_weights: whether it is chosen how much each tower counts; else all
    count alike. weights: what was chosen.
    """

    towers: Sequence[ModelConfig]
    objectives: Sequence[Objective | ItemRegression | SpectralFilter]
    content_map: KernelRidge
    epochs: int
    validate_every: int
    patience: int
    num_validation: int
    batch_size: int
    max_history: int
    seed: int
    max_trials: int = 0
    choose_weights: bool = False
    weights: tuple[float, ...] | None = None

    def settled(
        self, remaining: Histories, held_out: Histories, num_items: int
    ) -> "RetrievalRecipe":
        """With what its objectives leave to be chosen on validation events."""
        objectives = [
            goal.settled(remaining, held_out, num_items, int(tower["dim"]), self.seed)
            if isinstance(goal, SpectralFilter)
            else goal
            for tower, goal in zip(self.towers, self.objectives, strict=True)
        ]
        return replace(self, objectives=objectives)

    @property
    def settings(self) -> dict[str, Any]:
        """What was chosen on validation events, for a manifest."""
        return {
            "objectives": [
                {} if isinstance(goal, Objective) else goal.settings() for goal in self.objectives
            ],
            "weights": None if self.weights is None else list(self.weights),
        }

    def with_settings(self, settings: object) -> "RetrievalRecipe":
        """As it was settled when a manifest was written; None: as it is.

        Raises:
            InputError: when these are no settings of its objectives.
        """
        if settings is None:
            return self
        number = len(self.objectives)
        said = checked(settings, _settled(number), "settled", _REMEDY)
        objectives = [
            goal if isinstance(goal, Objective) else goal.with_settings(found, _REMEDY)
            for goal, found in zip(
                self.objectives, said.get("objectives", [{}] * number), strict=True
            )
        ]
        weights = said.get("weights")
        return replace(
            self, objectives=objectives, weights=None if weights is None else tuple(weights)
        )

    @property
    def is_learned(self) -> bool:
        """Whether a tower that counts is learned by gradient steps."""
        weights = self.weights or (1.0,) * len(self.objectives)
        return any(
            isinstance(goal, Objective) and weight > 0
            for goal, weight in zip(self.objectives, weights, strict=True)
        )


def _settled(number: int) -> dict[str, Setting]:
    """What ``RetrievalRecipe.settings`` may be, of so many towers."""
    weight = real(0, 1e6)

    def is_list(value: object) -> bool:
        return isinstance(value, list) and len(value) == number

    return {
        "objectives": Setting(f"settings for {number} towers", is_list),
        "weights": or_null(
            Setting(
                f"{number} numbers in 0..1e6",
                lambda value: is_list(value) and all(map(weight.fits, value)),
            )
        ),
    }
