"""``pip install .`` gives a package that works anywhere, with its configs."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("recsys", "configs", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")

USE = """
import json
import pandas as pd
import recsys
from recsys import cli
from recsys.errors import InputError
from recsys.keyword_settings import composed

told = ""
try:
    recsys.fit(pd.DataFrame({"user_id": [1]}), pd.DataFrame({"item_id": [1], "title": ["x"]}))
except InputError as error:
    told = str(error)
seed = composed("train", {"index": "hnsw"}).seed
print(json.dumps([recsys.__file__, str(cli.CONFIG_DIR), seed, told]))
"""


def test_each_package_is_listed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        listed = tomllib.load(stream)["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in (ROOT / "recsys").rglob("*.py")}
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert sorted(listed) == sorted({*found, "recsys.configs"})


@pytest.mark.slow
def test_a_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source, site, elsewhere = (tmp_path / name for name in ("source", "site", "elsewhere"))
    for folder in (source, elsewhere):
        folder.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source / name)
    command = ["pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-w", "."]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = source.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shutil.rmtree(source)
    assert (site / "recsys" / "py.typed").is_file()
    (metadata,) = site.glob("*.dist-info/METADATA")
    assert "Requires-Dist: torch==" in metadata.read_text()
    assert "polars" not in metadata.read_text()

    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    package, configs, seed, told = json.loads(done.stdout)
    assert Path(package) == site / "recsys" / "__init__.py"
    assert Path(configs) == site / "recsys" / "configs"
    assert seed == 0
    assert told.startswith("expected column 'item_id' (item_id) in interactions")
    theirs = sorted(path.relative_to(configs) for path in Path(configs).rglob("*.yaml"))
    ours = sorted(path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml"))
    assert theirs == ours
