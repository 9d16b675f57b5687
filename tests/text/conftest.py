"""A tiny decoder with its tokenizer, saved as a user would have it on disk."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

WORDS = [
    "a",
    "the",
    "red",
    "blue",
    "old",
    "new",
    "space",
    "love",
    "war",
    "night",
    "river",
    "king",
    "robot",
    "ghost",
    "of",
    "and",
    "in",
]


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of 2 layers, 32-d, random weights; its tokenizer has an end token and no padding.

    Saved with its language-model head, as decoders are published.
    """
    folder = tmp_path_factory.mktemp("tiny-decoder")
    tokenizer = Tokenizer(
        models.WordLevel(
            {word: row for row, word in enumerate(["<unk>", "<eos>", *WORDS])}, "<unk>"
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(WORDS) + 2,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder
