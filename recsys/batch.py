"""Batch scoring: ``python -m recsys.batch users=all top_k=100 output=recs.parquet``."""

import itertools
import logging
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from recsys import cli
from recsys.errors import InputError
from recsys.table_writer import check_suffix, table_writer

# What is heavy is imported where it is used, so that --help and errors answer at once.
if TYPE_CHECKING:
    import pyarrow as pa

    from recsys.data.vocabulary import Vocabulary
    from recsys.recommender import Recommender
    from recsys.rules.rules import Rules
    from recsys.schema import ExternalId, RankedList

log = logging.getLogger(__name__)

ALL = "all"
_ROWS_PER_GROUP = 500_000
_LISTS = (".txt", ".lst")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


def main(config: DictConfig) -> None:
    """Load the bundle, read the store, choose the users, write their lists.

    Raises:
        InputError: on a bundle, store, device, users, rules, sizes or an output that will not do.
    """
    output = Path(str(config.output))
    check_suffix(output)
    from recsys.core.threads import chosen_threads, use_threads
    from recsys.device import resolve_device
    from recsys.recommender import Recommender
    from recsys.store_reader import StoreReader

    use_threads(chosen_threads(config.threads, 0))
    bundle = Path(str(config.bundle))
    recommender = Recommender.load(bundle, resolve_device(config.device))
    use_threads(chosen_threads(config.threads, len(recommender.items)))
    told: Any = OmegaConf.to_container(config, resolve=True)
    rules = recommender.checked_rules(told["rules"])
    users, recommend = str(config.users), recommender.recommend
    with ExitStack() as stack:
        everybody: Sequence[ExternalId] = recommender.users.ids.tolist()
        if config.store is not None:
            reader = StoreReader(
                recommender,
                str(config.store),
                bundle,
                text_model=None if config.text_model is None else str(config.text_model),
                **told["exploration"],
            )
            store = stack.enter_context(reader.reading())
            recommender, recommend = store.recommender, store.recommend
            everybody = store.users() if users == ALL else everybody
        write_recommendations(
            recommender,
            everybody if users == ALL else select_users(users, recommender.users),
            output,
            top_k=config.top_k,
            rerank=config.rerank,
            batch_size=config.batch_size,
            with_titles=config.with_titles,
            rules=rules,
            recommend=recommend,
        )


def select_users(users: str, vocabulary: "Vocabulary") -> "list[ExternalId]":
    """The ids that a ``users=`` value asks for, each once.

    Args:
        users: ``all`` (in the order of the vocabulary), a comma list of ids, or the path of a file:
            a table as for training (CSV, TSV or Parquet) with a column ``user_id``, or ``.txt`` or
            ``.lst`` with one id per line. What looks like a path is one, unless it is an id.

    Raises:
        InputError: when the file is missing or has no such column, or an id is empty or not of the
            vocabulary's type.
    """
    if users == ALL:
        return list(vocabulary.ids.tolist())
    is_file = not _are_known(users.split(","), vocabulary) and _looks_like_file(users)
    ids = (
        _read_ids(Path(users), vocabulary)
        if is_file
        else [part.strip() for part in users.split(",")]
    )
    origin = users if is_file else f"users={users}"
    wrong = [text for text in ids if not _is_id(text, vocabulary.holds_integers)]
    if wrong or not ids:
        kind = "integer" if vocabulary.holds_integers else "string"
        raise InputError(
            f"{kind} user ids in {origin}",
            ", ".join(map(repr, wrong[:3])) or "none",
            "give ids as in training: all, a comma list, or a .txt, .csv, .tsv or .parquet file",
        )
    parsed = [int(text) if vocabulary.holds_integers else text for text in ids]
    return list(dict.fromkeys(parsed))


def write_recommendations(
    recommender: "Recommender",
    user_ids: "Sequence[ExternalId]",
    output: Path,
    *,
    top_k: int,
    rerank: bool = True,
    batch_size: int = 256,
    with_titles: bool = False,
    rules: "Rules | None" = None,
    recommend: "Callable[..., list[RankedList]] | None" = None,
) -> None:
    """Write ``user_id, rank`` (int32, from 1), ``item_id, score`` (float32), ``source`` per user,
    best first, in the format that the file's name ends in; see ``table_writer``.

    The file appears under its name when it is complete. Users of whom nothing is known get the
    popular items, as in serving, and are counted in the log.

    Args:
        batch_size: users between two steps of the progress bar, rounded up to whole batches of the
            recommender so that lists do not depend on it.
        with_titles: whether there is a column ``title``. rules: of all lists. recommend: makes
            them, such as ``OpenStore.recommend``; None: as of training.

    Raises:
        InputError: when ``top_k`` or ``batch_size`` is below 1, or ``output`` cannot be written.
    """
    import pyarrow as pa
    from rich.console import Console
    from rich.progress import track

    from recsys.recommender import BATCH_SIZE
    from recsys.request import Request
    from recsys.rules import Rules

    for name, value in (("top_k", top_k), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name} of at least 1", str(value), f"set {name}=100")
    batch_size = -(-batch_size // BATCH_SIZE) * BATCH_SIZE
    recommend, rules = recommend or recommender.recommend, rules or Rules()
    schema = _schema(recommender, with_titles=with_titles)
    pending: list[pa.Table] = []
    num_rows = num_popular = 0
    starts = track(
        range(0, len(user_ids), batch_size),
        description="scoring users",
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    with table_writer(output, schema) as write:
        for start in starts:
            requests = [
                Request(top_k=top_k, user_id=user_id, rules=rules)
                for user_id in user_ids[start : start + batch_size]
            ]
            answers = recommend(requests, rerank=rerank)
            pending.append(_as_table(answers, schema, recommender))
            num_rows += len(pending[-1])
            num_popular += sum(answer.source == "popular" for answer in answers)
            if sum(map(len, pending)) >= _ROWS_PER_GROUP:
                write(pa.concat_tables(pending))
                pending = []
        if pending:
            write(pa.concat_tables(pending))
    log.info(
        "%s: %d rows for %d users by %s",
        *(output, num_rows, len(user_ids), recommender.model_version),
    )
    if num_popular:
        log.info("%d users of whom nothing is known got the popular items", num_popular)


def _are_known(ids: Sequence[str], vocabulary: "Vocabulary") -> bool:
    integers = vocabulary.holds_integers
    given = [text.strip() for text in ids]
    return all(
        _is_id(text, integers) and (int(text) if integers else text) in vocabulary for text in given
    )


def _looks_like_file(users: str) -> bool:
    from recsys.data.tables import FILE_SUFFIXES

    path = Path(users)
    try:
        exists = path.exists()
    except (OSError, ValueError):  # a list of ids that is too long for a name
        exists = False
    return exists or path.suffix.lower() in FILE_SUFFIXES or "/" in users


def _read_ids(path: Path, vocabulary: "Vocabulary") -> list[str]:
    """The ids of a file as text; a missing one as the empty string."""
    import pandas as pd

    from recsys.data.cells import are_ids, ids_of_floats
    from recsys.data.encodings import decoded, read_text
    from recsys.data.tables import read_table
    from recsys.schema import USER_ID

    if path.suffix.lower() in _LISTS and path.is_file():
        lines = [line.strip() for line in decoded(path, read_text(path), "utf-8").split("\n")]
        lines = [line for line in lines if line]
        if lines[:1] == [USER_ID] or USER_ID not in re.split(r"[,;|\t]", "".join(lines[:1])):
            return [line for line in lines if line != USER_ID]
    table = read_table(path, "users", wanted=[USER_ID])
    if USER_ID not in table.frame:
        columns = ", ".join(table.names)[:500]
        raise InputError(f"a column {USER_ID} in {path}", columns, f"rename one to {USER_ID}")
    ids: pd.Series[str] = table.frame[USER_ID].str.strip()
    if vocabulary.holds_integers or not ids.isin(vocabulary.ids).any():
        ids = ids_of_floats(ids, f"{USER_ID!r} of {path}")
    return list(ids.mask(~are_ids(ids), ""))


def _is_id(text: str, integer: bool) -> bool:
    if not integer:
        return text != ""
    return bool(_INTEGER.fullmatch(text)) and -(2**63) <= int(text) < 2**63


def _schema(recommender: "Recommender", *, with_titles: bool) -> "pa.Schema":
    import pyarrow as pa

    def id_type(vocabulary: "Vocabulary") -> Any:
        return pa.int64() if vocabulary.holds_integers else pa.string()

    columns = [
        ("user_id", id_type(recommender.users)),
        ("rank", pa.int32()),
        ("item_id", id_type(recommender.items)),
        ("score", pa.float32()),
        ("source", pa.string()),
    ]
    return pa.schema([*columns, ("title", pa.string())] if with_titles else columns)


def _as_table(
    answers: "list[RankedList]", schema: "pa.Schema", recommender: "Recommender"
) -> "pa.Table":
    import numpy as np
    import pyarrow as pa

    lengths = np.array([len(answer.item_ids) for answer in answers])
    ends = lengths.cumsum()
    of_each = np.repeat(np.arange(len(answers)), lengths)
    items = list(itertools.chain.from_iterable(answer.item_ids for answer in answers))
    columns = {
        "user_id": pa.array([one.user_id for one in answers], schema.field("user_id").type),
        "rank": np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths) + 1,
        "item_id": items,
        "score": np.concatenate([answer.scores for answer in answers]),
        "source": pa.array([one.source for one in answers], pa.string()),
    }
    for name in ("user_id", "source"):
        columns[name] = columns[name].take(pa.array(of_each))
    if "title" in schema.names:
        columns["title"] = recommender.titles(items)
    return pa.table(columns, schema=schema)


if __name__ == "__main__":
    cli.run(main, "batch", comma_lists=["users"])
