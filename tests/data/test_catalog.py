import numpy as np
import pandas as pd
import pytest

from recsys.data import catalog
from recsys.data.catalog import Catalog, item_text
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError

ITEMS = pd.DataFrame(
    {
        "item_id": [30, 10, 20, 40],
        "title": ["Star Wars", "Toy Story", "Untitled", "Elsewhere"],
        "genres": ["Action|Sci-Fi", "Comedy", "", "Western"],
        "year": pd.array([1977, 1995, None, 2001], "Int64"),
        "description": ["", "Toys come alive.", "", ""],
    }
)
VOCABULARY = Vocabulary([10, 20, 30])


def test_rows_follow_the_vocabulary_and_other_items_are_left_out() -> None:
    built = Catalog.from_frame(ITEMS, VOCABULARY)
    assert built.items["item_id"].tolist() == [10, 20, 30]
    assert len(built) == 3


def test_attributes_are_multi_hot_genres_and_decades() -> None:
    built = Catalog.from_frame(ITEMS, VOCABULARY)
    assert built.attribute_names == [
        "genre: Action",
        "genre: Comedy",
        "genre: Sci-Fi",
        "decade: 1970s",
        "decade: 1990s",
    ]
    assert built.attributes.dtype == np.float32
    assert built.attributes.tolist() == [
        [0, 0, 0, 0, 0],  # padding
        [0, 1, 0, 0, 1],  # Toy Story
        [0, 0, 0, 0, 0],  # Untitled: no genre, no year
        [1, 0, 1, 1, 0],  # Star Wars
    ]


def test_common_times_of_release_become_attributes() -> None:
    """A quarter where the date is known, else the year; rare ones say nothing that generalises."""
    dates = ["1997-04-01"] * 3 + ["1997-06-30"] * 2 + ["1997-07-01"] * 4 + [""] * 6
    years = pd.array([None] * 9 + [1980] * 5 + [None], "Int64")
    ids = list(range(1, 16))
    items = pd.DataFrame({"item_id": ids, "title": "x", "release_date": dates, "year": years})
    built = Catalog.from_frame(items, Vocabulary(ids))
    assert built.attribute_names == [
        "decade: 1980s",
        "decade: 1990s",
        "released: 1980",
        "released: 1997Q2",
    ]
    assert built.attributes[1:, 3].tolist() == [1] * 5 + [0] * 10
    assert built.attributes[1:, 2].tolist() == [0] * 9 + [1] * 5 + [0]


def test_a_release_date_tells_the_year_where_none_is_given() -> None:
    items = ITEMS.assign(release_date=["1979-01-01", "", "1988-05-05", ""])
    built = Catalog.from_frame(items, VOCABULARY)
    assert built.items["year"].tolist() == [1995, 1988, 1977]
    assert built.texts()[1] == "Untitled (1988)."


def test_texts_leave_out_what_is_missing() -> None:
    assert Catalog.from_frame(ITEMS, VOCABULARY).texts() == [
        "Toy Story (1995). Genres: Comedy. Toys come alive.",
        "Untitled.",
        "Star Wars (1977). Genres: Action, Sci-Fi.",
    ]


def test_item_text_of_a_film() -> None:
    text = item_text("The Empire Strikes Back", 1980, "Action|Adventure", " Ice and fire. ")
    assert text == "The Empire Strikes Back (1980). Genres: Action, Adventure. Ice and fire."


def test_titles_alone_are_enough() -> None:
    built = Catalog.from_frame(ITEMS[["item_id", "title"]], VOCABULARY)
    assert built.attributes.shape == (4, 0)
    assert built.texts()[0] == "Toy Story."
    assert built.items["year"].isna().all()
    assert built.items["genres"].tolist() == ["", "", ""]


def test_missing_texts_are_empty() -> None:
    items = ITEMS.assign(genres=["Action", None, None, None], description=[None, None, "x", None])
    built = Catalog.from_frame(items, VOCABULARY)
    assert built.texts() == [
        "Toy Story (1995).",
        "Untitled. x",
        "Star Wars (1977). Genres: Action.",
    ]
    assert built.attributes[1].tolist() == [0, 0, 1]


def test_given_attribute_names_fix_the_columns() -> None:
    names = ["genre: Western", "genre: Comedy"]
    built = Catalog.from_frame(ITEMS, Vocabulary([40, 10, 30]), attribute_names=names)
    assert built.attribute_names == names
    assert built.attributes.tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]


def test_rebuilding_from_its_own_items_changes_nothing() -> None:
    built = Catalog.from_frame(ITEMS, VOCABULARY)
    again = Catalog.from_frame(built.items, VOCABULARY)
    pd.testing.assert_frame_equal(built.items, again.items)
    assert (built.attributes == again.attributes).all()


def test_only_the_most_common_genres_become_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "MAX_GENRES", 2)
    items = pd.DataFrame(
        {"item_id": [1, 2, 3], "title": "x", "genres": ["Zeta|Beta", "Zeta|Alpha", "Gamma"]}
    )
    names = Catalog.from_frame(items, Vocabulary([1, 2, 3])).attribute_names
    assert names == ["genre: Alpha", "genre: Zeta"]


def test_an_item_without_a_row_is_refused() -> None:
    with pytest.raises(InputError, match=r"2 without a row, first \[50, 60\]"):
        Catalog.from_frame(ITEMS, Vocabulary([10, 50, 60]))


def test_string_ids_align_too() -> None:
    items = ITEMS.assign(item_id=["c", "a", "b", "d"])
    assert Catalog.from_frame(items, Vocabulary(["a", "b", "c"])).items["title"].tolist() == [
        "Toy Story",
        "Untitled",
        "Star Wars",
    ]
