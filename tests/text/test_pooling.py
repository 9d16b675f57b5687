import pytest
import torch

from recsys.text import pooling

TOKENS = torch.tensor([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]])
NOISE = torch.full((2, 2), 999.0)


@pytest.mark.parametrize(
    ("hidden", "mask"),
    [
        (torch.cat([TOKENS, NOISE]), [True, True, True, False, False]),
        (torch.cat([NOISE, TOKENS]), [False, False, True, True, True]),
    ],
    ids=["right padding", "left padding"],
)
class TestPoolingIgnoresPadding:
    def test_mean_is_over_real_tokens(self, hidden, mask):
        pooled = pooling.mean(hidden[None], torch.tensor([mask]))
        assert pooled.tolist() == [[3.0, 30.0]]

    def test_cls_is_the_first_real_token(self, hidden, mask):
        assert pooling.cls(hidden[None], torch.tensor([mask])).tolist() == [[1.0, 10.0]]

    def test_last_token_is_the_last_real_token(self, hidden, mask):
        assert pooling.last_token(hidden[None], torch.tensor([mask])).tolist() == [[6.0, 60.0]]


def test_each_row_of_a_batch_has_its_own_length():
    hidden = torch.arange(6.0).reshape(2, 3, 1)
    mask = torch.tensor([[True, False, False], [True, True, False]])
    assert pooling.last_token(hidden, mask).flatten().tolist() == [0.0, 4.0]
    assert pooling.mean(hidden, mask).flatten().tolist() == [0.0, 3.5]
