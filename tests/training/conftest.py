"""A planted data set, and recipes small enough to train on it in seconds."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from recsys import losses
from recsys.data.histories import Histories
from recsys.training.content_map import KernelRidge
from recsys.training.retrieval import Objective
from recsys.training.retrieval_recipe import RetrievalRecipe
from recsys.training.stage1 import Run

NUM_USERS, NUM_ITEMS, NUM_GROUPS = 60, 48, 4
TOWER = {
    "dim": 8,
    "use_content": True,
    "use_bias": True,
    "hidden_dim": 8,
    "dropout": 0.2,
    "id_dropout": 0.1,
    "length_exponent": 0.5,
}


@pytest.fixture(scope="session")
def planted() -> Histories:
    """A checkerboard: user u likes the items of group u % 4 alone, eight of its twelve."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(1, NUM_USERS + 1), 8)
    choices = np.concatenate([rng.permutation(NUM_ITEMS // NUM_GROUPS)[:8] for _ in range(60)])
    items = choices * NUM_GROUPS + users % NUM_GROUPS + 1
    return Histories.from_indices(users, items, np.arange(len(users)) * 10, NUM_USERS)


@pytest.fixture(scope="session")
def text() -> Tensor:
    """Random vectors: the structure is in the events alone."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(NUM_ITEMS, 6, generator=generator), dim=1)
    return torch.nn.functional.pad(vectors, (0, 0, 1, 0))


@pytest.fixture(scope="session")
def attributes() -> Tensor:
    return torch.zeros(NUM_ITEMS + 1, 2)


def recipe(loss: object = losses.full_softmax, **changes: object) -> RetrievalRecipe:
    settings = {
        "towers": [TOWER],
        "objectives": [Objective(loss, 0.5, 1e-4, 0.02)],
        "content_map": KernelRidge(),
        "epochs": 30,
        "validate_every": 5,
        "patience": 10,
        "num_validation": 2,
        "batch_size": 16,
        "max_history": 100,
        "seed": 0,
    }
    return RetrievalRecipe(**(settings | changes))


def run(folder: Path, resume: bool = False, **trainer: object) -> Run:
    return Run(partial(pl.Trainer, accelerator="cpu", **trainer), folder, resume)
