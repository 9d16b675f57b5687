"""The benchmark of live items: a bundle that has never heard of some items, which come back."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.cold_items_live import save, without_items
from recsys.artifact import load_artifact
from recsys.recommender import Recommender
from recsys.request import Request
from tests.conftest import write_untrained_bundle


def test_items_that_come_back_are_ranked_as_if_they_had_been_there(tmp_path: Path) -> None:
    path = write_untrained_bundle(tmp_path / "all", [101, 102, 103], list(range(1001, 1031)))
    artifact = load_artifact(path)
    counts = artifact.histories.item_counts(30)
    cold = np.zeros(31, bool)
    cold[np.flatnonzero(counts[1:] == 0)[:6] + 1] = True
    # As the benchmark does it: stage 1 alone.
    complete = Recommender(replace(artifact, stage2=None))

    warm = without_items(complete.artifact, cold)
    assert len(warm.items) == 24
    said = {"dataset": "tiny", "text": {}, "config": {}, "cross_encoder": None}
    smaller = Recommender.load(
        save(replace(warm, manifest={**artifact.manifest, **said}), tmp_path)
    )
    frame = artifact.item_frame.iloc[np.flatnonzero(cold) - 1].reset_index(drop=True)
    again = smaller.with_items(frame, artifact.text[cold].numpy())

    requests = [Request(30, user_id=user) for user in (101, 102, 103)]
    requests.append(Request(30, history=frame["item_id"].tolist()[:2]))
    for one, other in zip(complete.recommend(requests), again.recommend(requests), strict=True):
        assert set(one.item_ids) >= set(frame["item_id"][2:])
        assert other.item_ids == one.item_ids
        np.testing.assert_allclose(other.scores, one.scores, rtol=1e-4, atol=1e-6)
