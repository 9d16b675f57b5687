"""Settings from Python mean what the same words mean on the command line."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from recsys.cli import CONFIG_DIR
from recsys.errors import InputError
from recsys.keyword_settings import composed, flattened


def test_values_keep_their_type_and_keys_may_be_dotted_or_nested() -> None:
    settings = {
        "stage": 1,
        "experiment": "quick",
        "index": "hnsw",
        "retrieval.epochs": 5,
        "retrieval": {"batch_size": np.int64(8)},
        "resume": True,
        "name": None,
        "~baselines.ease": None,
        "+trainer.max_steps": 7,
        "output_dir": Path("somewhere"),
    }
    cfg = composed("train", settings)
    assert (cfg.stage, cfg.resume, cfg.name, cfg.output_dir) == (1, True, None, "somewhere")
    assert (cfg.retrieval.epochs, cfg.retrieval.batch_size) == (5, 8)
    assert cfg.reranking.num_folds == 2  # of experiment=quick
    assert "Hnsw" in cfg.index["_target_"]
    assert "ease" not in cfg.baselines
    assert cfg.trainer.max_steps == 7


def test_a_mapping_of_names_that_are_no_settings_arrives_whole() -> None:
    weights = {"view": 1, "add to cart": 3.5, "a.b:c": 10}
    tables = {"data": "files", "data.interactions": "i", "data.items": "i"}
    cfg = composed("train", tables | {"data.event_weights": weights, "data.positive": "rating > 3"})
    assert cfg.data.event_weights == weights
    assert cfg.data.positive == "rating > 3"


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "it's",
        "a$b",
        "${seed}",
        "$",
        "\\",
        "a\\'b",
        "\\${seed}",
        "x[1]=y,z",
        "null",
        "1",
        "{a:b}",
        "",
    ],
)
def test_text_arrives_as_it_is(text: str) -> None:
    assert composed("train", {"name": text}).name == text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stgae": 1}, "unknown key 'stgae'; did you mean 'stage'?"),
        ({"seed": "1"}, "expected an integer for 'seed'; found '1'"),
        ({"index": "hnws"}, "did you mean index=hnsw?"),
        ({"retrieval": {"epoch": 5}}, "unknown key 'retrieval.epoch'; did you mean"),
        ({"seed": object()}, "a number, text, true or false, none, or a list of them for 'seed'"),
        ({"retrieval": {1: 5}}, "settings by name; found 1"),
        ({"retrieval.epochs": 5, "retrieval": {"epochs": 6}}, "one value for 'retrieval.epochs'"),
    ],
)
def test_mistakes_end_as_on_the_command_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        composed("train", settings)
    assert message in str(error.value)


def test_hydra_of_the_host_goes_on() -> None:
    assert not GlobalHydra.instance().is_initialized()
    composed("train", {})
    assert not GlobalHydra.instance().is_initialized()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.2"):
        composed("train", {"seed": 3})
        with pytest.raises(InputError):
            composed("train", {"sede": 3})
        assert compose("serve").port == 8000


def test_flattened() -> None:
    assert flattened({"a": {"b": 1, "c": {"d": []}}, "e.f": {}}) == {
        "a.b": 1,
        "a.c.d": [],
        "e.f": {},
    }
