"""A bundle serves after loading as it would have before saving, and says clearly when it cannot."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import recsys.artifact
from recsys.artifact import Artifact, Stage2, build_cross_encoder, load_artifact, save_artifact
from recsys.errors import InputError
from recsys.index import CandidateIndex
from recsys.index.builders import FlatIndexBuilder
from recsys.models.history_weights import EventCounting
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.schema import ExternalId
from tests.conftest import RANK, write_untrained_bundle

KINDS = {
    "integers": ([7, 3, 9, 12], list(range(500, 470, -1))),
    "strings": (["zoë", "7", "a b"], [f"i/{n}" for n in range(25)]),
}


@pytest.fixture(params=KINDS)
def ids(request: pytest.FixtureRequest) -> tuple[list[ExternalId], list[ExternalId]]:
    return KINDS[request.param]


def saved(root: Path, artifact: Artifact, **changes: Any) -> Path:
    parts = {
        name: getattr(artifact, name)
        for name in (
            *("manifest", "users", "items", "user_frame", "item_frame", "histories"),
            *("text", "attributes", "two_tower", "index", "stage2"),
        )
    }
    return save_artifact(root, "copy", **(parts | changes))


@pytest.fixture
def artifact(untrained_bundle: Path) -> Artifact:
    return load_artifact(untrained_bundle)


@pytest.mark.parametrize("stage2", [True, False])
def test_lists_are_the_same_before_saving_and_after_loading(ids, stage2, tmp_path: Path) -> None:
    user_ids, item_ids = ids
    built = load_artifact(write_untrained_bundle(tmp_path, user_ids, item_ids, stage2=stage2))
    # Weights that no initialisation makes: what is not stored would come back different.
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        models = [built.two_tower, *([built.stage2.cross_encoder] if built.stage2 else [])]
        for parameter in (p for model in models for p in model.parameters()):
            parameter.add_(torch.rand(parameter.shape, generator=generator))
        built.two_tower.scales.fill_(2.5)
    embeddings = built.two_tower.all_candidates().detach().numpy()
    before = replace(built, index=FlatIndexBuilder().build(embeddings))
    if before.stage2 is not None:  # the exported form is of the weights as they were
        before = replace(before, stage2=replace(before.stage2, graph=None))
    after = load_artifact(saved(tmp_path, before))

    requests = [
        *(Request(top_k=9, user_id=user_id) for user_id in (*user_ids, None)),
        Request(top_k=50, history=item_ids[:3], exclude=item_ids[5:9]),
    ]
    expected = Recommender(before).recommend(requests)
    for one, other in zip(expected, Recommender(after).recommend(requests), strict=True):
        assert one.item_ids == other.item_ids
        assert one.source == other.source
        np.testing.assert_allclose(one.scores, other.scores, rtol=2e-3)
    assert {answer.source for answer in expected} == {
        "popular",
        "reranked" if stage2 else "retrieved",
    }


def test_everything_else_comes_back_too(artifact: Artifact, tmp_path: Path) -> None:
    after = load_artifact(saved(tmp_path, artifact))
    assert after.items.ids.tolist() == artifact.items.ids.tolist()
    assert after.users.content_hash() == artifact.users.content_hash()
    assert after.item_frame.equals(artifact.item_frame)
    pd.testing.assert_frame_equal(after.user_frame, artifact.user_frame)
    assert np.isnan(after.histories.ratings).mean() == 0.25
    for name in ("offsets", "item_idx", "timestamps", "ratings"):
        np.testing.assert_array_equal(
            getattr(after.histories, name), getattr(artifact.histories, name)
        )
    assert torch.equal(after.text, artifact.text)
    assert torch.equal(after.attributes, artifact.attributes)
    assert after.num_candidates == 12
    assert after.max_query_history == 100
    assert after.stage2 is not None
    assert after.stage2.extractor.max_history == 4
    relations, before = after.stage2.extractor.relations, artifact.stage2
    assert before is not None
    assert torch.equal(relations.vectors, before.extractor.relations.vectors)
    assert torch.equal(relations.signs, before.extractor.relations.signs)
    assert torch.equal(after.stage2.reduction.components, before.reduction.components)
    assert not after.two_tower.training
    assert not after.stage2.cross_encoder.training


def test_a_stage_1_bundle_has_no_re_ranker(string_id_bundle: Path) -> None:
    assert load_artifact(string_id_bundle).stage2 is None
    assert not (string_id_bundle / "cross_encoder.safetensors").exists()


def test_the_manifest_says_how_large_everything_is(untrained_bundle: Path) -> None:
    manifest = json.loads((untrained_bundle / "manifest.json").read_text())
    sizes = {key: manifest[key] for key in ("num_users", "num_items", "text_dim")}
    assert sizes == {"num_users": 90, "num_items": 30, "text_dim": 6}
    assert manifest["embedding_dim"] == 8 + 1


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update(text_dim=7),
        lambda m: m.update(num_candidates=999),
        lambda m: m["towers"][0].update(dim=16),
        lambda m: m["vocabularies"].update(users="0" * 64),
        lambda m: m.update(cross_encoder=None),
    ],
)
def test_an_edited_manifest_is_refused(
    edit: Callable[[dict[str, Any]], None], artifact: Artifact, tmp_path: Path
) -> None:
    bundle = saved(tmp_path, artifact)
    manifest = json.loads((bundle / "manifest.json").read_text())
    edit(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json"):
        load_artifact(bundle)


def test_weights_that_do_not_fit_their_config_are_refused(
    artifact: Artifact, tmp_path: Path
) -> None:
    towers = [artifact.manifest["towers"][0] | {"dim": 16}]
    bundle = saved(tmp_path, artifact, manifest=artifact.manifest | {"towers": towers})
    with pytest.raises(InputError, match=r"two_tower.*size mismatch.*train") as refused:
        load_artifact(bundle)
    assert "\n" not in str(refused.value)


def test_a_config_of_another_model_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    encoder = artifact.manifest["cross_encoder"] | {"num_experts": 3}
    bundle = saved(tmp_path, artifact, manifest=artifact.manifest | {"cross_encoder": encoder})
    with pytest.raises(InputError, match=r"cross_encoder.*num_experts"):
        load_artifact(bundle)


@pytest.mark.parametrize("key", ["max_query_history", "num_candidates", "max_history"])
def test_a_bundle_of_code_that_knew_less_is_refused(
    key: str, artifact: Artifact, tmp_path: Path
) -> None:
    manifest = {name: value for name, value in artifact.manifest.items() if name != key}
    with pytest.raises(InputError, match=key):
        load_artifact(saved(tmp_path, artifact, manifest=manifest))


ABSURD = [
    ("num_candidates", 10**12),
    ("num_candidates", 0),
    ("num_candidates", "200"),
    ("num_candidates", True),
    ("max_query_history", 10**12),
    ("max_history", -1),
    ("max_history", 10**9),
    ("towers", []),
    ("towers", [{}] * 17),
    ("towers", {"dim": 8}),
    ("towers", "dim"),
    ("towers/0/dim", 10**9),
    ("towers/0/dim", 16_000),
    ("towers/0/hidden_dim", 60_000),
    ("towers/0/dropout", 2),
    ("towers/0/length_exponent", "half"),
    ("towers/0/_target_", "os.system"),
    ("cross_encoder", [1]),
    ("cross_encoder/dim", 10**9),
    ("cross_encoder/dim", 4_096),
    ("cross_encoder/num_heads", 3),
    ("cross_encoder/num_layers", 10**9),
    ("cross_encoder/num_layers", 64),
    ("cross_encoder/strengths", 1),
    ("cross_encoder/strengths", True),
    ("strength_exponent", -0.5),
    ("strength_exponent", 1e9),
    ("strength_exponent", "half"),
    ("strength_exponent", None),
    ("user_attributes", ["x" * 10**5]),
    ("item_attributes", 5),
]


@pytest.fixture(scope="module")
def copied_bundle(untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests to change the manifest of."""
    copied = tmp_path_factory.mktemp("copied") / "untrained"
    shutil.copytree(untrained_bundle, copied)
    return copied


def vouched(bundle: Path, manifest: dict[str, Any]) -> Path:
    """The bundle with another manifest, whose digest is right."""
    kept = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    content = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
    digest = {"manifest_sha256": hashlib.sha256(content.encode()).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(kept | digest))
    return bundle


@pytest.mark.parametrize(("path", "value"), ABSURD)
def test_models_larger_than_their_files_are_refused_before_they_are_built(
    path: str,
    value: object,
    untrained_bundle: Path,
    copied_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest = json.loads((untrained_bundle / "manifest.json").read_text())
    *parents, last = path.split("/")
    node: Any = manifest
    for name in parents:
        node = node[int(name)] if name.isdecimal() else node[name]
    node[last] = value
    sizes = []
    real = torch.nn.Parameter.__new__

    def counted(cls: type, data: torch.Tensor, *rest: Any, **named: Any) -> Any:
        sizes.append(0 if data.is_meta else data.numel())
        return real(cls, data, *rest, **named)

    monkeypatch.setattr(torch.nn.Parameter, "__new__", counted)
    with pytest.raises(InputError) as refused:
        load_artifact(vouched(copied_bundle, manifest))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000
    assert max(sizes, default=0) < 10_000


def changed(array: np.ndarray, at: int, value: int) -> np.ndarray:
    other = array.copy()
    other[at] = value
    return other


@pytest.mark.parametrize(
    "change",
    [
        lambda h: {"offsets": changed(h.offsets, -1, 10**12)},
        lambda h: {"offsets": changed(h.offsets, 5, -1)},
        lambda h: {"offsets": changed(h.offsets, 1, 4)},
        lambda h: {"offsets": h.offsets.astype(np.float64)},
        lambda h: {"item_idx": changed(h.item_idx, 0, 31)},
        lambda h: {"item_idx": changed(h.item_idx, 0, 0)},
        lambda h: {"item_idx": changed(h.item_idx, 0, -5)},
        lambda h: {"timestamps": h.timestamps[:-1]},
        lambda h: {"ratings": h.ratings[:, None]},
        lambda h: {"context": h.context[:-1]},
    ],
)
def test_histories_that_point_elsewhere_are_refused(
    change: Callable[[Any], dict[str, Any]], artifact: Artifact
) -> None:
    """Looked up unchecked, they would take memory, or end requests in a traceback."""
    with pytest.raises(ValueError):
        replace(artifact.histories, **change(artifact.histories)).check(30)
    artifact.histories.check(30)


def test_a_bundle_of_such_histories_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    offsets = changed(artifact.histories.offsets, -1, 10**12)
    histories = replace(artifact.histories, offsets=offsets)
    changes = {"manifest": artifact.manifest | {"cross_encoder": None}, "stage2": None}
    with pytest.raises(InputError, match="table of histories"):
        load_artifact(saved(tmp_path, artifact, histories=histories, **changes))


def flat(num_items: int, dim: int) -> CandidateIndex:
    return FlatIndexBuilder().build(np.ones((num_items + 1, dim), np.float32))


def without_last_item(artifact: Artifact) -> dict[str, Any]:
    return {"item_frame": artifact.item_frame.iloc[:-1]}


def without_last_user(artifact: Artifact) -> dict[str, Any]:
    histories = artifact.histories
    return {"histories": replace(histories, offsets=histories.offsets[:-1])}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda _: {"index": flat(29, 9)}, "items in the index: 30; found 29"),
        (lambda _: {"index": flat(30, 8)}, "index width: 9; found 8"),
        (without_last_item, "rows of the items table: 30; found 29"),
        (without_last_user, "users with histories: 90; found 89"),
    ],
)
def test_parts_of_different_models_are_refused(
    change: Callable[[Artifact], dict[str, Any]],
    complaint: str,
    artifact: Artifact,
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=complaint):
        load_artifact(saved(tmp_path, artifact, **change(artifact)))


def test_signals_of_another_number_of_towers_are_refused(
    artifact: Artifact, tmp_path: Path
) -> None:
    """A stage 2 learned from the scores of as many towers as its stage 1 has."""
    assert artifact.stage2 is not None
    shape = artifact.manifest["cross_encoder"]
    foreign = build_cross_encoder(shape, 3, RANK)
    stage2 = Stage2(foreign, artifact.stage2.extractor, artifact.stage2.reduction)
    with pytest.raises(InputError, match=r"cross_encoder.*size mismatch"):
        load_artifact(saved(tmp_path, artifact, stage2=stage2))


def test_weights_and_types_come_back_and_older_bundles_have_ones(
    artifact: Artifact, tmp_path: Path
) -> None:
    number = len(artifact.histories)
    weights = np.linspace(0.5, 4.0, number, dtype=np.float32)
    types = (np.arange(number) % 3).astype(np.int8)
    kinds = {"event_types": ["view", "purchase"], "event_weights": {"view": 1.0, "purchase": 4.0}}
    histories = replace(artifact.histories, weights=weights, types=types)
    manifest = {**artifact.manifest, **kinds}
    written = saved(tmp_path, artifact, histories=histories, manifest=manifest)
    after = load_artifact(written)
    np.testing.assert_array_equal(after.histories.weights, weights)
    np.testing.assert_array_equal(after.histories.types, types)
    assert (after.event_types, after.event_weights) == tuple(kinds.values())

    assert (artifact.event_types, artifact.event_weights) == ([], None)
    with pytest.raises(InputError, match=r"types beyond 1\.\.0"):
        load_artifact(saved(tmp_path / "untold", artifact, histories=histories))


def test_the_exponent_of_strengths_comes_back_and_older_bundles_have_none(
    artifact: Artifact, tmp_path: Path
) -> None:
    artifact.two_tower.counting = EventCounting(None, 0.5)
    written = saved(tmp_path, artifact)
    assert load_artifact(written).two_tower.counting.strength_exponent == 0.5
    manifest = json.loads((written / "manifest.json").read_text())
    del manifest["strength_exponent"]
    assert load_artifact(vouched(written, manifest)).two_tower.counting == EventCounting()


def test_a_bundle_of_before_events_had_weights_loads_with_ones(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(root: Path, name: str, *, tensors: dict, **parts: Any) -> Path:
        old = {k: v for k, v in tensors["histories"].items() if k not in ("weights", "types")}
        return write_bundle(root, name, tensors={**tensors, "histories": old}, **parts)

    write_bundle = recsys.artifact.write_bundle
    monkeypatch.setattr(recsys.artifact, "write_bundle", without)
    histories = load_artifact(saved(tmp_path, artifact)).histories
    assert histories.weights.tolist() == [1.0] * len(histories)
    assert not histories.types.any()
