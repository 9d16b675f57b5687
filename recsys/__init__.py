"""Two-stage recommender: two-tower retrieval through FAISS, cross-encoder re-ranking over text.

import recsys

model = recsys.fit(interactions, items)
model.recommend([1, 2, 3], top_k=10)
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.fitting import fit
    from recsys.model import Model, load
    from recsys.recommender import Recommender

__all__ = ["Model", "Recommender", "fit", "load"]

# From 1.29 on, Linux builds of ONNX Runtime report to their makers unless this is set before they
# are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    # Loaded when they are asked for (PEP 562): commands import this package, too, and answer at
    # once, which PyTorch would not let them.
    if name == "fit":
        from recsys.fitting import fit

        return fit
    if name in ("Model", "load"):
        from recsys import model

        return getattr(model, name)
    if name == "Recommender":
        from recsys.recommender import Recommender

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
