"""A trained model in the hands of a Python program: lists as frames, its table, its bundle."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.bundle import MANIFEST_FILE, check_bundle_name, read_metrics
from recsys.bundle.placing import fsync, put_in_place, unfinished
from recsys.core.settings import shown
from recsys.data.vocabulary import Vocabulary
from recsys.device import resolve_device
from recsys.errors import InputError
from recsys.metrics_table import MetricsTable
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.schema import ITEM_ID, TITLE, USER_ID, ExternalId, RankedList
from recsys.store_reader import StoreReader
from recsys.text.from_config import encoder_of_bundle
from recsys.text.none import check_has_text

if TYPE_CHECKING:
    from recsys.text.encoder import TextEncoder


def load(
    path: str | Path,
    device: str = "auto",
    text_model: str | None = None,
    store: str | None = None,
) -> "Model":
    """The model of a bundle, as ``Model.save``, ``recsys.fit`` or ``train.py`` has written it.

    Args:
        device: auto, cpu or cuda. text_model: where the text model lies, if it is neither MiniLM
            nor in the hub's cache: a folder, or its name on the hub. store: the URL of an event
            store (``sqlite+aiosqlite:///PATH``, ``postgresql+asyncpg://…``), or ``auto`` for the
            file beside the bundle. With it lists are those that a server gives that has the same
            bundle and store, as of each call; None: as of training.

    Raises:
        InputError: when the bundle is missing or damaged, or there is no such device; when the
            store is not there, or of another data set.
    """
    # A link, such as ``latest``, may name another bundle later.
    folder = Path(path).resolve()
    recommender = Recommender.load(folder, resolve_device(device))
    if store is None:
        return Model(recommender, folder, text_model)
    reader = StoreReader(recommender, store, Path(path), text_model=text_model)
    with reader.reading():  # so that what is wrong with it is said here
        pass
    return Model(recommender, folder, text_model, reader)


class Model:
    """recommender: the inference path that evaluation and the HTTP service share, as loaded. path:
    of the bundle. text_model: as of ``load``. store: what has come in since training; None: nothing
    is asked for.
    """

    def __init__(
        self,
        recommender: Recommender,
        path: Path,
        text_model: str | None = None,
        store: StoreReader | None = None,
    ) -> None:
        self.recommender = recommender
        self.path = path
        self._text_model = text_model
        self._store = store
        self._encoder: TextEncoder | None = None

    def __repr__(self) -> str:
        users, items = len(self.recommender.users), len(self.recommender.items)
        stages = 2 if self.recommender.reranker else 1
        return (
            f"<{self.recommender.model_version}: {users:,} users, {items:,} items, stage {stages}>"
        )

    def recommend(
        self,
        users: Any = None,
        top_k: int = 10,
        *,
        history: Sequence[ExternalId] | None = None,
        text: str | None = None,
        exclude: Iterable[ExternalId] = (),
        rerank: bool = True,
        rules: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Ranked lists, best first: for users, for a history, or for a text.

        Whoever is unknown gets popular items. What is in a history is not recommended again, unless
        the rule ``exclude_types`` has it otherwise.

        Args:
            users: an id or several, in a list, an array or a column of a frame. history: item ids,
                oldest first, of somebody who need not be known. text: what is wanted, in words; for
                nobody in particular, or beside ``users`` or ``history``. exclude: item ids that
                must not be in a list. rerank: False for stage 1's order. rules: such as
                ``{"genres_none": ["Horror"], "diversity": 0.3}``, see docs/rules.md.

        Returns:
            One row per place of a list: ``user_id`` (missing where none was given), ``item_id``,
            ``title``, ``score`` (float32, comparable within a list only), ``rank`` (from 1),
            ``source`` (of its list: reranked, retrieved or popular).

        Raises:
            InputError: when none of the three is given, or both of the first two; on ids of
                another type than those of training; on a ``top_k`` below 1; on a text without the
                text model of training; on wrong rules; on a store that does not answer.
        """
        if users is not None and history is not None:
            raise InputError("users or a history", "both", "ask for them one after the other")
        if users is None and history is None and text is None:
            raise InputError("users, a history or a text", "none", "e.g. recommend([1, 2, 3])")
        if type(top_k) is not int or top_k < 1:
            raise InputError("top_k of at least 1", shown(top_k), "set top_k=10")
        known = self.recommender
        left_out = _ids(exclude, known.items, "exclude")
        events = None if history is None else _ids(history, known.items, "history")
        vector = None if text is None else self._vector(text)
        wanted = known.checked_rules(rules or {})
        requests = [
            Request(top_k, user, events, left_out, text_vector=vector, rules=wanted)
            for user in ([None] if users is None else _ids(users, known.users, "users"))
        ]
        if self._store is None or not requests:
            return self._frame(known.recommend(requests, rerank=rerank), known)
        with self._store.reading() as store:
            return self._frame(store.recommend(requests, rerank=rerank), store.recommender)

    def evaluate(self) -> MetricsTable:
        """The metrics of the held-out rows, which print as a table: the bundle's metrics.json.

        They were computed once, from the written bundle through ``Recommender.recommend``, before
        anybody could look at the held-out rows.

        Raises:
            InputError: when the bundle has none.
        """
        metrics = read_metrics(self.path)
        if metrics is None:
            raise InputError(
                f"metrics in {self.path}", "none", "train again: a run writes them at its end"
            )
        return MetricsTable(metrics)

    def save(self, path: str | Path) -> Path:
        """Copy the bundle, metrics and report included, to ``path``; a bundle there is replaced.

        ``recsys.load`` reads it, and so does ``python serve.py bundle=<path>``.

        Raises:
            InputError: when the path cannot be a bundle's, or something else is there.
        """
        target = Path(path).absolute()
        target = target.parent.resolve() / check_bundle_name(target.name)
        if target == self.path:
            return target
        if target.is_symlink() or (target.exists() and not (target / MANIFEST_FILE).is_file()):
            raise InputError(
                f"a bundle or nothing at {target}", "something else", "give another path"
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with unfinished(target.parent, target.name) as partial:
                shutil.copytree(self.path, partial, dirs_exist_ok=True)
                for file in [*partial.iterdir(), partial]:
                    fsync(file)
                put_in_place(partial, target)
        except OSError as error:
            raise InputError(
                f"a folder to write to at {target.parent}", str(error), "give another path"
            ) from error
        return target

    def _vector(self, text: str) -> NDArray[np.float32]:
        check_has_text(self.recommender.manifest)
        if self._encoder is None:
            self._encoder = encoder_of_bundle(self.recommender.manifest, self._text_model)
        vector: NDArray[np.float32] = self._encoder.encode([text])[0]
        return vector

    def _frame(self, answers: Sequence[RankedList], known: Recommender) -> pd.DataFrame:
        lengths = np.array([len(answer.item_ids) for answer in answers], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        rows = np.repeat(np.arange(len(answers)), lengths)
        items = list(chain.from_iterable(answer.item_ids for answer in answers))
        users = [answer.user_id for answer in answers]
        user_type = "Int64" if None in users and known.users.holds_integers else _type(known.users)
        scores = [answer.scores for answer in answers]
        return pd.DataFrame(
            {
                USER_ID: pd.Series(users, dtype=user_type).take(rows).reset_index(drop=True),
                ITEM_ID: pd.Series(items, dtype=_type(known.items)),
                TITLE: pd.Series(known.titles(items), dtype="str"),
                "score": np.concatenate([np.zeros(0, np.float32), *scores]),
                "rank": np.arange(len(rows)) - starts[rows] + 1,
                "source": pd.Series([one.source for one in answers], dtype="str")
                .take(rows)
                .reset_index(drop=True),
            }
        )


def _type(ids: Vocabulary) -> str:
    return "int64" if ids.holds_integers else "str"


def _ids(given: Any, known: Vocabulary, what: str) -> list[ExternalId]:
    """Ids as Python holds them, of the type of those of training.

    Raises:
        InputError: when one is of another type; an id that is unknown is none.
    """
    if hasattr(given, "tolist"):  # NumPy, pandas
        given = given.tolist()
    elif hasattr(given, "to_pylist"):  # Arrow
        given = given.to_pylist()
    ids = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    ids = [one.item() if isinstance(one, np.generic) else one for one in ids]
    kind = int if known.holds_integers else str
    other = [one for one in ids if type(one) is not kind]
    if other:
        raise InputError(
            f"{'integers' if kind is int else 'text'} as ids in {what}, as in training",
            f"{type(other[0]).__name__} {shown(other[0])}",
            f"convert them by {kind.__name__}()",
        )
    return ids
