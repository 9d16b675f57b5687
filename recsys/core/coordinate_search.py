"""The best settings by moving along one of them at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Space = Mapping[str, Sequence[Any]]
"""Setting -> the values it may take, in the order in which neighbours are alike."""


def climb(
    value: Callable[[Mapping[str, Any]], float],
    space: Space,
    start: Mapping[str, Any],
    max_trials: int,
) -> tuple[dict[str, Any], float, int]:
    """The best settings found by moving along one of them at a time while that helps.

    Cheap and with the same result each time: rounds over the settings end when none has helped, or
    after ``max_trials`` calls of ``value``. A local maximum is what it finds.

    Args:
        value: of some settings; the larger, the better.
        start: an entry of ``space`` per setting.

    Returns:
        The settings, their value, and how often ``value`` was called.
    """
    best, reached, known = dict(start), value(start), 1
    seen = {tuple(best.values())}
    moved = True
    while moved:
        moved = False
        for key, values in space.items():
            for step in (1, -1):
                place = values.index(best[key]) + step
                while 0 <= place < len(values) and known < max_trials:
                    candidate = {**best, key: values[place]}
                    if tuple(candidate.values()) in seen:
                        break
                    seen.add(tuple(candidate.values()))
                    found, known = value(candidate), known + 1
                    if found <= reached:
                        break
                    best, reached, moved = candidate, found, True
                    place += step
    return best, reached, known
