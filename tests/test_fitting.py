"""``recsys.fit``: what train.py does, on frames, in a process that goes on as it was."""

import gc
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra

import recsys
from recsys.data import generator
from recsys.errors import InputError
from recsys.keyword_settings import composed
from recsys.model import Model
from recsys.schema import Dataset
from recsys.training.run import train

ROOT = Path(__file__).parents[1]
QUICK: dict[str, Any] = {"experiment": "quick", "split": "random", "num_test": 5, "seed": 3}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return generator.load(60, 50, 1500, seed=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of text vectors, for all fits below."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def fitted(data: Dataset, cache: Path) -> Model:
    frames = data.interactions, data.items, data.users
    return recsys.fit(*frames, text={"cache_dir": str(cache)}, progress=False, **QUICK)


@pytest.mark.slow
def test_frames_train_to_what_the_same_files_train_to(fitted, data, cache, tmp_path) -> None:
    """By the configuration of ``python train.py data=files data.interactions=…``."""
    names = {}
    for name in ("interactions", "items", "users"):
        names[f"data.{name}"] = str(tmp_path / f"{name}.csv")
        getattr(data, name).to_csv(names[f"data.{name}"], index=False)
    settings = {"experiment": "quick", "seed": 3, "data": "files", **names}
    settings |= {"data.split": "random", "data.num_test": 5, "data.name": "frames"}
    settings |= {"output_dir": str(tmp_path / "out"), "text.cache_dir": str(cache)}
    done = train(composed("train", settings))
    assert fitted.evaluate() == done.metrics
    assert "stage2" in done.metrics
    users = data.interactions["user_id"].unique()[:20]
    pd.testing.assert_frame_equal(
        fitted.recommend(users), recsys.load(done.bundle).recommend(users)
    )


@pytest.mark.slow
def test_a_second_fit_in_the_same_process_gives_the_same_and_leaves_nothing(
    fitted, data, cache, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    state = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    again = recsys.fit(
        *(data.interactions, data.items, data.users),
        text={"cache_dir": str(cache)},
        stage=1,
        progress=False,
        **QUICK,
    )
    assert again.evaluate()["stage1"] == fitted.evaluate()["stage1"]
    assert again.path.is_relative_to(tmp_path)
    assert np.random.get_state()[1].tolist() == state  # type: ignore[index]  # noqa: NPY002
    assert not GlobalHydra.instance().is_initialized()
    assert multiprocessing.active_children() == []
    del again
    gc.collect()
    assert not list(tmp_path.glob("recsys-*"))


@pytest.mark.slow
def test_kinds_of_events_count_as_they_are_told(data, cache) -> None:
    kinds = ["view", "purchase"] * len(data.interactions)
    events = data.interactions.assign(type=kinds[: len(data.interactions)])
    model = recsys.fit(
        *(events, data.items),
        event_weights={"view": 1, "purchase": 10},
        positive="rating >= 2",
        text={"cache_dir": str(cache)},
        progress=False,
        **QUICK,
    )
    artifact = model.recommender.artifact
    assert artifact.event_weights == {"view": 1.0, "purchase": 10.0}
    assert set(artifact.histories.weights.tolist()) == {1.0, 10.0}
    assert len(artifact.histories) == (events["rating"] >= 2).sum()
    assert "purchase" in model.evaluate()["targets"]


@pytest.mark.slow
def test_a_given_folder_keeps_what_train_py_would_leave_there(data, cache, tmp_path) -> None:
    model = recsys.fit(
        *(data.interactions, data.items),
        output_dir=tmp_path / "out",
        stage=1,
        name="mine",
        progress=False,
        **QUICK,
        **{"text.cache_dir": str(cache)},
    )
    assert (tmp_path / "out" / "latest").resolve() == model.path
    assert model.path.name.startswith("mine-")
    assert (model.path / "report.html").is_file()
    assert list((tmp_path / "out").glob("logs/*/tensorboard"))
    assert "stage2" not in model.evaluate()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stgae": 1}, "unknown key 'stgae'; did you mean 'stage'?"),
        ({"stage": 3}, "stage to be 1, 2 or all; found 3"),
        ({"split": "nope"}, "data.split to be one of"),
        ({"data": "sample"}, "frames as data, given to fit() as its first arguments; found data="),
        ({"data.interactions": "a.csv"}, "frames as data"),
        ({"split": "random", "data.split": "ua"}, "one value for 'data.split'"),
        ({"columns": {"items": {"title": "name"}}}, "column 'name' (title) in items"),
    ],
)
def test_wrong_settings_are_told_before_training(data, tmp_path, settings, message) -> None:
    with pytest.raises(InputError) as error:
        recsys.fit(data.interactions, data.items, output_dir=tmp_path / "out", **settings)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_bad_row_is_told_with_its_frame_and_no_folder_stays(data, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    rows = data.interactions.astype({"timestamp": "object"})
    rows.loc[3, "timestamp"] = "yesterday"
    message = r"column 'timestamp' of interactions .* row 3 \(from 0\): 'yesterday'"
    with pytest.raises(InputError, match=message):
        recsys.fit(rows, data.items, progress=False)
    assert not list(tmp_path.glob("recsys-[!c]*"))


IMPORT = """
import sys, time
start = time.process_time()
import recsys
print(time.process_time() - start, [m for m in ("torch", "hydra", "pandas") if m in sys.modules])
print(recsys.__all__, callable(recsys.fit), "torch" in sys.modules)
try:
    recsys.fti
except AttributeError as error:
    print(error)
"""


def test_the_package_is_imported_at_once() -> None:
    command = [sys.executable, "-c", IMPORT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    first, second, third = done.stdout.splitlines()
    seconds, loaded = first.split(" ", 1)
    assert float(seconds) < 0.3
    assert loaded == "[]"
    assert second == "['Model', 'Recommender', 'fit', 'load'] True False"
    assert "no attribute 'fti'" in third


SCRIPT = """
import os, sys, recsys
from recsys.data import generator

print("runs")
data = generator.load(60, 50, 1500, seed=1)
model = recsys.fit(data.interactions, data.items, stage=1, processes=2, split="random",
                   experiment="quick", text={"cache_dir": sys.argv[1]})
print(len(model.recommend([1, 2], top_k=3)))
"""


@pytest.mark.slow
def test_a_script_needs_no_main_guard_and_its_processes_end(cache, tmp_path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", str(cache)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.stdout == "runs\n6\n", done.stderr
    assert "stage 1: best validation" in done.stderr
