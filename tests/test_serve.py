"""serve.py and recsys.batch as a user runs them: processes, with their status and last words."""

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pandas as pd
import pytest

from recsys.recommender import Recommender
from recsys.request import Request

ROOT = Path(__file__).parents[1]
SERVE = ["serve.py"]
BATCH = ["-m", "recsys.batch"]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def fetch(url: str) -> dict:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


@pytest.mark.parametrize(("level", "lines"), [("info", 1), ("warning", 0)])
def test_requests_are_logged_at_the_level_that_is_set(
    untrained_bundle: Path, level: str, lines: int
) -> None:
    settings = [f"bundle={untrained_bundle}", "port=0", "device=cpu", f"log_level={level}"]
    with subprocess.Popen(
        [sys.executable, "serve.py", *settings],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        url = server.stdout.readline().split(" (API: ")[0].split(": ")[1]
        fetch(f"{url}/recommend?user_id=123&top_k=5")
        server.terminate()
        logged = [json.loads(line) for line in server.stderr.read().splitlines()]
    assert sum(entry["message"] == "request" for entry in logged) == lines


def test_serves_what_the_recommender_answers(untrained_bundle: Path, untrained_recommender):
    command = [sys.executable, "serve.py", f"bundle={untrained_bundle}", "port=0", "device=cpu"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            line = server.stdout.readline()
            assert f"Serving {untrained_recommender.model_version} on cpu: http://" in line
            url = line.split(" (API: ")[0].split(": ")[1]
            answer = fetch(f"{url}/recommend?user_id=123&top_k=5")
            ready = fetch(f"{url}/health/ready")
        finally:
            server.terminate()
    expected = untrained_recommender.recommend([Request(top_k=5, user_id=123)])[0]
    assert answer["top_items"] == expected.item_ids
    assert answer["source"] == "reranked"
    assert ready["status"] == "ok"


@pytest.mark.parametrize(
    ("users", "ids"), [("all", list(range(101, 191))), ("102,101", [102, 101])]
)
def test_batch_writes_what_the_recommender_answers(
    users: str, ids: list[int], untrained_bundle: Path, untrained_recommender: Recommender, tmp_path
):
    output = tmp_path / "recs.parquet"
    settings = [f"bundle={untrained_bundle}", f"output={output}", "top_k=5", "device=cpu"]
    done = call(*BATCH, f"users={users}", *settings)
    assert (done.returncode, done.stdout) == (0, "")
    version = untrained_recommender.model_version
    assert done.stderr == f"{output}: {5 * len(ids)} rows for {len(ids)} users by {version}\n"
    answers = untrained_recommender.recommend([Request(5, user) for user in ids])
    items = pd.read_parquet(output)["item_id"].tolist()
    assert items == [item for answer in answers for item in answer.item_ids]


@pytest.mark.parametrize("command", [SERVE, BATCH])
def test_a_missing_bundle_names_the_command_that_makes_one(command: list[str], tmp_path: Path):
    done = call(*command, f"bundle={tmp_path}/none")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: expected a bundle in {tmp_path}/none; found no such folder; "
        "run: python train.py stage=all\n"
    )


def test_a_flipped_byte_ends_in_one_line(untrained_bundle: Path, tmp_path: Path):
    broken = Path(shutil.copytree(untrained_bundle, tmp_path / "broken"))
    file = broken / "two_tower.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    done = call(*SERVE, f"bundle={broken}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "(the file is damaged); restore the file, or run: python train.py" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SERVE, "port=x"], "expected an integer for 'port'; found 'x'"),
        ([*SERVE, "exploration.places=[11,0]"], "expected exploration.places, different places"),
        ([*SERVE, "exploration.places=11"], "expected a list for 'exploration.places'; found 11"),
        ([*BATCH, "topk=5"], "unknown key 'topk'; did you mean 'top_k'?"),
    ],
)
def test_a_wrong_setting_ends_in_one_line(arguments: list[str], message: str):
    done = call(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


@pytest.mark.parametrize("command", [SERVE, BATCH])
def test_help_imports_nothing_heavy(command: list[str]):
    done = call("-X", "importtime", *command, "--help")
    assert done.returncode == 0
    assert "bundle       the folder that train.py wrote" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "pandas", "faiss", "pyarrow", "fastapi", "numpy"}
