"""Items as tables: stored ones, and what a table of them says of its data set."""

from collections.abc import Sequence

import pandas as pd

from recsys.events.catalogue import CatalogueSketch
from recsys.events.types import Item
from recsys.schema import DESCRIPTION, GENRES, ITEM_ID, RELEASE_DATE, TITLE, YEAR


def item_frame(items: Sequence[Item]) -> pd.DataFrame:
    """As in ``Dataset.items``."""
    return pd.DataFrame(
        {
            ITEM_ID: [item.item_id for item in items],
            TITLE: [item.title for item in items],
            DESCRIPTION: [item.description for item in items],
            GENRES: [item.genres for item in items],
            YEAR: pd.array([item.year for item in items], dtype="Int64"),
            RELEASE_DATE: [item.release_date for item in items],
        }
    )


def catalogue_of(items: pd.DataFrame) -> CatalogueSketch:
    """By which a store knows the data set of these items, as in ``Dataset.items``."""
    return CatalogueSketch.of(items[ITEM_ID], items[TITLE])
