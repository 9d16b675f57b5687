"""Reduced text keeps what tells texts apart."""

import pytest
import torch

from recsys.text.reduction import TextReduction


@pytest.fixture
def text() -> torch.Tensor:
    """Fifty texts in four of ten dimensions, beside what they have in common; row 0 is padding."""
    generator = torch.Generator().manual_seed(0)
    shared, basis = torch.randn(10, generator=generator), torch.randn(4, 10, generator=generator)
    rows = 3 * shared + torch.randn(50, 4, generator=generator) @ basis
    return torch.nn.functional.pad(rows, (0, 0, 1, 0))


def test_likeness_is_that_of_what_texts_do_not_share(text: torch.Tensor) -> None:
    reduced = TextReduction.fit(text, 4)(text)
    centred = text[1:] - text[1:].mean(dim=0)
    expected = torch.nn.functional.cosine_similarity(centred[:1], centred)
    torch.testing.assert_close(reduced[1:] @ reduced[1], expected, atol=1e-4, rtol=0)


def test_no_text_is_zeros_and_any_other_a_unit_vector(text: torch.Tensor) -> None:
    text[7] = 0.0
    reduced = TextReduction.fit(text, 3)(text)
    assert reduced[[0, 7]].tolist() == [[0.0] * 3] * 2
    kept = [row for row in range(1, 51) if row != 7]
    torch.testing.assert_close(reduced[kept].norm(dim=1), torch.ones(49))


def test_rows_without_text_do_not_move_the_others(text: torch.Tensor) -> None:
    more = torch.cat([text, torch.zeros(30, 10)])
    torch.testing.assert_close(TextReduction.fit(more, 4).mean, TextReduction.fit(text, 4).mean)


def test_more_dimensions_than_there_are_stay_empty(text: torch.Tensor) -> None:
    reduced = TextReduction.fit(text[:4], 20)(text[:4])
    assert reduced.shape == (4, 20)
    assert not TextReduction.fit(torch.zeros(5, 10), 3)(torch.zeros(5, 10)).any()


def test_a_reduction_that_does_not_fit_is_refused(text: torch.Tensor) -> None:
    reduction = TextReduction.fit(text, 4)
    reduction.check(10, 4)
    for sizes in ((9, 4), (10, 5)):
        with pytest.raises(ValueError, match="a reduction"):
            reduction.check(*sizes)
    with pytest.raises(ValueError, match="other types"):
        TextReduction(reduction.mean.double(), reduction.components).check(10, 4)
