"""Stage 1's queries through ONNX Runtime are those of the model."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from recsys.artifact import build_two_tower
from recsys.features import ContentFeatures
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.onnx_query import OnnxQuery
from tests.conftest import TOWER

LINEAR = {**TOWER, "dim": 96, "hidden_dim": 0, "use_bias": False}
UNDIVIDED = {**LINEAR, "dim": 40, "length_exponent": 0.0}
DEEP = {**TOWER, "dim": 64, "hidden_dim": 200, "use_bias": True}


def ensemble(towers: list[dict[str, object]], num_context: int) -> TwoTowerEnsemble:
    """With context weights, which start at 0, and scales that are not 1."""
    torch.manual_seed(0)
    features = torch.nn.functional.pad(torch.randn(12, 5), (0, 0, 1, 0))
    content = ContentFeatures(features, torch.zeros(5), torch.ones(5))
    model = build_two_tower(towers, content, num_context).eval()
    for tower in model.members:
        if tower.query_tower.context is not None:
            torch.nn.init.normal_(tower.query_tower.context.weight)
    model.scales.uniform_(0.5, 2.0)
    return model


@pytest.mark.parametrize("num_context", [0, 3])
@pytest.mark.parametrize("towers", [[LINEAR], [UNDIVIDED], [UNDIVIDED, DEEP], [LINEAR, DEEP]])
def test_queries_are_those_of_the_model(towers: list[dict[str, object]], num_context: int) -> None:
    model = ensemble(towers, num_context)
    width = sum(tower.query_tower.items.dim for tower in model.members)
    query = OnnxQuery(model)
    for number in (1, 2, 16, 70):
        sums, context = 5 * torch.randn(number, width), torch.randn(number, num_context)
        length = torch.randint(0, 40, (number,)).float()
        with torch.inference_mode():
            expected = model.query_from_sums(sums, length, context)
        found = query(sums, length, context)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_query_does_not_depend_on_others_of_its_batch() -> None:
    """From 16 rows on, which ``Retriever`` makes up."""
    model = ensemble([LINEAR, DEEP], 3)
    query = OnnxQuery(model)
    sums, length, context = torch.randn(64, 160), torch.arange(64.0), torch.randn(64, 3)
    together = query(sums, length, context)
    for number in (16, 17, 31, 48):
        some = slice(7, 7 + number)
        assert torch.equal(query(sums[some], length[some], context[some]), together[some])


def test_models_may_be_loaded_at_the_same_time() -> None:
    models = [ensemble([LINEAR, DEEP], 3) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        queries = list(threads.map(OnnxQuery, models))
    inputs = torch.randn(16, 160), torch.ones(16), torch.randn(16, 3)
    assert all(torch.equal(query(*inputs), queries[0](*inputs)) for query in queries)
