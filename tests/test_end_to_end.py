"""The whole road on the bundled sample, by the commands that a user types."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.bundle import list_bundles, read_manifest
from recsys.data import sample
from recsys.data.splits import make_split
from recsys.events.store import EventStore
from recsys.export_events import export
from recsys.recommender import Recommender
from recsys.request import Request

ROOT = Path(__file__).parents[1]
QUICK = ["data=sample", "experiment=quick"]


def command(*arguments: str, cache: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "RECSYS_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(process: "subprocess.Popen[str]", status: int = 0) -> str:
    output, _ = process.communicate(timeout=280)
    assert process.returncode == status, output
    return output


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text vectors are embedded once for all the runs below."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, str]:
    """The output folder of ``stage=all``, and what it printed."""
    root = tmp_path_factory.mktemp("trained")
    output = finished(command("train.py", *QUICK, f"output_dir={root}", cache=cache))
    return root, output


def metrics_of(root: Path) -> dict:
    return json.loads((root / "latest" / "metrics.json").read_text())


def test_a_run_says_what_it_made_and_where(trained) -> None:
    root, output = trained
    assert "stage 2 (cross-encoder)" in output
    assert f"tensorboard --logdir {root}" in output
    assert "python serve.py bundle=" in output
    assert "\x1b[" not in output  # quiet off a terminal
    assert "GPU available" not in output


def test_even_a_quick_run_beats_popularity(trained) -> None:
    metrics = metrics_of(trained[0])
    for stage in ("stage1", "stage2"):
        assert metrics[stage]["recall@100"] > metrics["baselines"]["popularity"]["recall@100"]
        assert metrics[stage]["ndcg@10"] > 1.5 * metrics["baselines"]["popularity"]["ndcg@10"]


def test_tensorboard_has_losses_metrics_and_the_projector(trained) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (logs,) = (trained[0] / "logs").glob("*/tensorboard")
    for stage, metric in (("stage1", "val/recall@100"), ("stage2", "val/ndcg@10")):
        events = EventAccumulator(str(logs / stage)).Reload()
        tags = events.Tags()["scalars"]
        assert {"train/loss", metric, "throughput/rows_per_second"} <= set(tags)
        assert any(tag.startswith("lr-") for tag in tags)
    results = EventAccumulator(str(logs / "results")).Reload()
    (table,) = results.Tensors("results/text_summary")[0].tensor_proto.string_val
    assert table.decode().startswith("### sample, split random, 300 users")
    (hparams,) = results.PluginTagToContent("hparams").keys() & {"_hparams_/session_start_info"}
    assert b"sample" in results.PluginTagToContent("hparams")[hparams]
    metadata = next((logs / "results").rglob("metadata.tsv")).read_text().splitlines()
    assert len(metadata) == 1 + len(sample.load().items)


def test_the_report_names_the_data_set_and_its_size(trained) -> None:
    report = (trained[0] / "latest" / "report.html").read_text()
    assert "<h1>sample, split random</h1>" in report
    assert "sample, split random: 300 users, 400 items, 12,050 training and 2,950 held" in report


def test_batch_lists_reproduce_metrics_json(trained, cache, tmp_path) -> None:
    """Recomputed from the Parquet file by definitions written out here, in plain Python."""
    root, _ = trained
    output = tmp_path / "recs.parquet"
    finished(
        command(
            *["-m", "recsys.batch", "users=all", "top_k=100"],
            *[f"output={output}", f"bundle={root / 'latest'}"],
            cache=cache,
        )
    )
    recs = pd.read_parquet(output)
    assert list(recs.columns) == ["user_id", "rank", "item_id", "score", "source"]
    split = make_split(sample.load().interactions, "random", num_test=10, seed=0)
    lists = recs.sort_values(["user_id", "rank"]).groupby("user_id")["item_id"].agg(list)
    seen = split.train.groupby("user_id")["item_id"].agg(set)
    relevant = split.test.groupby("user_id")["item_id"].agg(set)
    totals: dict[str, list[float]] = {}
    for user, wanted in relevant.items():
        ranked = lists[user]
        assert not seen[user] & set(ranked)
        for k in (5, 10, 100):
            hits = [rank for rank, item in enumerate(ranked[:k]) if item in wanted]
            ideal = sum(1 / np.log2(rank + 2) for rank in range(min(len(wanted), k)))
            gained = sum(1 / np.log2(rank + 2) for rank in hits)
            totals.setdefault(f"recall@{k}", []).append(len(hits) / len(wanted))
            totals.setdefault(f"ndcg@{k}", []).append(gained / ideal)
    for name, values in totals.items():
        assert np.mean(values) == pytest.approx(metrics_of(root)["stage2"][name], abs=1e-6)


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_metrics(trained, cache, tmp_path) -> None:
    finished(command("train.py", *QUICK, f"output_dir={tmp_path}", cache=cache))
    first = (trained[0] / "latest" / "metrics.json").read_bytes()
    assert (tmp_path / "latest" / "metrics.json").read_bytes() == first


@pytest.mark.slow
def test_stage_2_killed_and_resumed_ends_like_the_uninterrupted_run(
    trained, cache, tmp_path
) -> None:
    stage1 = ["train.py", *QUICK, "stage=1", f"output_dir={tmp_path}"]
    finished(command(*stage1, cache=cache))
    stage1_bundle = (tmp_path / "latest").resolve()
    stage2 = [
        *["train.py", *QUICK, "stage=2", f"bundle={stage1_bundle}", f"output_dir={tmp_path}"],
        "reranking.epochs=3",
    ]
    finished(command(*stage2, cache=cache))
    expected = metrics_of(tmp_path)
    assert (tmp_path / "latest").resolve() != stage1_bundle
    # A later stage 2 over this bundle can still train its folds like the served stage 1.
    assert read_manifest(tmp_path / "latest")["stage1"] == read_manifest(stage1_bundle)["stage1"]

    killed = command(*stage2, cache=cache)
    known = set((tmp_path / "logs").glob("*-stage2-*"))
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and killed.poll() is None:
        fresh = set((tmp_path / "logs").glob("*-stage2-*")) - known
        if any((run / "fit" / "rerank" / "last.ckpt").exists() for run in fresh):
            break
        time.sleep(0.05)
    assert killed.poll() is None, "finished before it could be killed"
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()

    finished(command(*stage2, "resume=true", cache=cache))
    resumed = metrics_of(tmp_path)
    for name, value in expected["stage2"].items():
        assert resumed["stage2"][name] == pytest.approx(value, abs=1e-6)
    nothing_left = finished(command(*stage2, "resume=true", cache=cache), status=2)
    assert "interrupted run" in nothing_left


@pytest.mark.slow
def test_latest_moves_when_a_run_has_been_evaluated_and_not_before(cache, tmp_path) -> None:
    root, films = tmp_path / "out", tmp_path / "films"
    shutil.copytree(ROOT / "data" / "sample", films)
    options = [*QUICK, f"data.folder={films}", f"output_dir={root}"]
    finished(command("train.py", *options, "stage=1", "name='x[b]y'", cache=cache))
    before = (root / "latest").readlink()
    assert before.name.startswith("x[b]y-")

    killed = command("train.py", *options, "stage=all", cache=cache)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and killed.poll() is None:
        if list(root.glob("logs/sample-*/fit/sample-*/manifest.json")):
            break  # the bundle of stage 1
        time.sleep(0.05)
    assert killed.poll() is None, "finished before it could be killed"
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert (root / "latest").readlink() == before
    assert list_bundles(root) == [root / before]

    events = films / "interactions.csv"
    content = events.read_text()
    events.write_text("".join(content.splitlines(keepends=True)[:-5]))
    refused = finished(command("train.py", *options, "resume=true", cache=cache), status=2)
    assert "other rows" in refused
    events.write_text(content)
    finished(command("train.py", *options, "resume=true", cache=cache))
    assert (root / "latest").readlink().name.startswith("sample-stageall-")
    assert "stage2" in metrics_of(root)
    assert not list(root.glob("logs/*/fit"))


def test_a_bundle_from_elsewhere_runs_nothing(trained, cache, tmp_path) -> None:
    """By a command, since it is Hydra that would run it."""
    theirs, mark = tmp_path / "theirs", tmp_path / "mark"
    shutil.copytree((trained[0] / "latest").resolve(), theirs)
    manifest = json.loads((theirs / "manifest.json").read_text())
    del manifest["manifest_sha256"]
    manifest["stage1"]["index"] = {"_target_": "pathlib.Path.touch", "self": str(mark)}
    content = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(content.encode()).hexdigest()
    (theirs / "manifest.json").write_text(json.dumps({**manifest, "manifest_sha256": digest}))
    arguments = ["train.py", *QUICK, "stage=2", f"bundle={theirs}", f"output_dir={tmp_path}/out"]
    output = finished(command(*arguments, cache=cache), status=2)
    assert len(output.splitlines()) == 1
    assert "expected stage1.index to be one of recsys.index.builders.AutoIndexBuilder" in output
    assert not mark.exists()


@pytest.mark.parametrize("option", ["name='a/b'", "name=../a", "name=''", "threads=0"])
def test_what_cannot_be_is_refused_before_training(option: str, cache, tmp_path) -> None:
    arguments = ["train.py", *QUICK, option, f"output_dir={tmp_path}/out"]
    output = finished(command(*arguments, cache=cache), status=2)
    assert len(output.splitlines()) == 1
    assert option.split("=")[0] in output
    assert not (tmp_path / "out").exists()


def test_stage_2_without_stage_1_names_the_command(cache, tmp_path) -> None:
    output = finished(
        command("train.py", "stage=2", f"output_dir={tmp_path}", cache=cache), status=2
    )
    assert output.startswith("error:")
    assert len(output.splitlines()) == 1
    assert "python train.py stage=1" in output


def test_stage_2_on_other_rows_is_refused(trained, cache) -> None:
    root, _ = trained
    arguments = ["train.py", *QUICK, "stage=2", "data.num_test=3", f"output_dir={root}"]
    output = finished(command(*arguments, cache=cache), status=2)
    assert "other rows" in output


def test_a_bad_row_of_ones_own_file_ends_in_one_line(cache, tmp_path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\nx,X\ny,Y\n")
    rows = "user_id,item_id,timestamp\na,x,2024-01-01\nb,y,yesterday\na,y,2024-01-02\n"
    (tmp_path / "events.csv").write_text(rows)
    arguments = [
        *["train.py", "stage=1", "data=files", f"data.items={tmp_path}/items.csv"],
        *[f"data.interactions={tmp_path}/events.csv", f"output_dir={tmp_path}/out"],
    ]
    output = finished(command(*arguments, cache=cache), status=2)
    *_, line = output.splitlines()
    assert line.startswith("error:")
    assert "line 3: 'yesterday'" in line
    assert "Traceback" not in output


@pytest.mark.slow
def test_interactions_without_times_train_where_the_split_needs_none(cache, tmp_path) -> None:
    events = [f"u{user},i{(n + user) % 12}" for user in range(15) for n in range(6)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id", *events]) + "\n")
    items = [f"i{n},Tea {n}" for n in range(12)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *items]) + "\n")
    arguments = [
        *["train.py", "data=files", f"data.interactions={tmp_path}/events.csv"],
        *[f"data.items={tmp_path}/items.csv", "experiment=quick", f"output_dir={tmp_path}/out"],
    ]
    output = finished(command(*arguments, "stage=1", "data.split=random", cache=cache))
    assert "no column of times" in output
    assert metrics_of(tmp_path / "out")["split"] == "random"
    output = finished(command(*arguments, "stage=1", cache=cache), status=2)
    assert "data.split=random" in output.splitlines()[-1]
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as tables of one's own, which name no data set."""
    folder, data = tmp_path_factory.mktemp("files"), sample.load(ROOT / "data" / "sample")
    data.interactions.to_csv(folder / "events.csv", index=False)
    data.items.to_csv(folder / "items.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def of_files(files: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run on these tables."""
    root = tmp_path_factory.mktemp("of_files")
    tables = [f"data.interactions={files}/events.csv", f"data.items={files}/items.csv"]
    options = ["data=files", "experiment=quick", f"output_dir={root}", *tables]
    output = finished(command("train.py", *options, cache=cache))
    assert "of a model without the held-out rows; served is one of the same recipe" in output
    return root


def test_what_is_served_knows_every_row_and_recommends_none_of_them(of_files: Path, files: Path):
    events = pd.read_csv(files / "events.csv")
    recommender = Recommender.load(of_files / "latest")
    histories, users = recommender.artifact.histories, recommender.users
    served = set(
        zip(
            users.decode(histories.user_idx),
            recommender.items.decode(histories.item_idx),
            strict=True,
        )
    )
    assert served == set(zip(events["user_id"], events["item_id"], strict=True))
    lists = recommender.recommend([Request(20, user_id=user) for user in users.ids.tolist()])
    shown = {
        (user, item)
        for user, one in zip(users.ids.tolist(), lists, strict=True)
        for item in one.item_ids
    }
    assert len(shown) == 20 * len(users)
    assert not shown & served


def test_the_table_is_of_a_model_without_the_held_out_rows(of_files: Path, files: Path) -> None:
    manifest, metrics = read_manifest(of_files / "latest"), metrics_of(of_files)
    rows = len(pd.read_csv(files / "events.csv"))
    assert manifest["evaluated"]["version"] != manifest["version"]
    assert manifest["evaluated"]["rows"] == rows - 5 * 300
    assert metrics["served"]["rows"] == rows
    # By chance they would share one in twenty.
    assert metrics["served"]["same_items@10"] > 0.5


def test_an_export_of_what_is_served_is_the_log(
    of_files: Path, files: Path, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"
    asyncio.run(open_and_close(url))
    export(url, of_files / "latest", tmp_path / "export")
    exported = pd.read_parquet(tmp_path / "export" / "interactions.parquet")
    pair = ["user_id", "item_id"]
    both = [
        frame[[*pair, "timestamp", "rating"]].sort_values(pair, ignore_index=True)
        for frame in (exported, pd.read_csv(files / "events.csv"))
    ]
    pd.testing.assert_frame_equal(*both, check_dtype=False)


async def open_and_close(url: str) -> None:
    integers = {"holds_integer_users": True, "holds_integer_items": True}
    await (await EventStore.open(url, **integers)).close()


@pytest.mark.slow
@pytest.mark.parametrize("option", ["hnsw", "ivfpq", "auto"])
def test_the_approximate_indexes_serve_nearly_the_same(option, cache, tmp_path) -> None:
    sizes = ["data.num_users=200", "data.num_items=700", "data.num_interactions=8000"]
    recalls = []
    for index in ("flat", option):
        arguments = ["train.py", "stage=1", "data=synthetic", "experiment=quick", *sizes]
        own = ["index.exact_up_to=0"] if index == "auto" else []
        where = [f"index={index}", *own, f"output_dir={tmp_path / index}"]
        finished(command(*arguments, *where, cache=cache))
        recalls.append(metrics_of(tmp_path / index)["stage1"]["recall@100"])
    assert recalls[1] > 0.8 * recalls[0]
