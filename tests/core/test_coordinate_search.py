"""The search ends at a peak, tries nothing twice, and stops when it is told to."""

from recsys.core.coordinate_search import climb

SPACE = {"x": [0, 1, 2, 3, 4], "y": ["a", "b", "c"]}


def peak(settings) -> float:
    return -abs(settings["x"] - 3) - abs("abc".index(settings["y"]) - 2)


def test_the_climb_ends_at_the_peak_and_tries_nothing_twice() -> None:
    tried = []

    def value(settings) -> float:
        tried.append(tuple(settings.values()))
        return peak(settings)

    best, reached, trials = climb(value, SPACE, {"x": 0, "y": "a"}, max_trials=24)
    assert (best, reached) == ({"x": 3, "y": "c"}, 0)
    assert trials == len(tried) == len(set(tried))


def test_the_climb_is_cut_short() -> None:
    best, reached, trials = climb(peak, SPACE, {"x": 0, "y": "a"}, max_trials=3)
    assert (best, reached, trials) == ({"x": 2, "y": "a"}, -3, 3)
