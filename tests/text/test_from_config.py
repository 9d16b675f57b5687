"""The encoder that a bundle names: of this package, with plain settings, from where one is told."""

from pathlib import Path
from typing import Any

import pytest

from recsys.errors import InputError
from recsys.text import from_config
from recsys.text.encoder import HuggingFaceEncoder
from recsys.text.from_config import encoder_from_config

MINILM = "recsys.text.minilm.load"
HUGGING_FACE = "recsys.text.encoder.HuggingFaceEncoder"


def said(target: object, **settings: object) -> dict[str, Any]:
    return {"encoder": {"_target_": target, **settings}}


@pytest.mark.parametrize(
    "config",
    [
        *({}, {"encoder": None}, {"encoder": "x"}, {"encoder": []}),
        said("os.system", command="true"),
        said("recsys.text.minilm.find_folder"),
        said(["recsys.text.minilm.load"]),
        said(MINILM, max_length=10**12),
        said(MINILM, max_length=True),
        said(MINILM, batch_size=10**9),
        said(MINILM, dtype="int4"),
        said(MINILM, device="meta"),
        said(MINILM, trust_remote_code=True),
        said(HUGGING_FACE, model="a/b", template="x" * 10**5),
        said(HUGGING_FACE, model="a/b", normalize="yes"),
        said(HUGGING_FACE, model="a/b", trust_remote_code=True),
        said(HUGGING_FACE, model=5),
        said(HUGGING_FACE),
    ],
)
def test_other_encoders_and_settings_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        encoder_from_config(config)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What the hub's cache is asked for; it has nothing, and nothing is fetched."""
    found: list[tuple[str, str | None]] = []

    def cached(name: str, revision: str | None) -> None:
        found.append((name, revision))

    def fetch(*_: object) -> None:
        raise AssertionError("a model was fetched")

    monkeypatch.setattr(from_config, "cached_model", cached)
    monkeypatch.setattr("recsys.text.folder._download", fetch)
    return found


def test_a_folder_that_a_bundle_names_is_not_read(
    tiny_decoder: Path, asked: list[tuple[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_decoder.parent)
    for name in (str(tiny_decoder), tiny_decoder.name, f"./{tiny_decoder.name}", "../x", "~/x"):
        with pytest.raises(InputError, match="set text_model=") as refused:
            encoder_from_config(said(HUGGING_FACE, model=name))
        assert "\n" not in str(refused.value)
    # A name on the hub, too: the folder beside us is none.
    assert asked == [(tiny_decoder.name, None)]


@pytest.mark.parametrize("revision", ["../../x", "/etc", "a/../b", "", ".git"])
def test_a_revision_is_no_path(revision: str, asked: list[tuple[str, str | None]]) -> None:
    with pytest.raises(InputError, match="set text_model="):
        encoder_from_config(said(HUGGING_FACE, model="a/b", revision=revision))
    assert not asked


def test_what_is_not_in_the_hubs_cache_is_not_fetched(
    asked: list[tuple[str, str | None]],
) -> None:
    with pytest.raises(InputError, match="in the hub's cache"):
        encoder_from_config(said(HUGGING_FACE, model="some/model", revision="refs/pr/1"))
    assert asked == [("some/model", "refs/pr/1")]


def test_what_whoever_serves_names_is_read(tiny_decoder: Path) -> None:
    config = said(HUGGING_FACE, model="elsewhere/model", pooling="mean", max_length=16)
    encoder = encoder_from_config(config, str(tiny_decoder))
    expected = HuggingFaceEncoder(str(tiny_decoder), pooling="mean", max_length=16)
    assert encoder.fingerprint == expected.fingerprint


def test_minilm_comes_from_its_package_whatever_folder_a_bundle_names(tmp_path: Path) -> None:
    named = encoder_from_config(said(MINILM, folder=str(tmp_path), device="cpu"))
    assert named.fingerprint == encoder_from_config(said(MINILM, device="cpu")).fingerprint
    with pytest.raises(InputError):
        encoder_from_config(said(MINILM), str(tmp_path))
