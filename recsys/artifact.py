"""What a bundle holds, as objects: models, histories, vocabularies, catalogue, index."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from recsys.bundle import Bundle, read_bundle, write_bundle
from recsys.bundle.settings import check_models
from recsys.data.catalog import Catalog
from recsys.data.histories import Histories
from recsys.data.strengths import checked_event_weights, checked_half_life
from recsys.data.type_sets import of_single_types
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.feature_store.definitions import HALF_LIFE_DAYS
from recsys.features import ContentFeatures
from recsys.index import CandidateIndex
from recsys.list_scorer import ItemTables, ListScorer
from recsys.models.content_map import ContentMap
from recsys.models.cross_encoder import CrossEncoder
from recsys.models.history_weights import EventCounting
from recsys.models.new_users import NewUserSettings
from recsys.models.two_tower import TwoTower, TwoTowerEnsemble
from recsys.onnx_export import export_list_scorer
from recsys.schema import DESCRIPTION, GENRES, ITEM_ID, RELEASE_DATE, TITLE, USER_ID, YEAR
from recsys.signals.extractor import SignalExtractor
from recsys.signals.list_signals import signal_names
from recsys.signals.relations import RELATIONS, Relations
from recsys.text.reduction import TextReduction

ModelConfig = Mapping[str, Any]
"""Keyword arguments of a model's constructor, plain JSON values."""
_OF_DISMISSED = ("offsets", "item_idx", "timestamps")
_REMEDY = "use the code that wrote it, or run: python train.py stage=all"


@dataclass(frozen=True)
class Stage2:
    """The re-ranker's parts.

    reduction: of the text vectors that it reads. graph: ``ListScorer`` in ONNX, for CPUs; None
    where there is none.
    """

    cross_encoder: CrossEncoder
    extractor: SignalExtractor
    reduction: TextReduction
    graph: bytes | None = None


@dataclass(frozen=True)
class Artifact:
    """Everything that serving needs.

    manifest: ``towers`` (one ``ModelConfig`` per tower), ``cross_encoder`` (a ``ModelConfig`` or
        None), ``num_candidates``, ``max_query_history`` (of stage 1), ``max_history`` (of stage 2),
        and what training says of itself.
    user_frame: ids and attributes as they were given, aligned to ``users``. item_frame: the
        catalogue, aligned to ``items``. histories: all training events. dismissed: what users have
        dismissed in the training data, as events; None where there is nothing.
    text: float32 [N + 1, T]. attributes: float32 [N + 1, A].
    """

    version: str
    manifest: dict[str, Any]
    users: Vocabulary
    items: Vocabulary
    user_frame: pd.DataFrame
    item_frame: pd.DataFrame
    histories: Histories
    text: Tensor
    attributes: Tensor
    two_tower: TwoTowerEnsemble
    index: CandidateIndex
    stage2: Stage2 | None
    dismissed: Histories | None = None

    @cached_property
    def attribute_names(self) -> list[str]:
        """Of the columns of ``attributes``; see ``Catalog``."""
        names: list[str] | None = self.manifest.get("item_attributes")
        if names is None:  # a bundle of before they were noted
            names = Catalog.from_frame(self.item_frame, self.items).attribute_names
        return names

    @cached_property
    def event_types(self) -> list[str]:
        """The names of the types in ``histories``; bundles of before there were types have none."""
        return [str(name) for name in self.manifest.get("event_types") or ()]

    @cached_property
    def event_weights(self) -> dict[str, float] | None:
        """What an event of each type counts; None where types make no difference.

        Raises:
            InputError: when the manifest says something else.
        """
        return checked_event_weights(self.manifest.get("event_weights"))

    @cached_property
    def half_life_days(self) -> float | None:
        """By which the weights of events have faded, to the end of ``histories``; None: not.

        Raises:
            InputError: when the manifest says something else.
        """
        return checked_half_life(self.manifest.get("half_life_days"))

    @property
    def count_repeats(self) -> bool:
        """Whether pairs that repeat count more also where nothing is weighed."""
        return bool(self.manifest.get("count_repeats"))

    @cached_property
    def new_users(self) -> NewUserSettings:
        """How users are served whom training has not seen."""
        fitted = self.manifest.get("new_users")
        if fitted is None:  # a bundle of before they were fitted
            return NewUserSettings(gate=None, half_life_days=HALF_LIFE_DAYS)
        return NewUserSettings.from_manifest(fitted)

    @property
    def max_query_history(self) -> int:
        """The latest events that stage 1's query is made of."""
        return int(self.manifest["max_query_history"])

    @property
    def num_candidates(self) -> int:
        """How many candidates stage 1 hands to stage 2."""
        return int(self.manifest["num_candidates"])


def build_two_tower(
    towers: Sequence[ModelConfig], content: ContentFeatures, num_context: int = 0
) -> TwoTowerEnsemble:
    """A freshly initialised ensemble, one tower per config, for users of so many attributes."""
    num_items = len(content.values) - 1
    members = [
        TwoTower(num_items, num_context, content.mean, content.scale, **config) for config in towers
    ]
    return TwoTowerEnsemble(members, content.values)


def _untrained_two_tower(
    towers: Sequence[ModelConfig], values: Tensor, num_context: int, num_landmarks: int
) -> TwoTowerEnsemble:
    """An ensemble in the form that it has once trained, for the items' content float [N + 1, F]."""
    blank = torch.zeros(values.shape[1])
    ensemble = build_two_tower(towers, ContentFeatures(values, blank, blank), num_context)
    vectors = torch.zeros(len(values), sum(ensemble.vector_dims))
    ensemble.fix_items(vectors, ContentMap(num_landmarks, values.shape[1], vectors.shape[1]))
    return ensemble


def build_cross_encoder(config: ModelConfig, num_towers: int, text_dim: int) -> CrossEncoder:
    """A freshly initialised cross-encoder over reduced text of this width."""
    return CrossEncoder(len(signal_names(num_towers)), len(RELATIONS), text_dim, **config)


def save_artifact(
    root: Path,
    name: str,
    *,
    manifest: Mapping[str, Any],
    users: Vocabulary,
    items: Vocabulary,
    user_frame: pd.DataFrame,
    item_frame: pd.DataFrame,
    histories: Histories,
    text: Tensor,
    attributes: Tensor,
    two_tower: TwoTowerEnsemble,
    index: CandidateIndex,
    stage2: Stage2 | None = None,
    dismissed: Histories | None = None,
    latest: bool = True,
) -> Path:
    """Write a bundle that ``load_artifact`` reads.

    See ``Artifact`` for the arguments, and ``write_bundle`` for ``latest``.
    """
    tensors: dict[str, dict[str, Tensor]] = {
        "two_tower": dict(two_tower.state_dict()),
        "content": {"text": text, "attributes": attributes},
        "histories": {
            "offsets": torch.from_numpy(histories.offsets),
            "item_idx": torch.from_numpy(histories.item_idx),
            "timestamps": torch.from_numpy(histories.timestamps),
            "context": torch.from_numpy(histories.context),
            "ratings": torch.from_numpy(histories.ratings),
            "weights": torch.from_numpy(histories.weights),
            "types": torch.from_numpy(histories.types),
            "type_sets": torch.from_numpy(histories.type_sets),
        },
    }
    if dismissed is not None:
        tensors["dismissed"] = {
            name: torch.from_numpy(getattr(dismissed, name)) for name in _OF_DISMISSED
        }
    graphs: dict[str, bytes] = {}
    if stage2 is not None:
        graphs["cross_encoder"] = stage2.graph or export_stage2(stage2, text, histories)
        relations, reduction = stage2.extractor.relations, stage2.reduction
        tensors["cross_encoder"] = dict(stage2.cross_encoder.state_dict())
        tensors["relations"] = {"vectors": relations.vectors, "signs": relations.signs}
        tensors["text_reduction"] = {
            "mean": reduction.mean,
            "components": reduction.components,
        }
    return write_bundle(
        root,
        name,
        manifest={
            **manifest,
            "num_users": len(users),
            "num_items": len(items),
            "embedding_dim": sum(two_tower.embedding_dims),
            "recency_half_life": two_tower.counting.half_life,
            "strength_exponent": two_tower.counting.strength_exponent,
            "text_dim": text.shape[1],
            "vocabularies": {
                "vocabulary": items.content_hash(),
                "users": users.content_hash(),
            },
        },
        tensors=tensors,
        frames={
            "vocabulary": pd.DataFrame({ITEM_ID: items.ids}),
            "users": user_frame,
            "items": item_frame,
        },
        index=index,
        graphs=graphs,
        latest=latest,
    )


def load_artifact(path: Path) -> Artifact:
    """Read and check a bundle.

    No model is built before its settings and the sizes of all parts are known to fit each other,
    so a bundle takes no more memory than its files account for.

    Raises:
        InputError: when it is missing, damaged or does not fit this code.
    """
    bundle = read_bundle(path)
    _check_parts(bundle)
    users = bundle.vocabulary("users", USER_ID)
    items = bundle.vocabulary("vocabulary", ITEM_ID)
    histories = _checked_histories(bundle, len(users), len(items))
    _check_sizes(bundle, len(users), len(items))
    content, towers = bundle.tensors["content"], bundle.manifest["towers"]
    text, attributes = content["text"], content["attributes"]
    two_tower = _restored_two_tower(bundle, torch.cat([text, attributes], dim=1), histories)
    artifact = Artifact(
        version=bundle.version,
        manifest=bundle.manifest,
        users=users,
        items=items,
        user_frame=bundle.frames["users"],
        item_frame=bundle.frames["items"],
        histories=histories,
        text=text,
        attributes=attributes,
        two_tower=two_tower.eval(),
        index=bundle.index,
        stage2=_load_stage2(bundle, histories, text, len(towers)),
        dismissed=_checked_dismissed(bundle, len(users), len(items)),
    )
    with _fitting(path, "part for new users"):
        _ = artifact.new_users
    with _fitting(path, "table of event types"):
        _ = artifact.event_weights, artifact.half_life_days
        if histories.types.max(initial=0) > len(artifact.event_types):
            raise ValueError(f"events of types beyond 1..{len(artifact.event_types)}")
    width, num_attributes = sum(two_tower.embedding_dims), attributes.shape[1]
    if bundle.index.dim != width:
        raise _misfit(path, f"index width: {width}", str(bundle.index.dim))
    if len(artifact.attribute_names) != num_attributes:
        found = str(len(artifact.attribute_names))
        raise _misfit(path, f"item attributes: {num_attributes}", found)
    return artifact


def _restored_two_tower(bundle: Bundle, values: Tensor, histories: Histories) -> TwoTowerEnsemble:
    """The trained ensemble; values: the items' content, float [N + 1, F]."""
    state, towers = bundle.tensors["two_tower"], bundle.manifest["towers"]
    with _fitting(bundle.path, "two_tower"):
        shape = histories.context.shape[1], len(state["content_map.landmarks"])
        with torch.device("meta"), _WithoutInitialValues():
            _check_shapes(_untrained_two_tower(towers, values.to("meta"), *shape), state)
        # The vectors come with the state.
        two_tower = _untrained_two_tower(towers, values, *shape)
        two_tower.load_state_dict(state)
    two_tower.counting = EventCounting(
        bundle.manifest.get("recency_half_life"),
        # Bundles of before events had strengths in queries lack it.
        bundle.manifest.get("strength_exponent", 0.0),
    )
    return two_tower


def export_stage2(stage2: Stage2, text: Tensor, histories: Histories) -> bytes:
    """The graph, by the example of a few lists of nothing."""
    extractor, model = stage2.extractor, stage2.cross_encoder
    nobody = histories.pad(np.zeros(3, np.int64))
    num_towers = len(model.signal_mean) - len(signal_names(0))
    candidates = np.zeros((3, 30), np.int64)
    inputs = extractor.inputs(nobody, candidates, torch.zeros(3, 30, num_towers))
    with torch.no_grad():
        tokens = model.tokens(stage2.reduction(text))
    tables = ItemTables(*extractor.rows, *tokens, extractor.relations.blocks)
    return export_list_scorer(ListScorer(model), inputs, tables)


def _load_stage2(
    bundle: Bundle, histories: Histories, text: Tensor, num_towers: int
) -> Stage2 | None:
    config = bundle.manifest.get("cross_encoder")
    if config is None:
        return None
    num_items, state = len(text) - 1, bundle.tensors["cross_encoder"]
    with _fitting(bundle.path, "relations"):
        relations = Relations(**bundle.tensors["relations"])
        relations.check(num_items)
        reduction = TextReduction(**bundle.tensors["text_reduction"])
        reduction.check(text.shape[1], relations.width)
    with _fitting(bundle.path, "cross_encoder"):
        with torch.device("meta"), _WithoutInitialValues():
            _check_shapes(build_cross_encoder(config, num_towers, relations.width), state)
        model = build_cross_encoder(config, num_towers, relations.width)
        model.load_state_dict(state)
    max_history = int(bundle.manifest["max_history"])
    extractor = SignalExtractor(histories, num_items, relations, max_history)
    return Stage2(model.eval(), extractor, reduction, bundle.graphs.get("cross_encoder"))


class _WithoutInitialValues(TorchFunctionMode):
    """Modules are made without random numbers: on ``meta`` there are none to set, and PyTorch would
    load its compiler first, which takes seconds and makes a folder.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if getattr(function, "__name__", "") in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else named["tensor"]
        return function(*args, **named)


def _check_shapes(blank: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError unless each tensor of ``blank`` is stored, and in the same shape."""
    for name, expected in blank.state_dict().items():
        if name not in state:
            raise RuntimeError(f"{name} is not stored")
        if state[name].shape != expected.shape:
            shapes = f"{list(expected.shape)}, stored {list(state[name].shape)}"
            raise RuntimeError(f"size mismatch for {name}: by its settings {shapes}")


def _check_parts(bundle: Bundle) -> None:
    """Raise InputError when a bundle lacks what this code reads, as one of older code may."""
    manifest = bundle.manifest
    wanted = {
        "manifest": ["towers", "num_candidates", "max_query_history", "vocabularies"],
        "tensors": ["two_tower", "content", "histories"],
        "tables": ["vocabulary", "users", "items"],
    }
    if manifest.get("cross_encoder") is not None:
        wanted["manifest"].append("max_history")
        wanted["tensors"] += ["cross_encoder", "relations", "text_reduction"]
    there = {"manifest": manifest, "tensors": bundle.tensors, "tables": bundle.frames}
    missing = [
        f"{name} ({kind})"
        for kind, names in wanted.items()
        for name in names
        if name not in there[kind]
    ]
    columns = (ITEM_ID, TITLE, DESCRIPTION, GENRES, YEAR, RELEASE_DATE)
    items, content = bundle.frames.get("items", ()), bundle.tensors.get("content", ())
    missing += [f"{name} (items)" for name in columns if name not in items]
    missing += [f"{name} (content)" for name in ("text", "attributes") if name not in content]
    if missing:
        raise _misfit(bundle.path, ", ".join(missing), "none, as written by other code")
    check_models(manifest, f"{bundle.path}/manifest.json", _REMEDY)


def _checked_histories(bundle: Bundle, num_users: int, num_items: int) -> Histories:
    """The training events, if they are of these users and items."""
    stored = bundle.tensors["histories"]
    with _fitting(bundle.path, "table of histories"):
        arrays = {name: tensor.numpy() for name, tensor in stored.items()}
        # Bundles of before events had weights and types lack them.
        arrays.setdefault("weights", np.ones(len(arrays["item_idx"]), np.float32))
        arrays.setdefault("types", np.zeros(len(arrays["item_idx"]), np.int8))
        arrays.setdefault("type_sets", of_single_types(arrays["types"]))
        histories = Histories(**arrays)
        if histories.num_users != num_users:
            expected = f"users with histories: {num_users}"
            raise _misfit(bundle.path, expected, str(histories.num_users))
        histories.check(num_items)
    return histories


def _checked_dismissed(bundle: Bundle, num_users: int, num_items: int) -> Histories | None:
    """What was dismissed, if it is of these users and items; None where the bundle has nothing."""
    stored = bundle.tensors.get("dismissed")
    if stored is None:
        return None
    with _fitting(bundle.path, "table of dismissed items"):
        offsets, item_idx, timestamps = (stored[name].numpy() for name in _OF_DISMISSED)
        blank = Histories.from_indices(item_idx[:0], item_idx[:0], timestamps[:0], num_users)
        number = len(item_idx)
        found = replace(
            blank,
            offsets=offsets,
            item_idx=item_idx,
            timestamps=timestamps,
            ratings=np.full(number, np.nan),
            weights=np.ones(number, np.float32),
            types=np.zeros(number, np.int8),
            type_sets=np.zeros((number, 0), np.uint8),
        )
        if found.num_users != num_users:
            expected = f"users with dismissed items: {num_users}"
            raise _misfit(bundle.path, expected, str(found.num_users))
        found.check(num_items)
        return found


def _check_sizes(bundle: Bundle, num_users: int, num_items: int) -> None:
    """Raise InputError when the parts are not about the same users, items and width."""
    content = bundle.tensors["content"]
    sizes = {
        "items in the index": (num_items, len(bundle.index)),
        "dimensions of text vectors": (2, content["text"].ndim),
        "dimensions of item attributes": (2, content["attributes"].ndim),
        "text vectors": (num_items + 1, len(content["text"])),
        "rows of item attributes": (num_items + 1, len(content["attributes"])),
        "rows of the items table": (num_items, len(bundle.frames["items"])),
        "rows of the users table": (num_users, len(bundle.frames["users"])),
    }
    for name, (expected, found) in sizes.items():
        if expected != found:
            raise _misfit(bundle.path, f"{name}: {expected}", str(found))


@contextmanager
def _fitting(path: Path, model: str) -> Iterator[None]:
    """Turn what a model says of a config or of weights that do not fit it into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, KeyError, RuntimeError, ValueError, IndexError) as error:
        # PyTorch names every tensor that does not fit, one a line.
        reason = " ".join(str(error).split())[:300]
        raise _misfit(path, f"a {model} that fits its manifest and this code", reason) from error


def _misfit(path: Path, expected: str, found: str) -> InputError:
    return InputError(f"in the bundle {path} {expected}", found, _REMEDY)
