"""A tiny data set in the layout of MovieLens-100K, with counts of its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

NUM_USERS, NUM_ITEMS, ROWS_PER_USER = 3, 20, 12
GENRES = ("unknown", "Action", "Children's", "Drama")


def tiny_rows() -> list[str]:
    """Lines of u.data: each user rates 12 of 20 items, the users' rows mixed."""
    rng = np.random.default_rng(0)
    rows = [
        f"{user}\t{item}\t{rng.integers(1, 6)}\t{880_000_000 + int(rng.integers(10**6))}"
        for user in range(1, NUM_USERS + 1)
        for item in rng.permutation(NUM_ITEMS)[:ROWS_PER_USER] + 1
    ]
    return [rows[position] for position in rng.permutation(len(rows))]


def ua_lines(rows: list[str]) -> tuple[list[str], list[str]]:
    """(ua.base, ua.test) as GroupLens makes them: first ten rows per user are test; sorted."""
    seen: dict[str, int] = {}
    base, test = [], []
    for row in rows:
        user = row.split("\t")[0]
        seen[user] = seen.get(user, 0) + 1
        (test if seen[user] <= 10 else base).append(row)
    return sorted(base), sorted(test)


WriteTiny = Callable[..., Path]


def write_files(parent: Path, **replaced: list[str] | None) -> Path:
    """Write the set; keywords replace the lines of a file (``u_data=[...]``), None omits it."""
    rows = tiny_rows()
    base, test = ua_lines(rows)
    titles = ["Toy Story (1995)", "Boot, Das (1981)", "Misérables, Les (1995)", "unknown"]
    titles += [f"Film {number} (1990)" for number in range(5, NUM_ITEMS + 1)]
    flags = ["0|0|1|0", "0|1|0|1", "0|0|0|1", "1|0|0|0"] + ["0|1|0|0"] * (NUM_ITEMS - 4)
    files: dict[str, list[str] | None] = {
        "u.info": [f"{NUM_USERS} users", f"{NUM_ITEMS} items", f"{len(rows)} ratings"],
        "u.data": rows,
        "u.item": [
            f"{number}|{title}|01-Jan-1995||http://x|{flag}"
            for number, (title, flag) in enumerate(zip(titles, flags, strict=True), 1)
        ],
        "u.user": [f"{user}|{20 + user}|F|writer|12345" for user in range(1, NUM_USERS + 1)],
        "u.genre": [f"{genre}|{number}" for number, genre in enumerate(GENRES)] + [""],
        "ua.base": base,
        "ua.test": test,
    }
    files |= {name.replace("_", "."): lines for name, lines in replaced.items()}
    folder = parent / "ml-100k"
    folder.mkdir()
    for name, lines in files.items():
        if lines is not None:
            text = "".join(line + "\n" for line in lines)
            (folder / name).write_bytes(text.encode("latin-1"))
    return folder
