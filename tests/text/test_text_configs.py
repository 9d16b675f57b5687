from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from recsys.text import minilm

CONFIGS = Path(__file__).parents[2] / "configs" / "text"


def config(name: str, **knobs) -> DictConfig:
    loaded = OmegaConf.load(CONFIGS / f"{name}.yaml")
    assert isinstance(loaded, DictConfig)
    unknown = set(knobs) - set(loaded)
    assert not unknown
    loaded.merge_with(knobs)
    return loaded


def test_minilm_is_the_published_encoder():
    encoder = instantiate(config("minilm", device="cpu").encoder)
    assert encoder.fingerprint == minilm.load(device="cpu").fingerprint


def test_hf_takes_a_decoder_by_its_folder_with_last_token_pooling(tiny_decoder):
    knobs = {"model": str(tiny_decoder), "device": "cpu", "batch_size": 2}
    assert instantiate(config("hf", **knobs).encoder).encode(["old robot"]).shape == (1, 32)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("pooling", "mean"),
        ("template", "Query: {text}"),
        ("max_length", 9),
        ("dtype", "bfloat16"),
        ("normalize", False),
    ],
)
def test_every_knob_of_hf_reaches_the_encoder(tiny_decoder, knob, value):
    plain = {"model": str(tiny_decoder), "device": "cpu"}
    changed = instantiate(config("hf", **plain, **{knob: value}).encoder)
    assert changed.fingerprint != instantiate(config("hf", **plain).encoder).fingerprint


def test_a_line_break_in_a_template_can_be_given_on_the_command_line(tiny_decoder):
    typed = r'text.template="Instruct: find\nQuery: {text}"'
    value = OverridesParser.create().parse_override(typed).value()
    plain = {"model": str(tiny_decoder), "device": "cpu"}
    from_command = instantiate(config("hf", **plain, template=value).encoder)
    from_file = instantiate(config("hf", **plain, template="Instruct: find\nQuery: {text}").encoder)
    assert from_command.fingerprint == from_file.fingerprint


def test_none_makes_the_same_of_every_text():
    encoder = instantiate(config("none").encoder)
    assert encoder.encode(["old robot", ""]).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("name", ["minilm", "hf", "none"])
def test_the_cache_folder_follows_the_environment(name, monkeypatch, tmp_path):
    monkeypatch.delenv("RECSYS_CACHE", raising=False)
    assert config(name).cache_dir == "checkpoints/cache/text"
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    assert config(name).cache_dir == f"{tmp_path}/text"
