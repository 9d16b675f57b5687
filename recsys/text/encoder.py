"""A frozen Hugging Face model, encoder or decoder: one vector per item text."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recsys.errors import InputError
from recsys.text.folder import find_model, model_hash, weight_files
from recsys.text.pooling import POOLINGS

_DTYPES: dict[str, torch.dtype | str] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "auto": "auto",
}
_TEXT_SLOT = "{text}"
_FINGERPRINT_VERSION = 1
"""Raise it when this file changes what the same model and settings compute: it empties caches."""


class TextEncoder(Protocol):
    """Anything that turns texts into vectors, and can say what decides their values."""

    @property
    def fingerprint(self) -> str:
        """Equal for two encoders if and only if they give the same vectors to the same texts."""

    @property
    def dim(self) -> int:
        """Width of a vector."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dim] of n texts, in the order of the texts."""


class HuggingFaceEncoder:
    """Any ``AutoModel`` with its tokenizer, frozen, behind the ``TextEncoder`` protocol.

    The weights are read from disk when the first text is encoded, not before: a run whose texts
    are all cached only hashes them. The vector of a text does not depend on the texts beside it:
    batches are padded on the right, padding is masked, and pooling is done in float32.

    Args:
        model: a local folder or a name on the hub.
        pooling: ``mean``, ``cls`` (first token) or ``last_token`` (decoders).
        template: what the model reads; ``{text}`` stands for the text, ``\\n`` for a line break.
        max_length: tokens read of each text, special tokens included; the rest is cut.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` (as the weights are stored).
        normalize: scale each vector to length 1.
        batch_size: texts per forward pass.
        device: ``cpu``, ``cuda``, or ``auto`` (CUDA where there is one).
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: for an unknown option, or a model that cannot be found, has no safetensors
            weights, or is not one that ``transformers`` can load without running its code.
    """

    def __init__(
        self,
        model: str,
        pooling: str = "mean",
        template: str = _TEXT_SLOT,
        max_length: int = 256,
        dtype: str = "float32",
        normalize: bool = True,
        batch_size: int = 32,
        device: str = "auto",
        revision: str | None = None,
    ) -> None:
        template = template.replace("\\n", "\n")  # Hydra keeps the two characters as they are typed
        _require_one_of("text.pooling", pooling, POOLINGS)
        _require_one_of("text.dtype", dtype, _DTYPES)
        _require_one_of("text.device", device, ("auto", "cpu", "cuda"))
        if template.count(_TEXT_SLOT) != 1:
            raise InputError(
                "a text.template that holds {text} once", repr(template), "for example '{text}'"
            )
        for name, value in (("text.max_length", max_length), ("text.batch_size", batch_size)):
            if value < 1:
                raise InputError(f"{name} of 1 or more", str(value), "raise it")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("a CUDA device", "none", "use text.device=auto or text.device=cpu")
        self._folder = find_model(model, revision)
        self._pooling = pooling
        self._template = template
        self._max_length = max_length
        self._dtype = dtype
        self._normalize = normalize
        self._batch_size = batch_size
        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self._device = torch.device("cuda" if cuda else "cpu")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, configuration and every option that changes a vector.

        The device and the batch size change vectors by rounding alone and are left out, so
        vectors made on a GPU serve a CPU.
        """
        parts = {
            "version": _FINGERPRINT_VERSION,
            "model": model_hash(self._folder),
            "pooling": self._pooling,
            "template": self._template,
            "max_length": self._max_length,
            "dtype": self._dtype,
            "normalize": self._normalize,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def dim(self) -> int:
        """Width of a vector, from the model's configuration; no weights are loaded."""
        return int(self._config.get_text_config().hidden_size)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, dim] of n texts, in the order of the texts.

        Raises:
            InputError: when the weights do not fit the model, or a vector is not finite.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        tokens = self._tokenize(texts)
        lengths = np.array([len(ids) for ids in tokens["input_ids"]])
        # Texts of like length share a batch, so little is computed on padding; the longest go
        # first, so that too large a batch fails at once.
        order = np.argsort(-lengths, kind="stable")
        with torch.inference_mode():
            for start in range(0, len(texts), self._batch_size):
                rows = order[start : start + self._batch_size]
                batch = {key: [values[row] for row in rows] for key, values in tokens.items()}
                vectors[rows] = self._forward(batch).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise InputError(
                "finite text vectors",
                f"NaN or infinity from {self._folder.name} in {self._dtype}",
                "use text.dtype=float32 or text.dtype=bfloat16",
            )
        return vectors

    def _tokenize(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        if not texts:
            return {"input_ids": []}
        encoded = self._tokenizer(
            [self._template.replace(_TEXT_SLOT, text) for text in texts],
            truncation=True,
            max_length=self._max_length,
            padding=False,
            return_attention_mask=False,
        )
        tokens: dict[str, list[list[int]]] = dict(encoded)
        empty = next((row for row, ids in enumerate(tokens["input_ids"]) if not ids), None)
        if empty is not None:
            raise InputError(
                "texts of one token or more",
                f"{texts[empty]!r}, which the tokenizer turns into none",
                "give every item a text, or a text.template with words of its own",
            )
        return tokens

    def _forward(self, batch: dict[str, list[list[int]]]) -> Tensor:
        """Pooled vectors float32 [B, D] of one batch of token lists."""
        inputs = {
            key: pad_sequence(
                [torch.tensor(row) for row in rows],
                batch_first=True,
                padding_value=self._pad_id if key == "input_ids" else 0,
            ).to(self._device)
            for key, rows in batch.items()
        }
        lengths = torch.tensor([len(row) for row in batch["input_ids"]], device=self._device)
        mask = torch.arange(inputs["input_ids"].shape[1], device=self._device) < lengths[:, None]
        hidden = self._model(**inputs, attention_mask=mask.long()).last_hidden_state
        pooled = POOLINGS[self._pooling](hidden.float(), mask)
        return torch.nn.functional.normalize(pooled, dim=1) if self._normalize else pooled

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        config = _load(AutoConfig, self._folder, trust_remote_code=False)
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
        # Models with relative positions say None, or -1 as XLNet does.
        if limit is not None and 0 < limit < self._max_length:
            raise InputError(
                f"text.max_length of at most {limit}, the positions of {self._folder.name}",
                str(self._max_length),
                f"use text.max_length={limit} or less",
            )
        return config

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return _load(AutoTokenizer, self._folder, trust_remote_code=False)

    @cached_property
    def _pad_id(self) -> int:
        # Padding is masked, so any id does where a tokenizer (GPT, Llama) has none of its own.
        candidates = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
        return next((token_id for token_id in candidates if token_id is not None), 0)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModel

        weight_files(self._folder)  # refuses names of files that lie elsewhere
        with _transformers_silent():
            model, loading = _load(
                AutoModel,
                self._folder,
                config=self._config,
                dtype=_DTYPES[self._dtype],
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        # transformers fills absent weights with random numbers; only a pooler goes unused here.
        absent = sorted(name for name in loading["missing_keys"] if "pooler" not in name)
        if absent:
            raise InputError(
                f"weights for all of {type(model).__name__} in {self._folder}",
                f"{len(absent)} tensors missing, such as {absent[0]}",
                "fetch the model again, or use one saved whole",
            )
        if self._config.is_encoder_decoder:
            model = model.get_encoder()
        return model.eval().requires_grad_(False).to(self._device)


def _load(auto_class: Any, folder: Path, **options: Any) -> Any:
    from safetensors import SafetensorError

    try:
        return auto_class.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"a model that transformers can load from {folder}",
            lines[0],
            "check that config.json, model.safetensors and the tokenizer files are whole and that "
            "the model needs no code of its own",
        ) from error


@contextmanager
def _transformers_silent() -> Iterator[None]:
    """No loading bar and no report of unused weights; what matters of it is checked here."""
    from transformers.utils import logging as transformers_logging

    library: Any = transformers_logging  # its functions are not annotated
    verbosity = library.get_verbosity()
    with_bar = library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if with_bar:
            library.enable_progress_bar()


def _require_one_of(name: str, value: str, allowed: Sequence[str] | dict[str, Any]) -> None:
    if value not in allowed:
        raise InputError(f"{name} to be one of {', '.join(allowed)}", repr(value), "correct it")
