"""The ablation: validation rows stay out of training, and variants differ in one part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import ablation, ablation_unit
from benchmarks.ablation_tables import markdown, results_table, summarize
from benchmarks.ablation_unit import METRICS, measure, stage2_rankings, tower_rankings
from benchmarks.ablation_variants import (
    FULL,
    NUM_HELD_OUT,
    TEXT_SHUFFLED,
    WITHOUT_TEXT,
    Variant,
    carve_validation,
    stage1_variants,
    stage2_recipes,
    texts,
)
from benchmarks.harness import Setting, load_setting
from benchmarks.quality_tables import Unit
from benchmarks.synthetic_bundle import Size, write_bundle
from recsys.artifact import build_cross_encoder
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.signals.list_signals import signal_names
from recsys.training.item_regression import ItemRegression

QUICK = ["data=sample", "retrieval.epochs=1", "retrieval.validate_every=1"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """The sample with random vectors in place of its texts': what matters here is where they go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "recsys.text.cache.EmbeddingCache.encode",
            lambda self, encoder, texts, done=None: (
                np.random.default_rng(0).normal(size=(len(texts), 6)).astype(np.float32)
            ),
        )
        return load_setting([*QUICK, "reranking.num_folds=2"])


@pytest.fixture(scope="module")
def full(setting: Setting) -> Variant:
    data, _ = carve_validation(setting.data, seed=0)
    return Variant(setting.recipe(0, stage2=True), data, setting.text)


def test_validation_rows_are_training_rows_that_training_no_longer_has(data) -> None:
    carved, targets = carve_validation(data, seed=3)
    before = set(zip(data.train.user_idx, data.train.item_idx, strict=True))
    left = set(zip(carved.train.user_idx, carved.train.item_idx, strict=True))
    users = targets.user_idx[targets.rows.numpy()]
    held_out = set(zip(users, targets.items.numpy(), strict=True))
    assert len(held_out) == len(targets.items) == 40 * NUM_HELD_OUT
    assert left.isdisjoint(held_out)
    assert left | held_out == before
    assert targets.num_relevant.tolist() == [NUM_HELD_OUT] * 40


def test_neither_test_nor_training_frame_is_handed_on(data) -> None:
    carved, _ = carve_validation(data, seed=0)
    assert not len(carved.split.train)
    assert not len(carved.split.test)
    assert carved.fingerprint != data.fingerprint


def test_half_of_a_short_history_is_the_most_that_is_held_out(data) -> None:
    short = replace(data, train=data.train.select(data.train.random_ranks(_rng()) < 5))
    _, targets = carve_validation(short, seed=0)
    assert targets.num_relevant.tolist() == [2] * 40


def test_draws_of_validation_rows_differ_by_seed_alone(data) -> None:
    first, again, other = (carve_validation(data, seed)[1].items for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_shuffled_text_is_a_permutation_of_the_items_vectors(full: Variant) -> None:
    text, others = full.text, texts(full.text, seed=0)
    shuffled = others[TEXT_SHUFFLED]
    assert not shuffled[0].any()
    assert sorted(shuffled[1:].tolist()) == sorted(text[1:].tolist())
    assert (shuffled[1:] == text[1:]).all(dim=1).float().mean() < 0.05
    assert not others[WITHOUT_TEXT].any()
    assert text.any()


def test_where_the_split_holds_out_the_latest_row_so_does_validation(data) -> None:
    split = replace(data.split, name="leave_last")
    carved, targets = carve_validation(replace(data, split=split), seed=0)
    train = data.train
    assert targets.items.tolist() == train.item_idx[train.offsets[2:] - 1].tolist()
    assert (train.lengths[1:] - carved.train.lengths[1:] == 1).all()


def test_stage1_variants_lack_one_part_each(full: Variant) -> None:
    full = replace(full, data=with_attributes(full))
    variants = stage1_variants(full, seed=0)
    assert next(iter(variants)) == FULL
    weights = {
        name: next(
            (goal.session_weight, goal.content_weight)
            for goal in variant.recipe.retrieval.objectives
            if isinstance(goal, ItemRegression)
        )
        for name, variant in variants.items()
    }
    sessions, content = weights[FULL]
    assert sessions > 0
    assert content > 0
    assert weights["without sessions"] == (0.0, content)
    assert weights["without content similarity"] == (sessions, 0.0)
    widths = {name: variant.data.train.context.shape for name, variant in variants.items()}
    rows = full.data.train.num_users + 1
    assert widths.pop("without user attributes") == (rows, 0)
    assert set(widths.values()) == {(rows, 3)}


def test_a_part_that_is_not_there_is_no_variant(full: Variant) -> None:
    goals = [g for g in full.recipe.retrieval.objectives if not isinstance(g, ItemRegression)]
    retrieval = replace(full.recipe.retrieval, objectives=goals)
    bare = Variant(replace(full.recipe, retrieval=retrieval), without_context(full), full.text)
    assert list(stage1_variants(bare, seed=0)) == [FULL, TEXT_SHUFFLED, WITHOUT_TEXT]


def test_stage2_recipes_change_one_setting_each(full: Variant) -> None:
    recipe = full.recipe
    encoders = {
        name: dict(changed.reranking.cross_encoder)
        for name, changed in stage2_recipes(recipe).items()
    }
    own = dict(recipe.reranking.cross_encoder)
    assert encoders == {
        "64 wide, 4 heads": {**own, "dim": 64, "num_heads": 4},
        "without attention to the history": {**own, "num_layers": 0},
        "without products of texts": {**own, "products": False},
        "without averaged weights": own,
    }


def test_stage2_variants_share_one_stage1_and_its_lists(
    full: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def record(name: str, result: object):
        def call(*_: object) -> object:
            calls.append(name)
            return result

        return call

    monkeypatch.setattr(ablation_unit, "write_stage1", record("stage1", Path("stage1")))
    monkeypatch.setattr(ablation_unit, "candidate_lists", record("lists", []))
    monkeypatch.setattr(ablation_unit, "write_stage2", record("stage2", Path("stage2")))
    monkeypatch.setattr(ablation_unit._Stage2, "_served", lambda *_, **__: torch.zeros(1, 1))
    monkeypatch.setattr(ablation_unit._Stage2, "with_text", lambda self, _: self)
    rankings = stage2_rankings(full, None, seed=0)
    assert calls.count("stage1") == calls.count("lists") == 1
    assert calls.count("stage2") == len(rankings) - 1
    assert {TEXT_SHUFFLED, WITHOUT_TEXT, ablation_unit.SCORES_ALONE} < set(rankings)


def test_other_text_changes_stage2_and_not_the_lists_of_stage1(
    full: Variant, tmp_path: Path
) -> None:
    targets = carve_validation(full.data, 0)[1]
    bench = ablation_unit._Stage2(full, targets, tmp_path)
    other = bench.with_text(texts(full.text, seed=0)[TEXT_SHUFFLED])
    assert bench.stage1_ranking().equal(other.stage1_ranking())
    for own, changed in zip(bench.lists, other.lists, strict=True):
        assert own.candidates is changed.candidates
        before, after = (one.extractor.relations.vectors for one in (own, changed))
        width = own.extractor.relations.width
        assert before[:, :-width].equal(after[:, :-width])
        assert not before[:, -width:].equal(after[:, -width:])


def test_without_signals_a_score_follows_stage_1s_alone() -> None:
    signals = torch.randn(50, len(signal_names(2)))
    with ablation_unit.stage1_scores_alone():
        model = build_cross_encoder({}, 2, 4)
        model.fit_statistics(signals, torch.rand(9), torch.randn(9, 3), 9)
    assert model.signal_scale.bool().tolist() == [
        name.startswith("score") for name in signal_names(2)
    ]


def test_a_tower_alone_is_ranked_by_its_own_scores(data, monkeypatch, tmp_path: Path) -> None:
    recommender = Recommender.load(write_bundle(Size(300, 40), tmp_path))
    model = recommender.artifact.two_tower
    fitted, history = model.scales.clone(), recommender.histories.batch([Request(5, user_id=7)])

    def queries(asked: Recommender) -> tuple[torch.Tensor, ...]:
        return torch.split(asked.retriever.encode(history), model.embedding_dims, dim=1)

    served = []
    monkeypatch.setattr(
        ablation_unit, "served_ranking", lambda alone, *_, **__: served.append(queries(alone))
    )
    towers = [f"{number}." for number in range(len(model.members))]
    names = list(tower_rankings(recommender, towers, Variant(None, data, None), None))
    assert names == [f"{tower} tower alone" for tower in towers]
    whole = queries(recommender)
    assert len(whole) > 1
    for number, parts in enumerate(served):
        for place, part in enumerate(parts):
            expected = whole[place] if place == number else torch.zeros_like(part)
            torch.testing.assert_close(part, expected)
    assert torch.equal(model.scales, fitted)


def draw(seed: int, gap: float, users: int = 9) -> Unit:
    """Without its part the model loses ``gap`` for every user."""
    values = np.random.default_rng(seed).random((users, len(METRICS))) / 2 + 0.3
    content = {"n_users": users, "metrics": list(METRICS)}
    return Unit(content, {FULL: values, "without a part": values - gap})


def test_means_are_over_draws_and_differences_over_users() -> None:
    summary = summarize([draw(0, 0.1), draw(1, 0.2)])
    variants = summary["variants"]
    assert variants[FULL]["ndcg@10"] - variants["without a part"]["ndcg@10"] == pytest.approx(0.15)
    found = summary["differences"]["without a part"]["recall@100"]
    assert found == pytest.approx({"mean": -0.15, "low": -0.15, "high": -0.15})
    assert FULL not in summary["differences"]


def test_draws_of_other_users_are_refused() -> None:
    with pytest.raises(ValueError, match="same users"):
        summarize([draw(0, 0.1), draw(1, 0.1, users=5)])


def test_tables_hold_every_variant_and_figure() -> None:
    summary = summarize([draw(0, 0.1), draw(1, 0.2)])
    content = {
        "machine": {"processor": "x", "cores": 2, "commit": "c", "versions": {"torch": "1"}},
        "dataset": "tiny",
        "split": "ua",
        "protocol": "a test",
        "overrides": ["seed=7"],
        "stages": {"stage1": summary, "stage2": summary},
    }
    text = markdown(content)
    assert text.count("| without a part |") == 2
    assert "| -0.1500 | -0.1500 to -0.1500 |" in text
    assert f"{summary['variants'][FULL]['recall@10']:.4f}" in text
    assert "`seed=7`" in text
    assert list(results_table("stage1", summary).columns[0].cells) == [FULL, "without a part"]


def test_a_draw_is_kept_by_stage_seed_and_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def run_once(name, script, arguments, code, runs) -> Path:
        seen.append((name, arguments))
        return tmp_path

    monkeypatch.setattr(ablation, "run_once", run_once)
    monkeypatch.setattr(ablation.Unit, "load", lambda folder: draw(0, 0.1))
    for stage in ("stage1", "stage2"):
        ablation.run_draw(stage, 4, ["data=sample"], tmp_path)
    assert seen == [
        ("stage1-4", ["--no-stage2", "--seed", "4", "data=sample"]),
        ("stage2-4", ["--stage2", "--seed", "4", "data=sample"]),
    ]


def test_the_code_that_a_draw_depends_on_exists() -> None:
    assert all((ablation.ROOT / name).is_file() for name in ablation.CODE)


def test_a_draw_of_stage1_measures_all_variants(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation_unit, "load_setting", lambda _: setting)
    measure(QUICK, 0, tmp_path, stage2=False)
    unit = Unit.load(tmp_path)
    assert list(unit.per_user)[:3] == [FULL, TEXT_SHUFFLED, WITHOUT_TEXT]
    assert {"linear tower alone", "content tower alone"} < set(unit.per_user)
    assert all(values.shape == (300, len(METRICS)) for values in unit.per_user.values())
    full = unit.per_user[FULL]
    assert full[:, 0].mean() > 0.1
    assert all((v != full).any() for name, v in unit.per_user.items() if name != FULL)


def with_attributes(full: Variant):
    data = full.data
    context = np.ones((data.train.num_users + 1, 3), dtype=np.float32)
    return replace(data, train=replace(data.train, context=context))


def without_context(full: Variant):
    train = full.data.train
    return replace(full.data, train=replace(train, context=train.context[:, :0]))


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)
