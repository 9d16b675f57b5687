"""Untrained bundles: of the size that was asked for, and served like any other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from benchmarks.synthetic_bundle import Size, write_bundle
from recsys.artifact import load_artifact
from recsys.cli import CONFIG_DIR
from recsys.recommender import Recommender
from recsys.request import Request


def test_a_bundle_is_of_its_size_and_answers(tmp_path: Path) -> None:
    artifact = load_artifact(write_bundle(Size(300, 200), tmp_path))
    assert (len(artifact.items), len(artifact.users)) == (300, 200)
    assert artifact.two_tower.embedding_dims == [128, 65]
    assert artifact.stage2 is not None
    configured = OmegaConf.load(CONFIG_DIR / "reranking/cross_encoder.yaml").relation_rank
    assert artifact.stage2.extractor.relations.width == configured
    assert artifact.stage2.extractor.max_history == 31
    (answer,) = Recommender(artifact).recommend([Request(10, user_id=7)])
    assert answer.source == "reranked"
    assert len(set(answer.item_ids)) == 10


def test_events_are_many_of_few_items_and_users(tmp_path: Path) -> None:
    histories = load_artifact(write_bundle(Size(2000, 500), tmp_path)).histories
    lengths = histories.lengths[1:]
    assert 70 < lengths.mean() < 130
    assert np.median(lengths) < 0.8 * lengths.mean()
    counts = np.sort(histories.item_counts(2000))[::-1]
    assert counts[:200].sum() > 0.4 * counts.sum()
    pairs = histories.user_idx * 2001 + histories.item_idx
    assert len(np.unique(pairs)) == len(pairs)


def test_the_same_size_is_the_same_bundle(tmp_path: Path) -> None:
    one, other = (
        load_artifact(write_bundle(Size(30, 20), tmp_path / name)) for name in ("one", "other")
    )
    assert one.version == other.version
    assert torch.equal(one.text, other.text)


@pytest.mark.parametrize("text", ["6000", "axb", "6000x", "5x100", "100x5"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Size.parse(text)
    assert Size.parse("6000x1000") == (6000, 1000)
