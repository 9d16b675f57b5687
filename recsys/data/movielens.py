"""MovieLens-100K (Harper & Konstan 2015) in its official layout, checked line by line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.movielens_files import MovielensFiles, open_files
from recsys.errors import InputError
from recsys.schema import (
    GENRE_SEPARATOR,
    GENRES,
    ITEM_ID,
    RATING,
    RELEASE_DATE,
    TIMESTAMP,
    TITLE,
    USER_ID,
    YEAR,
    Dataset,
)

OFFICIAL_COUNTS: Mapping[str, int] = {"users": 943, "items": 1682, "ratings": 100_000}
UA_ROWS_PER_USER = 10
"""The official ua.test holds each user's first ten rows of u.data."""

_FRESH_COPY = "use an unmodified copy of ml-100k.zip from GroupLens, or data=sample"
_NON_GENRE = "unknown"
_ARTICLES = (
    "The|A|An|Le|La|Les|L'|Un|Une|Il|Lo|Gli|El|Los|Las|O|Os|Der|Die|Das|Ein|Eine|Det|Den|De|Het"
)
_TRAILING_ARTICLE = re.compile(rf"^(?P<rest>.+), (?P<article>{_ARTICLES})$")
_YEAR_SUFFIX = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*(?:\([A-Z]+\))?$")
_ALTERNATIVE = re.compile(r"^(?P<title>.+?) \((?P<alternative>[^()]+)\)$")


class ParsedTitle(NamedTuple):
    title: str
    year: int | None


def load(
    folder: str | Path,
    archive: str | Path | None = None,
    download: bool = True,
    counts: Mapping[str, int] | None = OFFICIAL_COUNTS,
) -> Dataset:
    """Read and check MovieLens-100K; the interactions stay in the order of ``u.data``.

    Taken from the first of: ``folder``; ``archive`` (a zip, read in place, or a folder);
    ``<folder>.zip``, which an earlier run downloaded; the download from GroupLens.

    Args:
        folder: holds u.data, u.item, u.user and u.genre; u.info, ua.base and ua.test are checked
            when they are there.
        archive: a zip or folder that must exist when it is given; "" counts as not given.
        counts: rows that the set must have ("users", "items", "ratings"); None trusts ``u.info``.

    Raises:
        InputError: when the files can't be had, or differ from what the data set must be. It names
            the file and the line.
    """
    files = open_files(Path(folder), Path(archive) if archive else None, download)
    expected = _expected_counts(files, counts)
    users = _read_users(files, expected["users"])
    items = _read_items(files, expected["items"])
    interactions = _read_ratings(files, "u.data", len(users), len(items))
    _check_row_count(files, "u.data", len(interactions), expected["ratings"], "ratings")
    _check_duplicates(files, interactions)
    check_official_split(files, interactions)
    interactions[RATING] = interactions[RATING].astype(np.float64)
    return Dataset("ml100k", interactions, items, users)


def parse_title(raw: str) -> ParsedTitle:
    """Split off the year and move articles to the front, also in an alternative title.

    "Horseman on the Roof, The (Hussard sur le toit, Le) (1995)" becomes
    ("The Horseman on the Roof (Le Hussard sur le toit)", 1995).
    """
    title, year = raw.strip(), None
    if match := _YEAR_SUFFIX.match(title):
        title, year = match["title"], int(match["year"])
    if match := _ALTERNATIVE.match(title):
        return ParsedTitle(
            f"{_article_first(match['title'])} ({_article_first(match['alternative'])})", year
        )
    return ParsedTitle(_article_first(title), year)


def _article_first(title: str) -> str:
    match = _TRAILING_ARTICLE.match(title)
    if match is None:
        return title
    space = "" if match["article"].endswith("'") else " "
    return f"{match['article']}{space}{match['rest']}"


def check_official_split(files: MovielensFiles, interactions: pd.DataFrame) -> None:
    """Compare ua.base and ua.test, where present, with the split rebuilt from ``u.data``.

    Copies are in circulation whose ua.base holds all rows, so that a model is tested on what it
    was trained on.

    Raises:
        InputError: naming the file, the number of wrong rows and the line of the first.
    """
    is_test = interactions.groupby(USER_ID).cumcount().to_numpy() < UA_ROWS_PER_USER
    keys = _row_keys(interactions)
    for name, expected, leaked in (
        ("ua.base", keys[~is_test], keys[is_test]),
        ("ua.test", keys[is_test], keys[~is_test]),
    ):
        if not files.has(name):
            continue
        rows = _read_ratings(files, name, None, None)
        found = _row_keys(rows)
        wrong = np.isin(found, leaked)
        if wrong.any():
            other = "test" if name == "ua.base" else "training"
            raise InputError(
                f"{files.path(name)} without {other} rows",
                f"{wrong.sum():,} {other} rows of {len(found):,}, first "
                f"{files.quote(name, int(wrong.argmax()))}",
                f"the copy is leaked: {_FRESH_COPY}",
            )
        foreign = ~np.isin(found, expected)
        if foreign.any():
            raise InputError(
                f"{files.path(name)} to hold rows of u.data only",
                f"{foreign.sum():,} others, first {files.quote(name, int(foreign.argmax()))}",
                _FRESH_COPY,
            )
        repeated = pd.Series(found).duplicated().to_numpy()
        if repeated.any():
            raise InputError(
                f"{files.path(name)} to hold each row once",
                f"{repeated.sum():,} repeated, first {files.quote(name, int(repeated.argmax()))}",
                _FRESH_COPY,
            )
        _check_row_count(files, name, len(found), len(expected), "rows")


def _row_keys(rows: pd.DataFrame) -> NDArray[np.uint64]:
    columns = [USER_ID, ITEM_ID, RATING, TIMESTAMP]
    hashes = pd.util.hash_pandas_object(rows[columns], index=False)
    return np.asarray(hashes.to_numpy(), dtype=np.uint64)


def _expected_counts(files: MovielensFiles, counts: Mapping[str, int] | None) -> dict[str, int]:
    stated: dict[str, int] = {}
    if files.has("u.info"):
        for number, line in enumerate(files.lines("u.info")):
            match = re.fullmatch(r"(\d+) (users|items|ratings)", line.strip())
            if match is None:
                raise InputError(
                    "lines such as '943 users'", files.quote("u.info", number), _FRESH_COPY
                )
            stated[match[2]] = int(match[1])
    expected = dict(counts) if counts is not None else stated
    for name in ("users", "items", "ratings"):
        if name not in expected:
            raise InputError(
                f"the number of {name} in {files.path('u.info')} or in the config",
                "neither",
                _FRESH_COPY,
            )
        if stated.get(name, expected[name]) != expected[name]:
            raise InputError(
                f"{expected[name]:,} {name} in {files.path('u.info')}",
                f"{stated[name]:,}",
                _FRESH_COPY,
            )
    return expected


def _read_ratings(
    files: MovielensFiles, name: str, num_users: int | None, num_items: int | None
) -> pd.DataFrame:
    """``user_id, item_id, rating, timestamp`` (int64) in file order; None skips the id check."""
    lines = pd.Series(files.lines(name), dtype="str")
    good = lines.str.fullmatch(r"[0-9]{1,9}\t[0-9]{1,9}\t[0-9]{1,9}\t[0-9]{1,12}").to_numpy(bool)
    if not good.all():
        raise InputError(
            "four integers 'user item rating timestamp' with tabs between them",
            files.quote(name, int(good.argmin())),
            _FRESH_COPY,
        )
    values = np.array("\t".join(lines).split("\t") if len(lines) else [], dtype=np.int64)
    columns = [USER_ID, ITEM_ID, RATING, TIMESTAMP]
    rows = pd.DataFrame(values.reshape(-1, 4), columns=columns)
    for column, low, high in (
        (USER_ID, 1, num_users),
        (ITEM_ID, 1, num_items),
        (RATING, 1, 5),
    ):
        if high is None:
            continue
        outside = ~rows[column].between(low, high).to_numpy()
        if outside.any():
            raise InputError(
                f"{column} in {low}..{high}", files.quote(name, int(outside.argmax())), _FRESH_COPY
            )
    return rows


def _check_row_count(
    files: MovielensFiles, name: str, found: int, expected: int, what: str
) -> None:
    if found != expected:
        state = "truncated" if found < expected else "too long"
        raise InputError(
            f"{expected:,} {what} in {files.path(name)}",
            f"{found:,}: the file is {state}, it ends at line {found:,}",
            _FRESH_COPY,
        )


def _check_duplicates(files: MovielensFiles, interactions: pd.DataFrame) -> None:
    repeated = interactions.duplicated([USER_ID, ITEM_ID]).to_numpy()
    if repeated.any():
        raise InputError(
            "one rating per user and item",
            f"{repeated.sum():,} repeated, first {files.quote('u.data', int(repeated.argmax()))}",
            _FRESH_COPY,
        )


def _table(files: MovielensFiles, name: str, num_fields: int) -> pd.DataFrame:
    """The fields of a '|'-separated file as strings, one row per line."""
    lines = files.lines(name)
    fields = [line.split("|") for line in lines]
    for number, row in enumerate(fields):
        if len(row) != num_fields:
            raise InputError(
                f"{num_fields} fields separated by '|'", files.quote(name, number), _FRESH_COPY
            )
    return pd.DataFrame(fields, columns=range(num_fields), dtype="str")


def _consecutive_ids(files: MovielensFiles, name: str, ids: "pd.Series[str]") -> pd.Index:
    expected = pd.RangeIndex(1, len(ids) + 1)
    wrong = (ids != expected.astype(str)).to_numpy(bool)
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"id {first + 1} in the first field", files.quote(name, first), _FRESH_COPY
        )
    return expected


def _read_users(files: MovielensFiles, num_users: int) -> pd.DataFrame:
    table = _table(files, "u.user", 5)
    _check_row_count(files, "u.user", len(table), num_users, "users")
    ids = _consecutive_ids(files, "u.user", table[0])
    is_age = table[1].str.fullmatch(r"[0-9]{1,3}").to_numpy(bool)
    if not is_age.all():
        raise InputError(
            "an age in the second field", files.quote("u.user", int(is_age.argmin())), _FRESH_COPY
        )
    return pd.DataFrame(
        {
            USER_ID: ids.to_numpy(np.int64),
            "age": table[1].astype(np.int64),
            "gender": table[2],
            "occupation": table[3],
        }
    )


def _read_items(files: MovielensFiles, num_items: int) -> pd.DataFrame:
    lines = [line for line in files.lines("u.genre") if line]
    genres = np.array([line.split("|")[0] for line in lines], dtype=object)
    table = _table(files, "u.item", 5 + len(genres))
    _check_row_count(files, "u.item", len(table), num_items, "items")
    ids = _consecutive_ids(files, "u.item", table[0])
    flags = table.iloc[:, 5:].to_numpy(object)
    bad = ~np.isin(flags.astype(str), ["0", "1"]).all(axis=1)
    if bad.any():
        raise InputError(
            "0 or 1 in each genre field", files.quote("u.item", int(bad.argmax())), _FRESH_COPY
        )
    named = genres != _NON_GENRE
    titles = [parse_title(raw) for raw in table[1]]
    return pd.DataFrame(
        {
            ITEM_ID: ids.to_numpy(np.int64),
            TITLE: pd.array(
                [t.title or raw for t, raw in zip(titles, table[1], strict=True)], "str"
            ),
            GENRES: pd.array(
                [GENRE_SEPARATOR.join(genres[named & (row == "1")]) for row in flags], "str"
            ),
            YEAR: pd.array([t.year for t in titles], "Int64"),
            RELEASE_DATE: _release_dates(files, table[2]),
        }
    )


def _release_dates(files: MovielensFiles, text: "pd.Series[str]") -> "pd.Series[str]":
    """``14-Mar-1997`` as ``1997-03-14``; empty stays empty."""
    dates = pd.to_datetime(text, format="%d-%b-%Y", errors="coerce")
    bad = (dates.isna() & (text != "")).to_numpy()
    if bad.any():
        raise InputError(
            "a release date such as 14-Mar-1997, or none",
            files.quote("u.item", int(bad.argmax())),
            _FRESH_COPY,
        )
    return dates.dt.strftime("%Y-%m-%d").fillna("").astype("str")
