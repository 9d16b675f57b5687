"""The settings of models that a manifest may hold: which there are, and how large they may be.

Bounds are far above what anybody trains; they are there so that a manifest from elsewhere cannot
ask for more memory or time than its files do.
"""

from collections.abc import Mapping
from typing import Any

from recsys.core.settings import FLAG, Setting, checked, or_null, real, texts, whole
from recsys.errors import InputError

MAX_TOWERS = 16

TOWER = {
    "dim": whole(1, 16_384),
    "use_content": FLAG,
    "use_bias": FLAG,
    "hidden_dim": whole(0, 65_536),
    "dropout": real(0, 1),
    "id_dropout": real(0, 1),
    "length_exponent": real(0, 10),
}
CROSS_ENCODER = {
    "dim": whole(1, 4_096),
    "num_heads": whole(1, 256),
    "num_layers": whole(0, 64),
    "text_rank": whole(1, 4_096),
    "products": FLAG,
    "dropout": real(0, 1),
    "row_dropout": real(0, 1),
    "strengths": FLAG,
}
NEW_USERS = {
    "gate": Setting("settings by name, or null", lambda _: True),
    "half_life_days": or_null(real(0.001, 1e6)),
}
GATE = {name: real(-1e6, 1e6) for name in ("bias", "slope", "fading")}
SIZES = {
    "epochs": whole(0, 1_000_000),
    "num_candidates": whole(1, 100_000),
    "max_query_history": whole(1, 1_000_000),
    "max_history": whole(1, 10_000),
    "relation_rank": whole(1, 4_096),
    "num_users": whole(0, 2**40),
    "num_items": whole(0, 2**40),
    "embedding_dim": whole(1, 2**20),
    "text_dim": whole(1, 2**20),
    "recency_half_life": or_null(real(1e-3, 1e9)),
    "strength_exponent": real(0, 10),
    "seed": whole(0, 2**32 - 1),
    "user_attributes": or_null(texts(100_000, 10_000)),
    "item_attributes": or_null(texts(100_000, 10_000)),
}


def check_models(manifest: Mapping[str, Any], where: str, remedy: str) -> None:
    """Check the settings of models in a manifest, or of one that is to be written.

    Args:
        where: the manifest, for the error.

    Raises:
        InputError: when there is another one, or one is out of bounds.
    """
    sizes = {key: value for key, value in manifest.items() if key in SIZES}
    checked(sizes, SIZES, where, remedy)
    towers = manifest.get("towers")
    if not isinstance(towers, list) or not 1 <= len(towers) <= MAX_TOWERS:
        raise InputError(f"1 to {MAX_TOWERS} towers in {where}", "another number", remedy)
    for number, tower in enumerate(towers):
        checked(tower, TOWER, f"{where} towers.{number}", remedy)
    if (new_users := manifest.get("new_users")) is not None:
        settings = checked(new_users, NEW_USERS, f"{where} new_users", remedy)
        if settings.get("gate") is not None:
            checked(settings["gate"], GATE, f"{where} new_users.gate", remedy)
    encoder = manifest.get("cross_encoder")
    if encoder is None:
        return
    settings = checked(encoder, CROSS_ENCODER, f"{where} cross_encoder", remedy)
    dim, num_heads = settings.get("dim", 32), settings.get("num_heads", 2)
    if dim % num_heads:
        raise InputError(
            f"in {where} cross_encoder.num_heads to divide its dim",
            f"{num_heads} and {dim}",
            remedy,
        )
