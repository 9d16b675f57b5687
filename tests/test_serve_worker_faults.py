"""``serve.py workers=2`` when workers, bundles, folders and descriptors are out of order."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import write_untrained_bundle
from tests.workers import ROOT, get, metric, serving, until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.slow,
]


@pytest.fixture
def root(untrained_bundle: Path, tmp_path: Path) -> Path:
    """Two bundles, of 90 and of 80 users; ``latest`` names the first."""
    shutil.copytree(untrained_bundle, tmp_path / "first")
    other = write_untrained_bundle(tmp_path / "x", list(range(101, 181)), list(range(1001, 1031)))
    other.rename(tmp_path / "second")
    (tmp_path / "latest").symlink_to("first")
    return tmp_path


JSON = {"Content-Type": "application/json"}


def test_a_long_refusal_is_told_and_leaves_the_server_in_control(root: Path) -> None:
    manifest = (root / "first" / "manifest.json").read_bytes()
    for number in range(600):
        folder = root / f"{number:06d}-{'long' * 50}"
        folder.mkdir()
        (folder / "manifest.json").write_bytes(manifest)
    (root / "empty").mkdir()
    with serving(root / "latest", root / "tmp") as server:
        status, answer = server.reload("empty")
        assert status == 400
        assert "no manifest.json in it" in answer["detail"]
        assert server.reload("second")[0] == 200
        server.kill_one()
        until(server.serves_with_two, seconds=60)


def test_a_stopped_worker_goes_on_and_a_reload_does_not_wait_for_long(root: Path) -> None:
    with serving(root / "latest", root / "tmp") as server:
        victim, other = each = server.to_each_worker()
        os.kill(victim, signal.SIGSTOP)
        each[other].request("POST", "/admin/reload", b'{"name": "second"}', JSON)
        each[other].sock.settimeout(100)
        assert each[other].getresponse().read().startswith(b'{"status":"ok"')
        assert victim in server.workers()


def test_a_cleaned_temporary_folder_costs_nothing(root: Path) -> None:
    total = 'recsys_requests_total{route="/recommend",status="200"}'
    with serving(root / "latest", root / "tmp", "cache.enabled=false") as server:
        for connection in server.to_each_worker().values():
            for user in range(101, 111):
                assert get(connection, f"/recommend?user_id={user}")[0] == 200
        for path in (root / "tmp").iterdir():
            shutil.rmtree(path)

        assert server.metric(total) == 20
        assert server.reload("second")[0] == 200
        for _ in range(2):
            server.kill_one()
            until(server.serves_with_two, seconds=60)
        assert server.metric(total) == 20
        for connection in server.to_each_worker().values():
            assert get(connection, "/recommend?user_id=101")[0] == 200
            until(lambda c=connection: metric(c, total) >= 21)
        assert server.metric(total) == 22
        assert "not shared" not in server.errors.read_text()


def test_without_descriptors_a_worker_is_replaced_later(root: Path) -> None:
    with serving(root / "latest", root / "tmp") as server:
        pid = server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))

        server.kill_one()
        until(lambda: server.errors.read_text().count("does not start; again in") >= 2)
        assert "Too many open files" in server.errors.read_text()
        assert server.metric("recsys_model_info") == 1

        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        until(server.serves_with_two, seconds=60)


def test_many_reloads_at_once_are_few_loads(root: Path) -> None:
    with serving(root / "latest", root / "tmp") as server:
        with ThreadPoolExecutor(20) as clients:
            found = list(clients.map(lambda _: server.reload(None), range(20)))
        assert [status for status, _ in found] == [200] * 20
        for _ in range(300):
            server.process.send_signal(signal.SIGHUP)
        assert server.reload("second")[0] == 200
        # All that comes in while one waits is that one.
        until(lambda: "from now on" in server.errors.read_text())
        assert server.errors.read_text().count("from now on") < 30
        assert server.serves_with_two()


def test_reloads_leave_no_copy_of_what_they_replace(root: Path) -> None:
    with serving(root / "latest", root / "tmp") as server:
        for _ in range(5):
            for name in ("second", "first"):
                assert server.reload(name)[0] == 200
                with server.fresh() as connection:
                    assert get(connection, "/recommend?user_id=101")[0] == 200
        for worker in server.workers():
            maps = Path(f"/proc/{worker}/maps").read_text()
            # A batch may go on with the former.
            assert maps.count("graphs.safetensors") <= 2


def test_nobody_need_read_where_it_listens(root: Path) -> None:
    settings = [f"bundle={root}/latest", "port=0", "device=cpu", "workers=2", "log_level=info"]
    with (root / "log").open("w") as log, Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [sys.executable, "serve.py", *settings],
            cwd=ROOT,
            stdout=full,
            stderr=log,
        )
        try:
            until(lambda: (root / "log").read_text().count("startup complete") == 2, seconds=100)
            assert process.poll() is None
        finally:
            process.terminate()
            assert process.wait(30) in (0, 120)  # 120: what Python says of such an output
