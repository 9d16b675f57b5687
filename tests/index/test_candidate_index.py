import logging
import re
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from recsys.errors import InputError
from recsys.index import CandidateIndex, Exclusion, built
from recsys.index.builders import (
    AutoIndexBuilder,
    FlatIndexBuilder,
    HnswIndexBuilder,
    IndexBuilder,
    IvfPqIndexBuilder,
)
from recsys.index.built import Found, TwoPassIndex
from recsys.index.exclusions import first_allowed
from recsys.index.two_pass import fit_codes
from recsys.ranking import top_k

CONFIGS = Path(__file__).parents[2] / "configs" / "index"
BUILDERS = [
    FlatIndexBuilder(),
    HnswIndexBuilder(),
    IvfPqIndexBuilder(num_subvectors=8),
    AutoIndexBuilder(exact_up_to=0),
]


def clustered(num_items: int, dim: int = 32, seed: int = 0) -> np.ndarray:
    """Embeddings [N + 1, D] around 20 centres, row 0 zeros."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, dim))
    noise = rng.normal(scale=0.5, size=(num_items, dim))
    vectors = centres[rng.integers(20, size=num_items)] + noise
    return np.vstack([np.zeros(dim), vectors]).astype(np.float32)


def sample() -> np.ndarray:
    """Queries near the centres."""
    return clustered(600, seed=7)[1:]


def exact_search(embeddings, queries, k, exclude, seed=0):
    """The reference: all scores in torch, excluded and padding at -inf, one top-k."""
    scores = torch.from_numpy(queries) @ torch.from_numpy(embeddings).T
    scores[:, 0] = -torch.inf
    scores.scatter_(1, torch.from_numpy(exclude), -torch.inf)
    best, items = top_k(scores, torch.arange(len(embeddings)), k, seed)
    missing = k - best.shape[1]
    pad = torch.nn.functional.pad
    return pad(best, (0, missing), value=-torch.inf).numpy(), pad(items, (0, missing)).numpy()


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """For two passes, which search catalogues as small as most of these exactly."""
    monkeypatch.setattr(built, "_LEAST_DEPTH", 1)
    monkeypatch.setattr(built, "_LEAST_WANTED", 1)


def exclusions(index: CandidateIndex, exclude: np.ndarray) -> list[Exclusion]:
    return [index.exclusion(row) for row in exclude]


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(
        np.mean([len(np.intersect1d(f, t)) / len(t) for f, t in zip(found, true, strict=True)])
    )


@st.composite
def searches(draw):
    """Small-integer embeddings, exact in float32 and so rich in ties, with random exclusions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_items, num_queries = draw(st.integers(1, 40)), draw(st.integers(1, 30))
    dim, num_values = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    embeddings = rng.integers(-num_values, num_values + 1, (num_items + 1, dim)).astype(np.float32)
    queries = rng.integers(-num_values, num_values + 1, (num_queries, dim)).astype(np.float32)
    exclude = rng.integers(0, num_items + 1, (num_queries, draw(st.integers(0, 45))))
    k = draw(st.integers(1, 50))
    return embeddings, queries, k, exclude, draw(st.integers(0, 5))


@given(searches())
@settings(max_examples=200, deadline=None)
def test_flat_equals_exact_search_with_ties_and_exclusions(search):
    embeddings, queries, k, exclude, seed = search
    index = FlatIndexBuilder().build(embeddings)
    scores, item_idx = index.search(queries, k, exclusions(index, exclude), seed)
    true_scores, true_items = exact_search(embeddings, queries, k, exclude, seed)
    np.testing.assert_array_equal(item_idx, true_items)
    np.testing.assert_array_equal(scores, true_scores)
    assert scores.dtype == np.float32
    assert item_idx.dtype == np.int64


@given(searches(), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_recent_items_are_found_as_if_they_had_been_built_in(search, num_recent):
    embeddings, queries, k, exclude, seed = search
    num_built = max(len(embeddings) - num_recent, 1)
    before = FlatIndexBuilder().build(embeddings[:num_built])
    index = before.with_recent(embeddings[num_built:])
    found = index.search(queries, k, exclusions(index, exclude), seed)
    true = exact_search(embeddings, queries, k, exclude, seed)
    np.testing.assert_array_equal(found[1], true[1])
    np.testing.assert_array_equal(found[0], true[0])
    assert len(before) == num_built - 1
    assert (len(index), index.num_recent) == (len(embeddings) - 1, len(embeddings) - num_built)


@given(searches(), st.integers(0, 2**32 - 1), st.sampled_from([0, 5]))
@settings(max_examples=100, deadline=None)
def test_items_that_do_not_pass_are_excluded_too(search, mask_seed, num_recent):
    embeddings, queries, k, exclude, seed = search
    num_built = max(len(embeddings) - num_recent, 1)
    index = FlatIndexBuilder().build(embeddings[:num_built]).with_recent(embeddings[num_built:])
    passing = np.random.default_rng(mask_seed).random(len(embeddings)) < 0.5
    excluded = [index.exclusion(row, passing) for row in exclude]
    found = index.search(queries, k, excluded, seed)
    failing = np.tile(np.flatnonzero(~passing), (len(queries), 1))
    both = np.concatenate([exclude, failing], axis=1)
    np.testing.assert_array_equal(found[1], exact_search(embeddings, queries, k, both, seed)[1])


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("builder", BUILDERS)
def test_a_list_of_few_that_pass_is_full(builder: IndexBuilder):
    embeddings = clustered(1000)
    index = builder.build(embeddings[:801], sample).with_recent(embeddings[801:])
    passing = np.zeros(1001, bool)
    passing[[3, 500, 801, 1000]] = True
    excluded = index.exclusion(np.array([500]), passing)
    _, item_idx = index.search(embeddings[1:2], 4, [excluded])
    assert sorted(item_idx[0].tolist()) == [0, 3, 801, 1000]


@given(searches())
@settings(max_examples=50, deadline=None)
def test_hnsw_never_returns_excluded_items_nor_a_short_list(search):
    embeddings, queries, k, exclude, seed = search
    index = HnswIndexBuilder().build(embeddings)
    _, item_idx = index.search(queries, k, exclusions(index, exclude), seed)
    _, true_items = exact_search(embeddings, queries, k, exclude, seed)
    np.testing.assert_array_equal((item_idx > 0).sum(1), (true_items > 0).sum(1))
    for row, left_out in zip(item_idx, exclude, strict=True):
        real = row[row > 0]
        assert len(np.unique(real)) == len(real)
        assert not np.isin(real, left_out).any()


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("builder", BUILDERS)
def test_many_exclusions_still_fill_the_list(builder: IndexBuilder):
    embeddings = clustered(1000)
    index = builder.build(embeddings, sample)
    queries = embeddings[1:9]
    exclude = np.argsort(-queries @ embeddings.T, axis=1)[:, :700].astype(np.int64)
    scores, item_idx = index.search(queries, 250, exclusions(index, exclude))
    assert (item_idx > 0).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert not any(np.isin(item_idx[row], exclude[row]).any() for row in range(8))


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("builder", BUILDERS)
def test_k_beyond_the_catalogue_returns_every_item_once(builder: IndexBuilder):
    index = builder.build(clustered(700), sample)
    scores, item_idx = index.search(clustered(3, seed=1)[1:], 900)
    assert (np.sort(item_idx, axis=1)[:, 200:] == np.arange(1, 701)).all()
    assert (item_idx[:, 700:] == 0).all()
    assert (scores[:, 700:] == -np.inf).all()


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("builder", BUILDERS)
def test_a_list_does_not_depend_on_its_batch(builder: IndexBuilder):
    embeddings = clustered(1000)
    index = builder.build(embeddings, sample)
    queries = clustered(64, seed=2)[1:]
    scores, item_idx = index.search(queries, 20)
    alone = [index.search(query[None], 20) for query in queries]
    np.testing.assert_array_equal(item_idx, np.vstack([items for _, items in alone]))
    np.testing.assert_array_equal(scores, np.vstack([score for score, _ in alone]))


def test_equal_embeddings_tie_and_are_ordered_by_the_seeded_hash():
    embeddings = np.repeat(clustered(1, dim=33)[1:], 501, axis=0)
    index = FlatIndexBuilder().build(embeddings)
    firsts = {int(index.search(embeddings[:1], 1, seed=seed)[1][0, 0]) for seed in range(20)}
    assert len(firsts) > 10


def test_hnsw_finds_what_flat_finds():
    embeddings, queries = clustered(5000), clustered(200, seed=0)[1:]
    _, true_items = FlatIndexBuilder().build(embeddings).search(queries, 100)
    index = HnswIndexBuilder().build(embeddings)
    assert not index.exact
    assert recall(index.search(queries, 100)[1], true_items) >= 0.95


def test_ivfpq_finds_most_of_what_flat_finds():
    embeddings, queries = clustered(5000), clustered(200, seed=0)[1:]
    _, true_items = FlatIndexBuilder().build(embeddings).search(queries, 100)
    index = IvfPqIndexBuilder(num_subvectors=16).build(embeddings)
    assert recall(index.search(queries, 100)[1], true_items) >= 0.7


@pytest.mark.parametrize("width", [8, 33, 150])
def test_two_passes_find_nearly_all_that_flat_finds(width: int):
    embeddings = clustered(20_000, width)
    index = AutoIndexBuilder(exact_up_to=0).build(embeddings, lambda: clustered(600, width)[1:])
    assert isinstance(index._built, TwoPassIndex)
    # Others than those that the index was fitted and measured by.
    queries = clustered(800, width)[601:]
    flat = FlatIndexBuilder().build(embeddings)
    exclude = np.random.default_rng(0).integers(0, 20_001, (200, 50))
    true_scores, true_items = flat.search(queries, 200, exclusions(flat, exclude))
    scores, item_idx = index.search(queries, 200, exclusions(index, exclude))
    assert recall(item_idx, true_items) >= 0.98
    assert np.isclose(scores[:, 0], true_scores[:, 0], rtol=1e-5).mean() >= 0.99
    products = np.einsum("qd,qkd->qk", queries, embeddings[item_idx])
    np.testing.assert_allclose(scores, products, rtol=1e-4, atol=1e-4)


def test_two_passes_find_short_lists_as_well():
    embeddings = clustered(20_000)
    index = AutoIndexBuilder(exact_up_to=0).build(embeddings, lambda: clustered(600)[1:])
    queries = clustered(1_600)[601:]
    flat = FlatIndexBuilder().build(embeddings)
    for k in (1, 10):
        true = flat.search(queries, k)[1]
        assert recall(index.search(queries, k)[1], true) >= 0.995


@pytest.mark.usefixtures("few_are_enough")
def test_two_passes_of_few_items_are_two(monkeypatch: pytest.MonkeyPatch):
    """Which makes what is asked of all builders above be asked of them, too."""
    embeddings, passes = clustered(700), []
    index = AutoIndexBuilder(exact_up_to=0).build(embeddings, sample)
    twice = TwoPassIndex._twice

    def counted(self: TwoPassIndex, *told: Any) -> Found:
        passes.append(told)
        return twice(self, *told)

    monkeypatch.setattr(TwoPassIndex, "_twice", counted)
    index.search(embeddings[1:9], 10)
    assert passes


def test_two_passes_of_one_query_and_of_many_are_the_same():
    embeddings = clustered(6_000, 150)
    index = AutoIndexBuilder(exact_up_to=0).build(embeddings, lambda: clustered(600, 150)[1:])
    queries = clustered(700, 150)[601:]
    together = index.search(queries, 50)
    alone = [index.search(query[None], 50) for query in queries]
    np.testing.assert_array_equal(np.concatenate([scores for scores, _ in alone]), together[0])
    np.testing.assert_array_equal(np.concatenate([items for _, items in alone]), together[1])


def test_vectors_that_spread_over_many_directions_get_more_codes(caplog: pytest.LogCaptureFixture):
    rng = np.random.default_rng(0)
    items = rng.normal(size=(5_001, 400)).astype(np.float32)
    queries = rng.normal(size=(1_600, 400)).astype(np.float32)
    with caplog.at_level(logging.INFO, "recsys.index.two_pass"):
        index = AutoIndexBuilder(exact_up_to=0).build(items, lambda: queries)
    assert isinstance(index._built, TwoPassIndex)
    found = re.search(r"index: (\d+) codes", caplog.text)
    assert found is not None
    assert int(found[1]) > 128


def test_no_more_is_scored_again_than_finds_enough(caplog: pytest.LogCaptureFixture):
    embeddings = clustered(20_000, 33)
    with caplog.at_level(logging.INFO, "recsys.index.two_pass"):
        AutoIndexBuilder(exact_up_to=0).build(embeddings, lambda: clustered(600, 33)[1:])
    found = re.search(r"([\d.]+) times .* finds ([\d.]+)%", caplog.text)
    assert found is not None
    assert 99.0 <= float(found[2]) <= 99.4
    assert 1 < float(found[1]) < 8


@pytest.mark.parametrize("target", [0.5, 0.8, 1.0])
def test_any_share_can_be_asked_for(target: float) -> None:
    embeddings = clustered(3_000, 16)
    builder = AutoIndexBuilder(exact_up_to=0, recall=target)
    index = builder.build(embeddings, lambda: clustered(600, 16)[1:])
    _, true = FlatIndexBuilder().build(embeddings).search(clustered(700, 16)[601:], 200)
    found = index.search(clustered(700, 16)[601:], 200)[1]
    assert (found > 0).all()
    assert recall(found, true) >= target - 0.02


def test_one_history_is_too_few_to_fit_codes():
    index = AutoIndexBuilder(exact_up_to=0).build(clustered(2_000), lambda: clustered(1)[1:])
    assert index.exact


def test_two_passes_fit_the_queries_that_come():
    """Directions in which items differ most, and of which no query asks, cost no codes."""
    rng = np.random.default_rng(0)
    items = rng.normal(scale=np.repeat([1.0, 8.0], [8, 32]), size=(5_000, 40)).astype(np.float32)
    spread = np.repeat([1.0, 1e-3], [8, 32])
    queries = rng.normal(scale=spread, size=(700, 40)).astype(np.float32)
    codes = fit_codes(items, queries[:600], 8)
    nearest = np.abs(codes.values[:, :, None] - codes.levels).argmin(axis=2)
    coded = np.take_along_axis(codes.levels, nearest.T, axis=1).T
    exact = queries[600:] @ items.T
    near = queries[600:] @ codes.of_queries @ coded.T
    together = [np.corrcoef(*pair)[0, 1] for pair in zip(exact, near, strict=True)]
    assert min(together) > 0.95


def test_a_leading_direction_gets_several_codes():
    rng = np.random.default_rng(0)
    items = rng.normal(scale=[10.0, 1.0, 1.0], size=(5_000, 3)).astype(np.float32)
    queries = rng.normal(size=(700, 3)).astype(np.float32)
    codes = fit_codes(items, queries, 4)
    directions = np.abs(codes.of_queries) / np.linalg.norm(codes.of_queries, axis=0)
    assert (directions[0] > 0.9).sum() == 2


def test_more_codes_err_less_where_few_items_are_far_from_all_others():
    """As in real catalogues: of most directions, most items have next to nothing."""
    rng = np.random.default_rng(0)
    items = (rng.normal(size=(5_000, 24)) * (rng.random((5_000, 24)) < 0.02)).astype(np.float32)
    items += rng.normal(scale=1e-3, size=items.shape).astype(np.float32)
    queries = rng.normal(size=(700, 24)).astype(np.float32)
    exact = queries @ (items - items.mean(axis=0)).T
    codes, errors = fit_codes(items, queries, 96), []
    for part in map(codes.first, (24, 48, 96)):
        nearest = np.abs(part.values[:, :, None] - part.levels).argmin(axis=2)
        coded = np.take_along_axis(part.levels, nearest.T, axis=1).T
        errors.append(np.square(queries @ part.of_queries @ coded.T - exact).mean())
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 0.1 * errors[1]


def test_codes_of_equal_items_are_no_error():
    codes = fit_codes(np.ones((700, 3), np.float32), clustered(50, 3)[1:], 64)
    assert np.isfinite(codes.values).all()


def test_two_passes_that_find_too_little_give_way_to_exact_search(caplog):
    with caplog.at_level(logging.INFO, "recsys.index.two_pass"):
        index = AutoIndexBuilder(exact_up_to=0, recall=1.0, depth=10).build(
            np.random.default_rng(0).normal(size=(2_001, 1_200)).astype(np.float32),
            lambda: np.random.default_rng(1).normal(size=(2_600, 1_200)).astype(np.float32),
        )
    assert index.exact
    assert "fewer than 100.0%: exact search instead" in caplog.text


def test_a_small_catalogue_is_searched_exactly_without_a_sample_of_queries():
    def never() -> np.ndarray:
        raise AssertionError("queries were asked for")

    assert AutoIndexBuilder(exact_up_to=1_000).build(clustered(1_000), never).exact


def test_ivfpq_lowers_its_parameters_to_a_small_catalogue(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "recsys.index.builders"):
        index = IvfPqIndexBuilder(num_lists=500, num_subvectors=8).build(clustered(700))
    assert "700 items train 17 lists (not 500) and 4-bit codes (configured: 8)" in caplog.text
    assert len(index) == 700


@pytest.mark.parametrize(
    ("builder", "num_items", "message"),
    [
        (IvfPqIndexBuilder(num_subvectors=8), 623, "found 623 items; set index=flat"),
        (IvfPqIndexBuilder(num_subvectors=5), 700, r"to one of \[1, 2, 4, 8, 16, 32\]"),
        (IvfPqIndexBuilder(num_subvectors=8, code_bits=12), 700, "set index.code_bits=8"),
        (AutoIndexBuilder(exact_up_to=0), 623, "found 623 items; set index=flat"),
    ],
)
def test_an_index_that_does_not_fit_says_what_to_set(
    builder: IndexBuilder, num_items: int, message: str
):
    with pytest.raises(InputError, match=message):
        builder.build(clustered(num_items), sample)


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("builder", BUILDERS)
def test_saved_index_answers_the_same(builder: IndexBuilder, tmp_path: Path):
    index, queries = builder.build(clustered(1000), sample), clustered(30, seed=3)[1:]
    index.save(tmp_path / "index.faiss")
    loaded = CandidateIndex.load(tmp_path / "index.faiss")
    assert (len(loaded), loaded.dim, loaded.exact) == (1000, 32, index.exact)
    for before, after in zip(index.search(queries, 9), loaded.search(queries, 9), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("builder", BUILDERS)
def test_same_embeddings_give_the_same_file(builder: IndexBuilder, tmp_path: Path):
    for name in "ab":
        builder.build(clustered(1000), sample).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("kept", [0, 3, 100, 5000])
def test_truncated_file_is_refused(builder: IndexBuilder, kept: int, tmp_path: Path):
    path = tmp_path / "index.faiss"
    builder.build(clustered(1000), sample).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"expected a FAISS index in .*faiss; found a file"):
        CandidateIndex.load(path)


def test_index_of_another_similarity_is_refused(tmp_path: Path):
    faiss.write_index(faiss.IndexFlatL2(4), str(tmp_path / "index.faiss"))
    with pytest.raises(InputError, match="expected an inner-product index"):
        CandidateIndex.load(tmp_path / "index.faiss")


def test_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="found no such file"):
        CandidateIndex.load(tmp_path / "index.faiss")


def test_non_finite_embeddings_and_queries_are_refused():
    embeddings = clustered(10)
    index = FlatIndexBuilder().build(embeddings)
    embeddings[4] = np.nan
    with pytest.raises(InputError, match="found 1 of 10 with NaN"):
        FlatIndexBuilder().build(embeddings)
    with pytest.raises(ValueError, match="finite"):
        index.search(embeddings[4:5], 3)


@pytest.mark.parametrize(
    ("queries", "k", "exclude"),
    [
        (np.zeros((2, 31), np.float32), 5, None),
        (np.zeros((2, 32), np.float32), 0, None),
        (np.zeros((2, 32), np.float32), 5, np.zeros((3, 1), np.int64)),
        (np.zeros((2, 32), np.float32), 5, np.zeros((0, 1), np.int64)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(queries, k, exclude):
    index = FlatIndexBuilder().build(clustered(10))
    with pytest.raises(ValueError):
        index.search(queries, k, None if exclude is None else exclusions(index, exclude))


def test_no_queries_and_no_items_are_fine():
    index = FlatIndexBuilder().build(clustered(10))
    assert index.search(np.zeros((0, 32), np.float32), 4)[1].shape == (0, 4)
    empty = FlatIndexBuilder().build(clustered(0))
    assert (empty.search(np.zeros((2, 32), np.float32), 4)[1] == 0).all()


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_builds_a_working_index(config: Path):
    index = instantiate(OmegaConf.load(config)).build(clustered(1000), sample)
    assert index.search(clustered(3)[1:], 5)[1].shape == (3, 5)


@given(
    found=st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=1, max_size=4),
    excluded=st.lists(st.integers(1, 9), max_size=5),
    number=st.integers(1, 8),
)
def test_first_allowed_are_in_order_and_none_is_excluded(
    found: list[list[int]], excluded: list[int], number: int
):
    exclude = [Exclusion(np.array(excluded, np.int64))] * len(found)
    first = first_allowed(np.array(found), exclude, number)
    for row, own in zip(first.tolist(), found, strict=True):
        allowed = [item for item in own if item > 0 and item not in excluded][:number]
        assert row == allowed + [0] * (number - len(allowed))
