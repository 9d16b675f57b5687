"""The text encoder that a bundle's texts were encoded by.

A bundle says which one that was, and a bundle may come from elsewhere: only the encoders of this
package are made from it, with plain settings. Where a model lies is for whoever serves the bundle
to say, and nothing is fetched because a bundle names it.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recsys.core.settings import FLAG, checked, one_of, or_null, shown, text, whole
from recsys.errors import InputError
from recsys.text import minilm
from recsys.text.folder import cached_model
from recsys.text.none import NoText

if TYPE_CHECKING:
    from recsys.text.encoder import TextEncoder

_MINILM = "recsys.text.minilm.load"
_HUGGING_FACE = "recsys.text.encoder.HuggingFaceEncoder"
_NO_TEXT = "recsys.text.none.NoText"
_SHARED = {
    "max_length": whole(1, 100_000),
    "dtype": one_of("float32", "bfloat16", "float16", "auto"),
    "batch_size": whole(1, 4_096),
    "device": one_of("auto", "cpu", "cuda"),
}
_SETTINGS = {
    _MINILM: {**_SHARED, "folder": or_null(text(4_096))},
    _HUGGING_FACE: {
        **_SHARED,
        "model": text(4_096),
        "revision": or_null(text(200)),
        "pooling": one_of("mean", "cls", "last_token"),
        "template": text(10_000),
        "normalize": FLAG,
    },
    _NO_TEXT: {},
}
_REMEDY = "train the bundle again with one of them"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)


def encoder_from_config(config: Mapping[str, Any], model: str | None = None) -> "TextEncoder":
    """The encoder of a resolved ``configs/text``, such as a bundle's manifest holds.

    Args:
        model: where the model lies, as whoever serves says: a folder, or a name on the hub, from
            where it may be fetched. None: MiniLM comes from its package, and of others there must
            be a copy in the hub's cache on this machine under the name that the config gives.

    Raises:
        InputError: when the config names no encoder of this package or a setting that is out of
            bounds, or its model is not found.
    """
    from recsys.text.encoder import HuggingFaceEncoder

    said = config.get("encoder") if isinstance(config, Mapping) else None
    settings = dict(said) if isinstance(said, Mapping) else {}
    target = settings.pop("_target_", None)
    if not isinstance(target, str) or target not in _SETTINGS:
        expected = f"a text encoder of this package ({', '.join(_SETTINGS)})"
        raise InputError(expected, shown(target), _REMEDY)
    settings = checked(settings, _SETTINGS[target], "the bundle's text.encoder", _REMEDY)
    if target == _NO_TEXT:
        return NoText()
    if target == _MINILM:
        return minilm.load(**{**settings, "folder": model})
    name, revision = settings.pop("model", None), settings.pop("revision", None)
    return HuggingFaceEncoder(model or _cached(name, revision), **settings)


def encoder_of_bundle(manifest: Mapping[str, Any], model: str | None = None) -> "TextEncoder":
    """The encoder that a bundle's texts were encoded by.

    Args:
        manifest: the bundle's. model: as of ``encoder_from_config``.

    Raises:
        InputError: as of ``encoder_from_config``, and when it is not the one of training.
    """
    encoder = encoder_from_config(manifest.get("config", {}).get("text", {}), model)
    expected, found = fingerprint_of(manifest), encoder.fingerprint
    if found != expected:
        raise InputError(
            f"the text model that the bundle was trained with ({expected})",
            f"another one ({found})",
            "put it where it was in training, or train again with the present one",
        )
    return encoder


def fingerprint_of(manifest: Mapping[str, Any]) -> str | None:
    """Of the encoder of a bundle's text vectors."""
    found: str | None = manifest.get("text", {}).get("fingerprint")
    return found


def _cached(name: object, revision: object) -> str:
    """The folder of a model in the hub's cache; a path is not followed."""
    folder = None
    if isinstance(name, str) and _HUB_NAME.fullmatch(name):
        if revision is None:
            folder = cached_model(name, None)
        elif _REVISION.fullmatch(str(revision)):
            folder = cached_model(name, str(revision))
    if folder is None:
        raise InputError(
            "the bundle's text model in the hub's cache on this machine",
            f"none for {shown(name)}",
            "set text_model=… to its folder, or to its name on the hub",
        )
    return str(folder)
