"""The text encoder that a config names, made without running code that the config chooses.

A bundle says which encoder its text vectors come from, and a bundle may come from elsewhere: only
the encoders of this package are made from it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError
from recsys.text import minilm

if TYPE_CHECKING:
    from recsys.text.encoder import TextEncoder

_TARGET = "_target_"


def encoder_from_config(config: Mapping[str, Any]) -> "TextEncoder":
    """The encoder of a resolved ``configs/text``, such as a bundle's manifest holds.

    Raises:
        InputError: when the config names no encoder of this package, or its model is not found.
    """
    from recsys.text.encoder import HuggingFaceEncoder

    makers: dict[str, Callable[..., TextEncoder]] = {
        "recsys.text.minilm.load": minilm.load,
        "recsys.text.encoder.HuggingFaceEncoder": HuggingFaceEncoder,
    }
    settings = {str(key): value for key, value in dict(config.get("encoder") or {}).items()}
    target = settings.pop(_TARGET, None)
    if target not in makers:
        raise InputError(
            f"a text encoder of this package ({', '.join(makers)})",
            repr(target)[:200],
            "train the bundle with one of them",
        )
    try:
        return makers[target](**settings)
    except TypeError as error:
        raise InputError(
            f"settings that {target} takes", str(error), "use the code that wrote the bundle"
        ) from error
