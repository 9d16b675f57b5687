"""For data without texts: every item has the same text vector, zeros, which tells nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError

NAME = "none"
"""Of the option of ``configs/text``, and in manifests."""


class NoText:
    """Stands in the place of a ``TextEncoder``: zeros float32 [n, 1] for n texts."""

    fingerprint = NAME
    dim = 1

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros((len(texts), self.dim), dtype=np.float32)


def check_has_text(manifest: Mapping[str, Any]) -> None:
    """Raise InputError when a bundle was trained without texts: it cannot read what is asked."""
    if manifest.get("text", {}).get("fingerprint") == NoText.fingerprint:
        raise InputError(
            "a bundle trained with texts, which a question in words needs",
            "one trained without (text=none)",
            "ask for a user or a history, or train with titles or descriptions of the items",
        )
