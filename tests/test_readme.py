"""The README's five lines for one's own data do what they say, with string ids."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


def block_after(heading: str) -> list[str]:
    text = (ROOT / "README.md").read_text()
    found = re.search(rf"## {heading}\n.*?```bash\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1].splitlines()


@pytest.mark.slow
def test_own_data_with_string_ids(tmp_path: Path) -> None:
    lines = block_after("Your own data")
    assert len(lines) == 5
    for name, file in (("events.csv", "interactions.csv"), ("items.csv", "items.csv")):
        frame = pd.read_csv(ROOT / "data" / "sample" / file)
        for column in {"user_id", "item_id"} & set(frame.columns):
            frame[column] = f"{column[0]}-" + frame[column].astype(str)
        frame.to_csv(tmp_path / name, index=False)
    train = next(line for line in lines if line.startswith("python train.py"))
    batch = next(line for line in lines if "recsys.batch" in line)
    quick = [f"output_dir={tmp_path}/out", "experiment=quick"]
    for line, more in ((train, quick), (batch, [f"bundle={tmp_path}/out/latest"])):
        arguments = line.replace("events.csv", f"{tmp_path}/events.csv")
        arguments = arguments.replace("items.csv", f"{tmp_path}/items.csv")
        arguments = arguments.replace("recs.parquet", f"{tmp_path}/recs.parquet")
        command = [sys.executable, *shlex.split(arguments)[1:], *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    recs = pd.read_parquet(tmp_path / "recs.parquet")
    assert set(recs["user_id"].str[:2]) == {"u-"}
    assert set(recs["item_id"].str[:2]) == {"i-"}
    assert recs.groupby("user_id").size().eq(100).all()
