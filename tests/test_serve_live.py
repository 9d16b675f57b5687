"""Events and deletions while ``serve.py`` runs, in the processes that a user would have."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.live import ask, event, post, recommended, stored_event_ids
from tests.workers import serving, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc"),
]


def test_an_event_counts_on_the_other_worker_after_few_of_its_answers(
    untrained_bundle: Path, store_url: str, tmp_path: Path
) -> None:
    # Counted in answers of that worker, which slow down as its looks at the store do where the
    # machine is busy: about ten to a look. Without looks it would find the event at its checks,
    # hundreds of answers later.
    with serving(untrained_bundle, tmp_path / "x", f"store.url={store_url}") as server:
        first, second = server.to_each_worker().values()
        answers = []
        for turn in range(20):
            user = 101 + turn
            item = recommended(second, user)["top_items"][0]
            assert post(first, event(f"t{turn}", user, item))[0] == 200
            started = time.monotonic()
            # The worker that took it knows it at once.
            assert item not in recommended(first, user)["top_items"]
            number = 1
            while item in recommended(second, user)["top_items"]:
                assert time.monotonic() - started < 20
                number += 1
            answers.append(number)
        assert statistics.median(answers) < 100, answers


def test_events_change_the_taste_and_dismissed_items_go(
    untrained_bundle: Path, store_url: str, tmp_path: Path
) -> None:
    with serving(untrained_bundle, tmp_path / "x", f"store.url={store_url}") as server:
        connection = server.connect()
        # A user whom training never met.
        assert recommended(connection, 7)["source"] == "popular"
        assert post(connection, event("a", 7, 1003), event("b", 7, 1005, "dismiss"))[0] == 200
        by_events = recommended(connection, 7)
        assert by_events["source"] == "reranked"
        _, answer = ask(connection, "POST", "/recommend", {"history": [1003], "top_k": 30})
        (by_history,) = answer["results"]
        by_history["top_items"].remove(1005)
        assert by_events["top_items"] == by_history["top_items"]
        # What is sent again counts once.
        assert post(connection, event("a", 7, 1003))[1] == {
            "accepted": 0,
            "duplicates": 1,
            "unknown_items": 0,
        }


def test_a_deleted_user_is_forgotten_by_all_workers_and_after_a_restart(
    untrained_bundle: Path, store_url: str, tmp_path: Path
) -> None:
    option = f"store.url={store_url}"
    with serving(untrained_bundle, tmp_path / "x", option) as server:
        first, second = server.to_each_worker().values()
        for connection in (first, second):
            assert recommended(connection, 104)["source"] == "reranked"
        assert post(first, event("a", 104, 1020))[0] == 200
        assert ask(first, "DELETE", "/users/104") == (200, {"user_id": 104, "forgotten": True})
        assert recommended(first, 104)["source"] == "popular"
        until(lambda: recommended(second, 104)["source"] == "popular")
        assert recommended(first, 105)["source"] == "reranked"
    assert stored_event_ids(store_url) == []
    with serving(untrained_bundle, tmp_path / "y", option) as server:
        connection = server.connect()
        assert recommended(connection, 104)["source"] == "popular"
        assert post(connection, event("b", 104, 1003))[0] == 200
        assert recommended(connection, 104)["source"] == "reranked"


def test_a_store_for_other_ids_ends_in_one_line(
    untrained_bundle: Path, string_id_bundle: Path, tmp_path: Path
) -> None:
    option = f"store.url=sqlite+aiosqlite:///{tmp_path}/events.db"
    with serving(untrained_bundle, tmp_path / "x", option):
        pass
    command = ["serve.py", f"bundle={string_id_bundle}", "device=cpu", "port=0", option]
    for more in ("workers=1", "workers=2"):
        done = subprocess.run(
            [sys.executable, *command, more],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1].startswith("error: expected an event store for")
        assert "Traceback" not in done.stderr
