import numpy as np
import torch

from recsys.data.histories import Histories
from recsys.item_graph import co_occurrence_graphs
from recsys.pair_signals import PAIR_NAMES, PairSignals

NUM_ITEMS = 300


def graphs_and_text():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(1, 41), 20)
    items = np.concatenate([rng.permutation(NUM_ITEMS)[:20] + 1 for _ in range(40)])
    histories = Histories.from_indices(users, items, rng.integers(0, 10_000, 800), 40)
    text = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(NUM_ITEMS + 1, 12))))
    text[0] = 0
    return (*co_occurrence_graphs(histories, NUM_ITEMS), text.float())


def test_the_table_holds_what_is_computed_without_it() -> None:
    session, plain, text = graphs_and_text()
    table = PairSignals(session, plain, text)
    computed = PairSignals(session, plain, text, max_table_pairs=0)
    assert table.table is not None
    assert computed.table is None
    generator = torch.Generator().manual_seed(0)
    for num_rows, num_candidates, num_events in ((1, 5, 1), (3, 40, 17), (2, 300, 60)):
        candidates = torch.randint(0, 301, (num_rows, num_candidates), generator=generator)
        history = torch.randint(0, 301, (num_rows, num_events), generator=generator)
        found = table(candidates, history)
        assert found.shape == (num_rows, num_candidates, num_events, len(PAIR_NAMES))
        torch.testing.assert_close(found, computed(candidates, history), rtol=0, atol=1e-6)


def test_padding_goes_with_nothing() -> None:
    signals = PairSignals(*graphs_and_text())
    everything = torch.arange(NUM_ITEMS + 1)[None]
    padding = torch.zeros((1, 1), dtype=torch.int64)
    assert not signals(everything, padding).any()
    assert not signals(padding, everything).any()
