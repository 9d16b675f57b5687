"""A log of views and purchases in which purchases tell more of a taste than views do."""

import numpy as np
import pandas as pd

from recsys.data import generator
from recsys.schema import ITEM_ID, RATING, TIMESTAMP, TYPE, USER_ID, Dataset

VIEW, PURCHASE = "view", "purchase"
_LIKED = 4
_PURCHASE_SHARE = 0.35
_CLICKS_PER_EVENT = 1.0
_SECONDS = 60


def event_log(num_users: int, num_items: int, num_events: int, seed: int) -> Dataset:
    """The generator's users, whose sittings hold three kinds of rows.

    Purchases: a share of what a user rates well, which comes from the user's own taste. Views: all
    else that the generator has them meet. Clicks, which are views as well: as many again, of items
    drawn by popularity alone, in the midst of the sittings.
    """
    data = generator.load(num_users, num_items, num_events, seed=seed, name="shop")
    rng = np.random.default_rng([seed, 1])
    events = data.interactions
    is_bought = (events[RATING] >= _LIKED) & (rng.random(len(events)) < _PURCHASE_SHARE)
    met = events[[USER_ID, ITEM_ID, TIMESTAMP]].assign(
        **{TYPE: np.where(is_bought, PURCHASE, VIEW)}
    )
    number = int(_CLICKS_PER_EVENT * len(events))
    visit, shown = rng.integers(0, len(events), (2, number))
    clicks = pd.DataFrame(
        {
            USER_ID: events[USER_ID].to_numpy()[visit],
            ITEM_ID: events[ITEM_ID].to_numpy()[shown],
            TIMESTAMP: events[TIMESTAMP].to_numpy()[visit] + rng.integers(0, _SECONDS, number),
            TYPE: VIEW,
        }
    )
    rows = pd.concat([met, clicks]).sort_values([TIMESTAMP, USER_ID], kind="stable")
    return Dataset(data.name, rows.reset_index(drop=True), data.items)
