"""The cross-encoder: starts at stage 1's order, ignores padding, reads its inputs."""

import pytest
import torch

from recsys.models.cross_encoder import CrossAttention, CrossEncoder, RankingBatch

B, K, L, S, P, N = 2, 5, 4, 3, 2, 12


@pytest.fixture
def model() -> CrossEncoder:
    torch.manual_seed(0)
    text = torch.nn.functional.pad(torch.randn(N, 6), (0, 0, 1, 0))
    options = {"dim": 8, "num_heads": 2, "num_layers": 2, "dropout": 0.1, "text_tokens": True}
    return CrossEncoder(text, S, P, **options).eval()


@pytest.fixture
def trained(model: CrossEncoder) -> CrossEncoder:
    """With weights that are not at their initial zeros, so that every input has an effect."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def batch() -> RankingBatch:
    torch.manual_seed(1)
    mask = torch.tensor([[True] * L, [True, True, False, False]])
    history = torch.randint(1, N + 1, (B, L)) * mask
    candidates = torch.stack([torch.randperm(N)[:K] + 1 for _ in range(B)])
    signals, pairs = torch.randn(B, K, S), torch.rand(B, K, L, P)
    return RankingBatch(candidates, signals, history, mask, torch.rand(B, L) * mask, pairs)


def test_an_untrained_model_keeps_stage_1s_order(model, batch) -> None:
    torch.testing.assert_close(model(batch), batch.signals[:, :, 0])


def test_a_share_of_the_correction_is_served(trained, batch) -> None:
    stage1, full = batch.signals[:, :, 0], trained(batch)
    trained.correction = 0.25
    torch.testing.assert_close(trained(batch), stage1 + 0.25 * (full - stage1))
    trained.correction = 0.0
    torch.testing.assert_close(trained(batch), stage1)


def test_all_of_the_correction_counts_in_training(trained, batch) -> None:
    for module in trained.modules():
        if isinstance(module, torch.nn.Dropout | CrossAttention):
            module.p = module.dropout = 0.0
    full = trained(batch)
    trained.correction = 0.25
    torch.testing.assert_close(trained.train()(batch), full)


def test_a_correction_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="expected correction in"):
        CrossEncoder(torch.zeros(N + 1, 6), S, P, correction=1.5)


def test_padding_of_the_history_changes_nothing(trained, batch) -> None:
    wider = batch._replace(
        history=torch.nn.functional.pad(batch.history, (0, 3)),
        history_mask=torch.nn.functional.pad(batch.history_mask, (0, 3)),
        history_age=torch.nn.functional.pad(batch.history_age, (0, 3)),
        pairs=torch.nn.functional.pad(batch.pairs, (0, 0, 0, 3), value=9.0),
    )
    torch.testing.assert_close(trained(batch), trained(wider))


def test_a_row_does_not_depend_on_its_batch(trained, batch) -> None:
    alone = RankingBatch(*(part[:1] for part in batch))
    torch.testing.assert_close(trained(alone), trained(batch)[:1])


def test_a_candidates_score_does_not_depend_on_its_place(trained, batch) -> None:
    turned = batch._replace(
        candidates=batch.candidates.flip(1),
        signals=batch.signals.flip(1),
        pairs=batch.pairs.flip(1),
    )
    torch.testing.assert_close(trained(turned), trained(batch).flip(1))


def test_an_empty_slot_scores_minus_infinity(trained, batch) -> None:
    candidates = batch.candidates.clone()
    candidates[0, 2] = 0
    scores = trained(batch._replace(candidates=candidates))
    assert scores[0, 2] == -torch.inf
    assert torch.isfinite(scores).sum() == B * K - 1


def test_an_empty_history_is_finite(trained, batch) -> None:
    empty = batch._replace(
        history=torch.zeros_like(batch.history), history_mask=torch.zeros_like(batch.history_mask)
    )
    assert torch.isfinite(trained(empty)).all()


@pytest.mark.parametrize("part", ["signals", "history", "history_age", "pairs", "candidates"])
def test_every_input_matters(trained, batch, part) -> None:
    value = getattr(batch, part)
    changed = value % N + 1 if value.dtype == torch.long else value + 0.5
    if part == "history":
        changed = changed * batch.history_mask
    assert not torch.allclose(trained(batch), trained(batch._replace(**{part: changed})))


def test_without_text_tokens_an_item_is_what_is_measured_of_it(batch) -> None:
    model = CrossEncoder(torch.randn(N + 1, 6), S, P, dim=8, num_heads=2, num_layers=1).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    others = batch._replace(candidates=batch.candidates % N + 1)
    assert torch.equal(model(batch), model(others))


def test_attention_with_a_strong_pair_signal_picks_that_event() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(dim=4, num_heads=1, num_pairs=1, dropout=0.0).eval()
    with torch.no_grad():
        attention.pair_bias.weight.fill_(1.0)
        attention.query.weight.zero_()
        attention.query.bias.zero_()
    x, history, mask = torch.randn(1, 1, 4), torch.randn(1, 3, 4), torch.ones(1, 3).bool()
    pairs = torch.zeros(1, 1, 3, 1)
    pairs[0, 0, 1, 0] = 100.0
    _, value = attention.key_value(history).chunk(2, dim=2)
    expected = x + attention.out(value[:, 1:2])
    torch.testing.assert_close(attention(x, history, mask, pairs), expected)
