"""Rules as pure functions of candidates."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.rules import ItemTable, NamedItems, Rules, arrange, passing
from recsys.rules.arranging import with_room

GENRES = ["Drama", "Comedy", "War", "Sci-Fi"]
FRAME = pd.DataFrame(
    {
        "item_id": range(101, 141),
        "genres": ["|".join(GENRES[g] for g in range(4) if n >> g & 1) for n in range(40)],
        "year": pd.array([1960 + n if n % 7 else None for n in range(40)], dtype="Int64"),
    }
)
ITEMS = Vocabulary(FRAME["item_id"].tolist())
TABLE = ItemTable.from_frame(FRAME)
IDS = st.integers(95, 145)


def filters(
    ids: st.SearchStrategy[int], genres: list[str], middle: int, **more: st.SearchStrategy
) -> st.SearchStrategy[Rules]:
    """Rules that filter items, of years around one."""
    names = st.lists(st.sampled_from(genres), max_size=3).map(tuple)
    return st.builds(
        Rules,
        block=st.lists(ids, max_size=5).map(tuple),
        allow=st.none() | st.lists(ids, max_size=30).map(tuple),
        genres_any=names,
        genres_all=names,
        genres_none=names,
        year_min=st.none() | st.integers(middle - 20, middle),
        year_max=st.none() | st.integers(middle, middle + 20),
        **more,
    )


FILTERS = filters(IDS, [*GENRES, "drama", "None"], 1980)
ARRANGING = st.builds(
    Rules,
    caps=st.dictionaries(st.sampled_from(["genre", "year", "decade"]), st.integers(1, 4)).map(
        lambda caps: tuple(caps.items())
    ),
    pin=st.lists(IDS, max_size=4).map(tuple),
    boost=st.dictionaries(
        st.sampled_from(["genre:Drama", "genre:war", "item:105"]), st.floats(0.1, 10)
    ).map(lambda boost: tuple(boost.items())),
    diversity=st.sampled_from([0.0, 0.3, 1.0]),
    diversify=st.sampled_from(["mmr", "dpp"]),
)


def passes(row: pd.Series, rules: Rules) -> bool:
    """The same, item by item, as one would say it."""
    own = {name.casefold() for name in row["genres"].split("|")}
    wanted_any = {name.casefold() for name in rules.genres_any}
    year = row["year"]
    return (
        row["item_id"] not in rules.block
        and (rules.allow is None or row["item_id"] in rules.allow)
        and (not wanted_any or bool(own & wanted_any))
        and all(name.casefold() in own for name in rules.genres_all)
        and not any(name.casefold() in own for name in rules.genres_none)
        and (rules.year_min is None or (not pd.isna(year) and year >= rules.year_min))
        and (rules.year_max is None or (not pd.isna(year) and year <= rules.year_max))
    )


def arranged(rules: Rules, number: int, top_k: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    items = rng.permutation(np.arange(1, 41))[:number]
    scores = np.sort(rng.normal(size=number))[::-1].astype(np.float32)
    vectors = np.random.default_rng(1).normal(size=(41, 8)).astype(np.float32)
    return (
        items,
        scores,
        arrange(
            items,
            scores,
            top_k,
            rules,
            TABLE,
            vectors[items],
            NamedItems.of(rules, TABLE, ITEMS.encode),
        ),
    )


@settings(max_examples=200, deadline=None)
@given(
    rules=ARRANGING,
    top_k=st.integers(1, 10),
    places=st.integers(1, 3),
    pool=st.lists(st.integers(1, 40), unique=True),
    seed=st.integers(0, 9),
)
def test_what_there_is_room_for_leaves_caps_kept_wherever_it_is_put(
    rules: Rules, top_k: int, places: int, pool: list[int], seed: int
) -> None:
    _, _, found = arranged(rules, 30, top_k, seed)
    listed, rng = found.item_idx.tolist(), np.random.default_rng(seed)
    pool = [item for item in pool if item not in listed]
    fitting = with_room(listed, pool, places, rules, TABLE)
    drawn = rng.permutation(fitting)[:places].astype(int).tolist()
    where = rng.permutation(len(listed))[: len(drawn)].tolist()
    for place, item in zip(where, drawn, strict=False):
        listed[place] = item
    for name, cap in rules.caps:
        counts = Counter(value for item in listed for value in TABLE.values(name, item))
        assert max(counts.values(), default=0) <= cap
    if not rules.caps:
        assert fitting == pool


@settings(max_examples=300, deadline=None)
@given(rules=FILTERS)
def test_an_item_passes_when_each_filter_holds_for_it(rules: Rules) -> None:
    mask = passing(rules, TABLE, ITEMS.encode)
    assert mask.tolist() == [False, *(passes(row, rules) for _, row in FRAME.iterrows())]
    assert rules.filters or mask[1:].all()


@settings(max_examples=200, deadline=None)
@given(rules=ARRANGING, number=st.integers(0, 40), top_k=st.integers(1, 45), seed=st.integers(0, 9))
def test_a_list_under_rules_holds_candidates_once_each_and_keeps_caps(
    rules: Rules, number: int, top_k: int, seed: int
) -> None:
    items, _, found = arranged(rules, number, top_k, seed)
    assert len(np.unique(found.item_idx)) == len(found.item_idx) <= min(top_k, number)
    assert set(found.item_idx) <= set(items)
    assert len(found.touched) == len(found.scores) == len(found.item_idx)
    for name, cap in rules.caps:
        values = [value for item in found.item_idx for value in TABLE.values(name, item)]
        assert max((values.count(value) for value in values), default=0) <= cap
    assert found.is_capped == (len(found.item_idx) < min(top_k, number))
    if not rules.caps:
        assert len(found.item_idx) == min(top_k, number)
        pins = [int(one) for one in ITEMS.encode(rules.pin) if one in items]
        first = list(dict.fromkeys(pins))[:top_k]
        assert found.item_idx[: len(first)].tolist() == first
        assert found.touched[: len(first)] == ["pin"] * len(first)


@given(number=st.integers(0, 40), top_k=st.integers(1, 45))
def test_plain_rules_change_nothing(number: int, top_k: int) -> None:
    items, scores, found = arranged(Rules(), number, top_k)
    assert found.item_idx.tolist() == items[:top_k].tolist()
    assert found.scores.tolist() == scores[:top_k].tolist()
    assert not any(found.touched)
    assert not Rules().arranges
    assert not Rules().filters


def test_a_boost_multiplies_the_odds() -> None:
    rules = Rules(boost=(("item:105", 3.0),))
    items, scores, found = arranged(rules, 40, 40)
    item = int(ITEMS.encode([105])[0])
    before = scores[items.tolist().index(item)]
    place = found.item_idx.tolist().index(item)
    assert np.exp(found.scores[place] - before) == pytest.approx(3, rel=1e-4)
    assert found.touched[place] == "boost item:105"
    assert (np.diff(found.scores) <= 0).all()


def test_the_dial_turns_a_list_from_its_scores_to_diversity() -> None:
    vectors = np.zeros((4, 2), np.float32)
    vectors[:3, 0] = 1  # three alike, and one that is not
    vectors[3, 1] = 1
    items, scores = np.arange(1, 5), np.array([1.0, 0.9, 0.8, 0.1], np.float32)
    for diversity, expected in ((0.0, [1, 2]), (0.9, [1, 4])):
        for diversify in ("mmr", "dpp"):
            rules = Rules(diversity=diversity, diversify=diversify)
            found = arrange(
                items, scores, 2, rules, TABLE, vectors, NamedItems.of(rules, TABLE, ITEMS.encode)
            )
            assert found.item_idx.tolist() == expected
    assert found.touched == [None, "diversity"]


def test_an_id_that_no_item_can_have_is_boosted_in_vain() -> None:
    rules = Rules(boost=(("item:" + "9" * 5000, 2.0),))
    items, _, found = arranged(rules, 10, 10)
    assert found.item_idx.tolist() == items.tolist()


def test_where_no_candidate_differs_the_scores_decide() -> None:
    vectors = np.ones((20, 3), np.float32) / np.sqrt(3)
    items, scores = np.arange(1, 21), np.linspace(2, 0, 20).astype(np.float32)
    for diversify in ("mmr", "dpp"):
        rules = Rules(diversity=0.7, diversify=diversify)
        found = arrange(
            items,
            scores,
            10,
            rules,
            TABLE,
            vectors.astype(np.float32),
            NamedItems.of(rules, TABLE, ITEMS.encode),
        )
        assert found.item_idx.tolist() == list(range(1, 11))


def test_a_cap_lets_the_next_item_move_up() -> None:
    table = ItemTable([["A"], ["A"], ["A", "B"], ["B"]], np.array([1990, 1991, 1999, 2001]))
    vectors = np.eye(4, dtype=np.float32)
    items, scores = np.arange(1, 5), np.array([4, 3, 2, 1], np.float32)

    def found(top_k: int, **caps: int):
        rules = Rules(caps=tuple(caps.items()))
        return arrange(
            items,
            scores,
            top_k,
            rules,
            table,
            vectors,
            NamedItems.of(rules, table, lambda ids: np.array(ids, np.int64)),
        )

    assert found(2, genre=1).item_idx.tolist() == [1, 4]
    assert found(2, genre=1).touched == [None, "cap"]
    assert found(3, genre=2).item_idx.tolist() == [1, 2, 4]
    assert found(4, decade=2).item_idx.tolist() == [1, 2, 4]
    assert found(3, genre=1).is_capped
    assert not found(2, genre=1).is_capped


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 45), st.integers(0, 39)), max_size=6))
def test_a_table_with_more_items_is_one_made_of_all(changes: list[tuple[int, int]]) -> None:
    changes = [(min(item, 41 + n), row) for n, (item, row) in enumerate(changes)]
    table, genres, years = TABLE, FRAME["genres"].tolist(), FRAME["year"].tolist()
    for item, row in changes:
        table = table.with_items(np.array([item]), FRAME.iloc[[row]])
        if item > len(genres):
            genres, years = (
                [*genres, *[""] * (item - len(genres))],
                [
                    *years,
                    *[None] * (item - len(years)),
                ],
            )
        genres[item - 1], years[item - 1] = FRAME["genres"][row], FRAME["year"][row]
    whole = ItemTable.from_frame(
        pd.DataFrame({"genres": genres, "year": pd.array(years, dtype="Int64")})
    )
    assert len(table) == len(whole)
    assert table.years.tolist() == whole.years.tolist()
    for name in GENRES:
        assert sorted(table.of_genre(name)) == sorted(whole.of_genre(name))
    assert TABLE.of_genre("WAR").tolist() == [n + 1 for n in range(40) if n & 4]


@pytest.mark.parametrize(
    "rules",
    [
        {"caps": {"colour": 1}},
        {"caps": {"genre": 0}},
        {"boost": {"genre:": 2}},
        {"boost": {"price:1": 2}},
        {"boost": {"genre:War": 0}},
        {"boost": {"genre:War": float("nan")}},
        {"diversity": 1.5},
        {"diversify": "best"},
        {"colour": "red"},
        {"block": "50"},
        {"exclude_seen": "no"},
        {"genres_any": None},
        {"caps": {"genre": True}},
        {"caps": {"genre": 1.5}},
        {"caps": ["genre"]},
        {"year_min": 2000, "year_max": 1990},
        {"diversity": "0.3"},
        {"diversity": None},
        {"boost": {"genre:War": "2"}},
        {"allow": [[1]]},
        {"boost": {"genre:War": 10**400}},
    ],
)
def test_rules_that_cannot_be_are_refused(rules: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        Rules.from_config(rules)


def test_a_request_changes_what_it_names() -> None:
    default = Rules.from_config({"caps": {"genre": 2}, "block": [3], "diversity": 0.2})
    changed = default.with_changes({"block": [4, 5], "year_min": 1990})
    # What the server blocks stays blocked.
    assert changed == Rules(caps=(("genre", 2),), block=(3, 4, 5), diversity=0.2, year_min=1990)
    assert hash(changed) == hash(changed.with_changes({}))
