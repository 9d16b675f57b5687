"""The exported stage 2 scores as the cross-encoder itself does, whatever the list looks like."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
import pytest
import torch

from recsys.artifact import Stage2, build_cross_encoder, load_artifact
from recsys.encoded_history import EncodedHistory, HistoryEncoder
from recsys.errors import InputError
from recsys.list_scorer import can_export, check_graph, export_list_scorer
from recsys.onnx_reranker import OnnxReranker
from recsys.pair_signals import PairSignals
from recsys.reranker import BatchReranker, Reranker
from recsys.retriever import Retriever
from recsys.schema import HistoryBatch

Parts = tuple[Stage2, HistoryEncoder, list[EncodedHistory]]


@pytest.fixture(params=[1, 2], ids=["one layer", "two layers"])
def parts(request: pytest.FixtureRequest, untrained_bundle: Path) -> Parts:
    """A cross-encoder with weights of some size, and histories of 0 to 6 events."""
    artifact = load_artifact(untrained_bundle)
    assert artifact.stage2 is not None
    generator = torch.Generator().manual_seed(2)
    config = {"dim": 16, "num_heads": 2, "num_layers": request.param, "correction": 0.7}
    model = build_cross_encoder(config, artifact.text, 1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    stage2 = Stage2(model, artifact.stage2.extractor, 4)
    retriever = Retriever(artifact.two_tower, artifact.index, 100, 16)
    encoder = HistoryEncoder(retriever, stage2.extractor, 4, exported=model)
    lengths = torch.arange(7)[:, None]
    mask = torch.arange(6) < lengths
    items = torch.stack([torch.randperm(15, generator=generator)[:6] + 1 for _ in range(7)])
    batch = HistoryBatch(items * mask, 100 * items * mask, mask, torch.rand(7, 2))
    return stage2, encoder, encoder.encode(batch)


def onnx(stage2: Stage2, encoder: HistoryEncoder) -> OnnxReranker:
    graph = export_list_scorer(stage2.cross_encoder, stage2.max_history)
    return OnnxReranker(graph, stage2.cross_encoder, stage2.extractor, encoder)


def scores(reranker: Reranker, histories: list[EncodedHistory], item_idx: np.ndarray) -> np.ndarray:
    return reranker.scores(histories, reranker.features(histories, item_idx))


def lists(num_candidates: int) -> np.ndarray:
    """Candidates [7, K] that are in no history; rows of all lengths from 0 to K."""
    rng = np.random.default_rng(num_candidates)
    item_idx = np.stack([rng.permutation(15)[:num_candidates] + 16 for _ in range(7)])
    item_idx[0] = 0
    item_idx[1, 1:] = 0
    item_idx[2, num_candidates // 2 + 1 :] = 0
    return item_idx


@pytest.mark.parametrize("num_candidates", [1, 3, 15])
@pytest.mark.parametrize("table", [True, False], ids=["from a table", "computed"])
def test_scores_are_those_of_the_cross_encoder(
    parts: Parts, num_candidates: int, table: bool
) -> None:
    stage2, encoder, histories = parts
    extractor, item_idx = stage2.extractor, lists(num_candidates)
    batch = BatchReranker(stage2.cross_encoder, extractor, encoder)
    expected = scores(batch, histories, item_idx)
    known = extractor.pairs
    if not table:
        session, plain = (extractor.graphs[name] for name in ("session", "co_occurrence"))
        text = stage2.cross_encoder.text
        extractor.pairs = PairSignals(session, plain, text, max_table_pairs=0)
    try:
        found = scores(onnx(stage2, encoder), histories, item_idx)
    finally:
        extractor.pairs = known

    assert (np.isneginf(found) == (item_idx == 0)).all()
    real = item_idx > 0
    np.testing.assert_allclose(found[real], expected[real], rtol=2e-3, atol=2e-3)
    assert expected[real].std() > 0.1 or num_candidates == 1


def test_lists_are_the_same_to_the_bit_from_many_threads(parts: Parts) -> None:
    stage2, encoder, histories = parts
    reranker, item_idx = onnx(stage2, encoder), lists(15)
    expected = scores(reranker, histories, item_idx)
    with ThreadPoolExecutor(8) as threads:
        rows = [row % 7 for row in range(400)]
        found = list(
            threads.map(lambda r: scores(reranker, [histories[r]], item_idx[r : r + 1])[0], rows)
        )
    for row, alone in zip(rows, found, strict=True):
        np.testing.assert_array_equal(alone, expected[row, : len(alone)])
        assert np.isneginf(expected[row, len(alone) :]).all()


def test_a_graph_that_cannot_be_run_is_refused(parts: Parts) -> None:
    stage2, encoder, _ = parts
    graph = export_list_scorer(stage2.cross_encoder, stage2.max_history)
    for broken in (b"", graph[: len(graph) // 2], graph.replace(b"biases", b"biasez")):
        with pytest.raises(InputError, match="a graph of stage 2 that can be run"):
            OnnxReranker(broken, stage2.cross_encoder, stage2.extractor, encoder)


def test_only_what_there_is_a_graph_for_is_exported() -> None:
    text = torch.rand(5, 3)
    assert not can_export(build_cross_encoder({"dim": 8, "text_tokens": True}, text, 1))
    assert not can_export(build_cross_encoder({"dim": 8, "num_layers": 0}, text, 1))
    assert can_export(build_cross_encoder({"dim": 8}, text, 1))


def test_the_runtime_does_not_report_to_its_makers(tmp_path: Path) -> None:
    """It would begin by writing its session into the folder for temporary files."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", "import recsys.onnx_reranker"]
    subprocess.run(command, env=environment, check=True, cwd=Path(__file__).parents[1])
    assert list(tmp_path.iterdir()) == []


def graph_with(bundle: Path, change: Callable[[Any], None]) -> bytes:
    """A graph of a bundle from elsewhere."""
    model = onnx_format.load_model_from_string((bundle / "cross_encoder.onnx").read_bytes())
    change(model)
    content: bytes = model.SerializeToString()
    return content


def reads_a_file(model: Any) -> None:
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx_format.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/hostname")


def loops(model: Any) -> None:
    body = onnx_format.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx_format.helper.make_node("Loop", ["", ""], ["x"], body=body))


def hides_a_graph(model: Any) -> None:
    body = onnx_format.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx_format.helper.make_node("Add", ["signals"] * 2, ["x"], body=body))


@pytest.mark.parametrize(
    "change",
    [
        reads_a_file,
        loops,
        hides_a_graph,
        lambda m: m.graph.node.append(onnx_format.helper.make_node("Expand", ["a", "b"], ["x"])),
        lambda m: m.graph.node.append(
            onnx_format.helper.make_node("ConstantOfShape", ["a"], ["x"])
        ),
        lambda m: m.graph.node.append(
            onnx_format.helper.make_node("Add", ["a", "b"], ["x"], domain="com.elsewhere")
        ),
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


def test_such_a_graph_is_not_run(parts: Parts, untrained_bundle: Path) -> None:
    stage2, encoder, _ = parts
    graph = graph_with(untrained_bundle, loops)
    with pytest.raises(InputError, match="one that holds the operator Loop; run: python train"):
        OnnxReranker(graph, stage2.cross_encoder, stage2.extractor, encoder)
