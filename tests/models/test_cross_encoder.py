"""The cross-encoder: starts at stage 1's order, ignores padding, reads its inputs."""

import pytest
import torch

from recsys.models.cross_attention import AttendedEvents, CrossAttention
from recsys.models.cross_encoder import CrossEncoder, RankingBatch

B, K, L, S, P, R, T, N = 2, 5, 4, 3, 2, 6, 7, 12
"""Lists, candidates, events, signals, relations, their rank, text dimensions, items."""


def encoder(**options: object) -> CrossEncoder:
    defaults = {"dim": 8, "num_heads": 2, "num_layers": 2, "dropout": 0.1, "text_rank": 3}
    return CrossEncoder(S, P, T, **{**defaults, "strengths": True, **options}).eval()


@pytest.fixture
def model() -> CrossEncoder:
    torch.manual_seed(0)
    return encoder()


@pytest.fixture
def trained(model: CrossEncoder) -> CrossEncoder:
    """With weights that are not at their initial zeros, so that every input has an effect."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch_of(model: CrossEncoder) -> RankingBatch:
    generator = torch.Generator().manual_seed(1)
    text = torch.nn.functional.pad(torch.randn(N, T, generator=generator), (0, 0, 1, 0))
    mask = torch.tensor([[True] * (1 + L), [True, True, True, False, False]])
    history = torch.randint(1, N + 1, (B, 1 + L), generator=generator) * mask
    history[:, 0] = 0
    candidates = torch.randint(1, N + 1, (B, K), generator=generator)
    relations = torch.nn.functional.pad(torch.randn(N, P * R, generator=generator), (0, 0, 1, 0))
    tokens = model.tokens(text)
    return RankingBatch(
        torch.randn(B, K, S, generator=generator),
        tokens.candidates[candidates].detach(),
        tokens.history[history].detach(),
        mask,
        1000 * torch.rand(B, 1 + L, generator=generator) * (history > 0),
        torch.randn(B, 1 + L, generator=generator) * (history > 0),
        relations[candidates],
        relations[history],
        torch.eye(P).repeat_interleave(R, dim=0),
    )


@pytest.fixture
def batch(model: CrossEncoder) -> RankingBatch:
    return batch_of(model)


def test_an_untrained_model_keeps_stage_1s_order(model, batch) -> None:
    torch.testing.assert_close(model(batch), batch.signals[:, :, 0])


def test_scores_of_events_that_are_masked_do_not_count(trained) -> None:
    batch = batch_of(trained)
    others = batch._replace(
        history_tokens=batch.history_tokens.masked_fill(~batch.history_mask[..., None], 9.0),
        history_age=batch.history_age.masked_fill(~batch.history_mask, 9.0),
        history_strength=batch.history_strength.masked_fill(~batch.history_mask, 9.0),
        history_relations=batch.history_relations.masked_fill(~batch.history_mask[..., None], 9.0),
    )
    torch.testing.assert_close(trained(batch), trained(others))


def test_a_row_does_not_depend_on_its_batch(trained) -> None:
    batch = batch_of(trained)
    alone = RankingBatch(*(part[:1] for part in batch[:-1]), batch.blocks)
    torch.testing.assert_close(trained(alone), trained(batch)[:1])


def test_a_candidates_score_does_not_depend_on_the_others(trained) -> None:
    batch = batch_of(trained)
    candidates = ("signals", "candidate_tokens", "candidate_relations")
    turned = batch._replace(**{name: getattr(batch, name).flip(1) for name in candidates})
    torch.testing.assert_close(trained(turned), trained(batch).flip(1))
    one = batch._replace(**{name: getattr(batch, name)[:, 2:3] for name in candidates})
    torch.testing.assert_close(trained(one), trained(batch)[:, 2:3])


def test_an_empty_history_is_finite(trained) -> None:
    batch = batch_of(trained)
    nothing = torch.zeros_like(batch.history_mask)
    nothing[:, 0] = True
    assert torch.isfinite(trained(batch._replace(history_mask=nothing))).all()


@pytest.mark.parametrize("part", RankingBatch._fields)
def test_every_input_matters(trained, part) -> None:
    batch = batch_of(trained)
    value = getattr(batch, part)
    if value.dtype == torch.bool:
        changed = value.clone()
        changed[:, 2] = False
    else:
        changed = value + 0.5 * torch.rand(value.shape)
    assert not torch.allclose(trained(batch), trained(batch._replace(**{part: changed})))


def test_text_counts_where_it_meets_text_alone(trained) -> None:
    """Of an item's text nothing is in the score of a candidate whom no history meets."""
    batch = batch_of(trained)
    nothing = torch.zeros_like(batch.history_mask)
    nothing[:, 0] = True
    alone = batch._replace(history_mask=nothing)
    other = torch.rand(batch.candidate_tokens.shape)
    met = trained(batch) - trained(batch._replace(candidate_tokens=other))
    unmet = trained(alone) - trained(alone._replace(candidate_tokens=other))
    assert met.abs().min() > 1e-6
    assert not unmet.any()


def test_tokens_of_no_text_are_zeros(model) -> None:
    for tokens in model.tokens(torch.zeros(2, T)):
        assert tokens.shape == (2, 3 + 8)
        assert not tokens.any()


def test_scales_are_statistics_of_the_lists(model) -> None:
    signals, age = 5.0 + 3.0 * torch.randn(4000, S), torch.rand(4000).mul(10).expm1()
    related, strength = torch.randn(4000, P) * torch.tensor([2.0, 0.1]), 3.0 * torch.randn(4000) - 1
    model.fit_statistics(signals, age, related, 1, strength)
    found = (signals - model.signal_mean) * model.signal_scale
    torch.testing.assert_close(found[:, 0], signals[:, 0])
    torch.testing.assert_close(found[:, 1:].mean(dim=0), torch.zeros(S - 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, 1:].std(dim=0), torch.ones(S - 1), atol=1e-4, rtol=0)
    ages = (age.log1p() - model.age_mean) * model.age_scale
    assert float(ages.std()) == pytest.approx(1.0, abs=1e-3)
    torch.testing.assert_close(model.relation_scale, torch.tensor([0.5, 10.0]), rtol=0.1, atol=0)
    strengths = (strength - model.strength_mean) * model.strength_scale
    assert float(strengths.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(strengths.std()) == pytest.approx(1.0, abs=1e-3)


def test_strengths_are_read_where_they_are_asked_for_alone() -> None:
    torch.manual_seed(0)
    plain = encoder(strengths=False)
    batch = batch_of(plain)
    other = batch._replace(history_strength=batch.history_strength + 1.0)
    assert torch.equal(plain(batch), plain(other))
    own = {"history_strength.weight", "strength_mean", "strength_scale"}
    assert {*encoder().state_dict()} - {*plain.state_dict()} == own
    assert not encoder().history_strength.weight.any()


def events_of(tokens: torch.Tensor, **changes: torch.Tensor) -> AttendedEvents:
    """All real, and of one time, without text or relations unless said otherwise."""
    places = tokens.shape[:2]
    blank = AttendedEvents(
        tokens,
        torch.zeros(*places, 2),
        torch.zeros(*places, 1),
        torch.zeros(places),
        torch.ones(places).bool(),
    )
    return blank._replace(**changes)


def test_a_strong_relation_picks_its_event() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(4, 1, 2, 1, products=False).eval()
    with torch.no_grad():
        attention.relation_weight.fill_(1.0)
        attention.out.weight[:, 4:] = 0.0
    tokens, related, one = torch.randn(1, 3, 4), torch.zeros(1, 3, 1), torch.ones(1, 1, 1)
    related[0, 2] = 100.0
    events = events_of(tokens, relations=related)
    x, nothing = torch.randn(1, 4), torch.zeros(1, 1, 4)
    found = attention(x, nothing, torch.zeros(1, 1, 2), one, one[0], events)
    attended = torch.nn.functional.pad(attention.value(tokens[0, 2:3]), (0, 1))
    torch.testing.assert_close(found, attention.out(attended))


def test_of_the_null_token_nothing_is_answered() -> None:
    """Whatever stands in its place."""
    torch.manual_seed(0)
    attention = CrossAttention(4, 2, 2, 1, products=True).eval()
    x, asked, one = torch.randn(1, 4), torch.randn(1, 1, 4), torch.ones(1, 1, 1)
    tokens, mask = torch.randn(1, 3, 4), torch.tensor([[True, False, False]])

    def found(events: AttendedEvents) -> torch.Tensor:
        added: torch.Tensor = attention(x, asked, torch.zeros(1, 1, 2), one, one[0], events)
        return added.detach()

    alone = events_of(tokens, mask=mask)
    torch.testing.assert_close(found(alone), attention.out.bias[None])
    other = alone._replace(tokens=alone.tokens + 1.0, age=alone.age + 1.0)
    torch.testing.assert_close(found(other), found(alone))


def test_products_need_the_texts_of_both() -> None:
    """With all else at zero, a token changes where candidate and event have text in common."""
    torch.manual_seed(0)
    attention = CrossAttention(4, 1, 2, 1, products=True).eval()
    with torch.no_grad():
        attention.out.weight[:, :5] = 0.0
        attention.out.bias.zero_()

    def found(candidate: list[float], event: list[float]) -> torch.Tensor:
        text, zeros = torch.tensor([[candidate]]), torch.zeros(1, 1, 4)
        events = events_of(torch.zeros(1, 2, 4), text=torch.tensor([[[0.0, 0.0], event]]))
        one = torch.ones(1, 1, 1)
        added: torch.Tensor = attention(zeros[0], zeros, text, one, one[0], events)
        return added.detach()

    assert found([1.0, 0.0], [1.0, 0.0]).abs().max() > 0.01
    assert not found([1.0, 0.0], [0.0, 1.0]).any()
    assert not found([0.0, 0.0], [1.0, 1.0]).any()
