"""The exported stage 2 scores as the cross-encoder itself does, whatever the list looks like."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx as onnx_format
import pytest
import torch

from recsys.artifact import Artifact, Stage2, build_cross_encoder, export_stage2, load_artifact
from recsys.errors import InputError
from recsys.onnx_export import check_graph
from recsys.onnx_scorer import OnnxScorer
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.reranker import Reranker, TorchScorer
from recsys.schema import HistoryBatch
from tests.conftest import RANK, write_untrained_bundle


class Parts(NamedTuple):
    """A cross-encoder with weights of some size, its graph, and histories of 0 to 6 events."""

    artifact: Artifact
    stage2: Stage2
    graph: bytes
    history: HistoryBatch

    def torch(self) -> Reranker:
        return self._reranker(TorchScorer(self.stage2.cross_encoder))

    def onnx(self) -> Reranker:
        return self._reranker(OnnxScorer(self.graph))

    def _reranker(self, scorer: Any) -> Reranker:
        one = self.stage2
        return Reranker(one.cross_encoder, one.extractor, one.reduction, self.artifact.text, scorer)


SHAPES = {
    "no attention": {"num_layers": 0},
    "one layer": {"num_layers": 1},
    "two layers": {"num_layers": 2},
    "strengths": {"num_layers": 1, "strengths": True},
}


@pytest.fixture(scope="module", params=SHAPES)
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    root = tmp_path_factory.mktemp("reranker")
    bundle = write_untrained_bundle(root, list(range(101, 191)), list(range(1001, 1031)))
    artifact = load_artifact(bundle)
    assert artifact.stage2 is not None
    generator = torch.Generator().manual_seed(2)
    config = {"dim": 16, "num_heads": 2, "text_rank": 4, **SHAPES[request.param]}
    model = build_cross_encoder(config, 1, RANK).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    old = artifact.stage2
    stage2 = Stage2(model, old.extractor, old.reduction)
    graph = export_stage2(stage2, artifact.text, artifact.histories)
    lengths = torch.arange(7)[:, None]
    mask = torch.arange(6) < lengths
    items = torch.stack([torch.randperm(15, generator=generator)[:6] + 1 for _ in range(7)])
    context = torch.rand(7, 2, generator=generator)
    weights = torch.rand(7, 6, generator=generator).mul(4.0).exp() * mask
    history = HistoryBatch(items * mask, 10**9 + 100 * items * mask, mask, context, weights)
    return Parts(artifact, stage2, graph, history)


def lists(num_candidates: int) -> np.ndarray:
    """Candidates [7, K] that are in no history; rows of all lengths from 0 to K."""
    rng = np.random.default_rng(num_candidates)
    item_idx = np.stack([rng.permutation(15)[:num_candidates] + 16 for _ in range(7)])
    item_idx[0] = 0
    item_idx[1, 1:] = 0
    item_idx[2, num_candidates // 2 + 1 :] = 0
    return item_idx


def scores(
    reranker: Reranker, history: HistoryBatch, item_idx: np.ndarray, rows: list[int] | None = None
) -> np.ndarray:
    """Scores [B, K]; rows: of the histories and the lists, None for all."""
    generator = torch.Generator().manual_seed(3)
    by_tower = torch.randn(*item_idx.shape, 1, generator=generator)
    if rows is not None:
        history = history.rows(rows)
        item_idx, by_tower = item_idx[rows], by_tower[rows]
    return reranker.scores(history, item_idx, by_tower)


@pytest.mark.parametrize("num_candidates", [1, 3, 15])
def test_scores_are_those_of_the_cross_encoder(parts: Parts, num_candidates: int) -> None:
    item_idx = lists(num_candidates)
    expected = scores(parts.torch(), parts.history, item_idx)
    found = scores(parts.onnx(), parts.history, item_idx)
    assert (np.isneginf(found) == (item_idx == 0)).all()
    real = item_idx > 0
    np.testing.assert_allclose(found[real], expected[real], rtol=2e-3, atol=2e-3)
    assert expected[real].std() > 0.1 or num_candidates == 1


def test_strengths_are_an_input_of_a_graph_that_was_trained_on_them_alone(parts: Parts) -> None:
    reads = parts.stage2.cross_encoder.history_strength is not None
    model = onnx_format.load_model_from_string(parts.graph)
    assert ("strength" in {one.name for one in model.graph.input}) == reads
    item_idx = lists(15)
    before = scores(parts.onnx(), parts.history, item_idx)
    stronger = parts.history.weights.clone()
    stronger[5, 3] *= 4.0
    history = parts.history._replace(weights=stronger)
    after = scores(parts.onnx(), history, item_idx)
    expected = scores(parts.torch(), history, item_idx)
    np.testing.assert_allclose(after[1:, 0], expected[1:, 0], rtol=2e-3, atol=2e-3)
    changed = before != after
    assert changed[5].all() == reads
    assert not changed[[0, 1, 2, 3, 4, 6]].any()


def test_lists_are_the_same_to_the_bit_from_many_threads(parts: Parts) -> None:
    reranker, item_idx = parts.onnx(), lists(15)
    expected = scores(reranker, parts.history, item_idx)
    with ThreadPoolExecutor(8) as threads:
        rows = [row % 7 for row in range(200)]
        found = list(
            threads.map(lambda row: scores(reranker, parts.history, item_idx, [row])[0], rows)
        )
    for row, alone in zip(rows, found, strict=True):
        np.testing.assert_array_equal(alone, expected[row])


def with_text(parts: Parts, item: int, seed: int) -> Reranker:
    """The exported stage 2 with another text of an item, which may be a later one."""
    text = torch.nn.functional.normalize(
        torch.randn(1, 6, generator=torch.Generator().manual_seed(seed)), dim=1
    )
    return parts.onnx().with_items(torch.tensor([item]), text)


def test_another_text_of_an_item_gives_it_another_score(parts: Parts) -> None:
    """Of a later item, and of one of the training data."""
    later = len(parts.artifact.items) + 1
    item_idx = np.array([[20, later, 22]] * 6)
    history = parts.history.rows(slice(1, None))
    first, other = (scores(with_text(parts, later, seed), history, item_idx) for seed in (0, 1))
    assert np.abs(first - other)[:, 1].min() > 1e-4
    known, changed = parts.onnx(), parts.onnx()
    text = parts.artifact.text.clone()
    text[20] = -text[20]
    one = parts.stage2
    changed = Reranker(
        one.cross_encoder, one.extractor, one.reduction, text, OnnxScorer(parts.graph)
    )
    item_idx = lists(15)[3:]
    history = parts.history.rows(slice(3, None))
    difference = scores(changed, history, item_idx) - scores(known, history, item_idx)
    touched = item_idx == 20
    assert touched.any()
    assert not difference[~touched].any()
    # Its relations stay as they were fitted: without attention nothing else reads its text.
    is_read = bool(parts.stage2.cross_encoder.layers)
    assert (np.abs(difference[touched]) > 1e-6).all() == is_read


def test_a_graph_that_cannot_be_run_is_refused(parts: Parts) -> None:
    graph = parts.graph
    for broken in (b"", graph[: len(graph) // 2], graph.replace(b"popularity", b"popularitx")):
        with pytest.raises(InputError, match="a graph of stage 2 that can be run"):
            OnnxScorer(broken)


def test_the_runtime_does_not_report_to_its_makers(tmp_path: Path) -> None:
    """It would begin by writing its session into the folder for temporary files."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", "import recsys.onnx_scorer"]
    subprocess.run(command, env=environment, check=True, cwd=Path(__file__).parents[1])
    assert list(tmp_path.iterdir()) == []


def graph_with(bundle: Path, change: Callable[[Any], None]) -> bytes:
    """A graph of a bundle from elsewhere."""
    model = onnx_format.load_model_from_string((bundle / "cross_encoder.onnx").read_bytes())
    change(model)
    content: bytes = model.SerializeToString()
    return content


def outside(tensor: Any) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx_format.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")


def reads_a_file(model: Any) -> None:
    outside(model.graph.initializer[0])


def reads_a_file_for_a_constant(model: Any) -> None:
    constant = next(node for node in model.graph.node if node.op_type == "Constant")
    outside(constant.attribute[0].t)


def loops(model: Any) -> None:
    body = onnx_format.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx_format.helper.make_node("Loop", ["", ""], ["x"], body=body))


def hides_a_graph(model: Any) -> None:
    body = onnx_format.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx_format.helper.make_node("Add", ["taste"] * 2, ["x"], body=body))


def has_node(op_type: str, domain: str = "") -> Callable[[Any], None]:
    node = onnx_format.helper.make_node(op_type, ["a", "b"], ["x"], domain=domain)
    return lambda model: model.graph.node.append(node)


@pytest.mark.parametrize(
    "change",
    [
        reads_a_file,
        reads_a_file_for_a_constant,
        loops,
        hides_a_graph,
        *map(has_node, ("Expand", "ConstantOfShape", "Range", "Tile", "Pad", "OneHot", "Resize")),
        has_node("Add", "com.elsewhere"),
        lambda m: m.graph.node.extend([m.graph.node[0]] * 6_000),
        lambda m: m.functions.add(name="f", domain="d"),
    ],
)
def test_a_graph_of_anything_else_is_refused(
    untrained_bundle: Path, change: Callable[[Any], None]
) -> None:
    check_graph(graph_with(untrained_bundle, lambda _: None))
    with pytest.raises(ValueError):
        check_graph(graph_with(untrained_bundle, change))


def test_such_a_graph_is_not_run(untrained_bundle: Path) -> None:
    with pytest.raises(InputError, match="one that holds the operator Loop; run: python train"):
        OnnxScorer(graph_with(untrained_bundle, loops))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_lists_are_the_same_in_any_company(untrained_bundle: Path, size: int) -> None:
    recommender = Recommender.load(untrained_bundle)
    users = [int(user) for user in recommender.users.ids]
    requests = [Request(8, user_id=user) for user in users]
    requests += [Request(8, history=[1001, 1004, 1009][:length]) for length in (1, 2, 3)]
    expected = recommender.recommend(requests)
    order = np.random.default_rng(0).permutation(len(requests))
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        for row, found in zip(
            rows, recommender.recommend([requests[r] for r in rows]), strict=True
        ):
            assert found.item_ids == expected[row].item_ids
            assert found.scores.tolist() == expected[row].scores.tolist()
