"""What a turn does at its end, killed with SIGKILL before each single file operation in turn."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.bundle import make_latest, read_bundle
from recsys.refresh import promotion
from recsys.refresh.leftovers import remove_leftovers, remove_old

ROOT = Path(__file__).parents[2]
LINE = {"champion": "a", "challenger": "b", "promoted": True}
# A copy of itself for each operation is killed there; the last copy, which has none left, ends.
DRIVER = """
import os, shutil, signal, sys
from pathlib import Path
from recsys.refresh.leftovers import remove_leftovers, remove_old
from recsys.refresh.promotion import promote, settle

OPERATIONS = {"os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir"}
start, out = Path(sys.argv[1]), Path(sys.argv[2])
number = 0
while True:
    root = out / str(number)
    shutil.copytree(start, root, symlinks=True)
    child = os.fork()
    if not child:
        left = number

        def hook(event, arguments):
            global left
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if event in OPERATIONS or writes:
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        sys.addaudithook(hook)
        exec(sys.argv[3])
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    number += 1
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


def killed_everywhere(start: Path, out: Path, code: str) -> list[Path]:
    """A copy of a folder for each operation before which the code was killed, in order; the last is
    of a run that came to its end.
    """
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, start, out, code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return sorted(out.iterdir(), key=lambda path: int(path.name))


def add_run(root: Path, name: str, *, complete: bool) -> None:
    folder = root / "logs" / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"complete": complete}))


@pytest.fixture
def shop(untrained_bundle: Path, tmp_path: Path) -> Path:
    """A champion that is served, and a challenger."""
    root = tmp_path / "shop"
    for name in ("champion", "shop-refresh-1"):
        shutil.copytree(untrained_bundle, root / name)
    add_run(root, "shop-refresh-1", complete=True)
    make_latest(root / "champion")
    return root


def lines(root: Path) -> list[dict]:
    file = root / promotion.HISTORY_FILE
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_promotion_is_whole_or_has_not_been(shop: Path, tmp_path: Path) -> None:
    code = f"promote(root / 'shop-refresh-1', {LINE}); settle(root, None, None)"
    roots = killed_everywhere(shop, tmp_path / "out", code)
    served = [(root / "latest").resolve().name for root in roots]
    assert set(served) == {"champion", "shop-refresh-1"}
    assert served == sorted(served)  # the champion up to one moment, the challenger from there on
    assert len(roots) > 4
    for root, name in zip(roots, served, strict=True):
        assert read_bundle(root / "latest").path.name == name
        promotion.go_on(root)
        assert lines(root) == ([LINE] if name == "shop-refresh-1" else [])
        promotion.go_on(root)  # as if killed again
        promotion.settle(root, None, None)
        assert len(lines(root)) == (name == "shop-refresh-1")
        remove_leftovers(root, "shop-refresh-")
        visible = {"champion", "shop-refresh-1", "latest", "logs", promotion.HISTORY_FILE}
        assert {one.name for one in root.iterdir() if not one.is_symlink()} <= visible
        assert (root / "shop-refresh-1").exists()


def test_a_server_that_was_not_told_is_told_by_the_next_turn(shop: Path, tmp_path: Path) -> None:
    code = f"promote(root / 'shop-refresh-1', {LINE}); settle(root, 'http://127.0.0.1:9', None)"
    for root in killed_everywhere(shop, tmp_path / "out", f"try: {code}\nexcept ValueError: pass"):
        promotion.go_on(root)
        if (root / "latest").resolve().name == "champion":
            promotion.settle(root, "http://127.0.0.1:9", None)  # nothing to tell
            continue
        with pytest.raises(ValueError, match="to serve the new model"):
            promotion.settle(root, "http://127.0.0.1:9", None)
        assert len(lines(root)) == 1


def test_a_bundle_is_removed_as_a_whole(shop: Path, tmp_path: Path) -> None:
    code = "remove_old(root, 'shop-refresh-', 0, [])"
    roots = killed_everywhere(shop, tmp_path / "out", code)
    assert len(roots) > 5
    for root in roots:
        if (root / "shop-refresh-1").exists():
            read_bundle(root / "shop-refresh-1")
        remove_leftovers(root, "shop-refresh-")
        remove_old(root, "shop-refresh-", 0, [])
        assert {one.name for one in root.iterdir()} == {"champion", "latest", "logs"}
        assert not [*(root / "logs").iterdir()]


def test_what_killed_trainings_leave_behind_goes(shop: Path) -> None:
    (shop / "shop-refresh-2").mkdir()
    (shop / "shop-refresh-2" / "manifest.json").write_text("{}")
    for name in ("shop-refresh-2", "shop-refresh-3"):  # the second had no bundle yet
        add_run(shop, name, complete=False)
    (shop / ".shop-refresh-4.abcd.partial").mkdir()
    others = [shop / ".other.abcd.partial", shop / "logs" / "shop-stageall-1"]
    for one in others:
        one.mkdir()
    remove_leftovers(shop, "shop-refresh-")
    assert all(one.exists() for one in others)
    expected = {"champion", "shop-refresh-1", "latest", "logs", others[0].name}
    assert {one.name for one in shop.iterdir()} == expected
    assert {one.name for one in (shop / "logs").iterdir()} == {"shop-refresh-1", "shop-stageall-1"}


def test_what_is_served_is_never_left_behind(shop: Path) -> None:
    add_run(shop, "shop-refresh-2", complete=False)
    shutil.copytree(shop / "champion", shop / "shop-refresh-2")
    make_latest(shop / "shop-refresh-2")
    remove_leftovers(shop, "shop-refresh-")
    assert read_bundle(shop / "latest").path.name == "shop-refresh-2"
