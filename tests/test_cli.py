"""The command line of a small application, run as a user runs it: a process with its status."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.cli import CONFIG_DIR, as_override
from recsys.errors import InputError
from recsys.overrides import check_overrides

ROOT = Path(__file__).parents[1]
CONFIGS = {
    "app.yaml": """
defaults: [cli, data: sample, _self_]
stage: all
seed: 0
rate: 0.1
fast: false
limit: null
layers: [1, 2]
trainer: {max_epochs: 3}
twin: ${seed}
hydra: {help: {header: An application.}}
""",
    "data/sample.yaml": "rows: 5",
    "data/files.yaml": "interactions: ???\nsource: {path: '${data.interactions}'}",
}
PROGRAM = """
from pathlib import Path
from recsys.cli import run
from recsys.errors import InputError

def main(config):
    if config.seed == 99:
        raise InputError("a seed", "ninety\\nnine", "choose another")
    if config.seed == 98:
        raise RuntimeError("boom")
    print("ran", config.seed, config.stage)

run(main, "app", Path("configs"), comma_lists=["stage"], conditions=["limit"])
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program and its configs."""
    folder = tmp_path_factory.mktemp("app")
    configs = {**CONFIGS, "cli.yaml": (CONFIG_DIR / "cli.yaml").read_text()}
    for name, text in configs.items():
        path = folder / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "app.py").write_text(PROGRAM.replace('Path("configs")', f"Path('{folder}/configs')"))
    return folder


def call(app: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=app,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stgae=1"], "unknown key 'stgae'; did you mean 'stage'?"),
        (["max_epochs=3"], "unknown key 'max_epochs'; did you mean 'trainer.max_epochs'?"),
        (["zzzzzz=3"], "unknown key 'zzzzzz'; see --help for the keys"),
        (["trainer.max_epochs=abc"], "an integer for 'trainer.max_epochs'; found 'abc'"),
        (["seed=1.5"], "expected an integer for 'seed'; found 1.5; the default is seed=0"),
        (["seed=null"], "found null"),
        (["seed=true"], "expected an integer for 'seed'; found True"),
        (["twin=x"], "expected an integer for 'twin'; found 'x'"),
        (["rate=x"], "expected a number for 'rate'; found 'x'; the default is rate=0.1"),
        (["fast=1"], "expected true or false for 'fast'; found 1; the default is fast=false"),
        (["stage=[1]"], "expected a string for 'stage'; found [1]"),
        (["layers=3"], "expected a list for 'layers'; found 3"),
        (["layers.0=x"], "expected an integer for 'layers.0'"),
        (["layers.7=1"], "unknown key 'layers.7'"),
        (["trainer=3"], "expected a mapping for 'trainer'; found 3"),
        (["data=nope"], "'data' to be one of files, sample; found unknown option 'nope'"),
        (["data=sampel"], "did you mean data=sample?"),
        (["data=files"], "a value for data.interactions; found none; set data.interactions=…"),
        (["data=files", "data.rows=1"], "unknown key 'data.rows'; it exists with data=sample"),
        (["data.interactions=x"], "unknown key 'data.interactions'; it exists with data=files"),
        (["data.max_epochs=3"], "did you mean 'trainer.max_epochs'?"),
        (["seed=1,2"], "expected one value for 'seed'; found 'seed=1,2'; add -m"),
        (["seed"], "expected key=value; found 'seed'"),
        (["seed=}"], "expected key=value; found 'seed=}'"),
        (["+seed=1"], "Could not append to config"),
        (["~sede"], "Could not delete from config"),
        (["data@other=sample"], "Could not override"),
        (["hydra.foo=1"], "Could not override 'hydra.foo'"),
    ],
)
def test_a_wrong_override_is_named(app: Path, overrides: list[str], message: str):
    with pytest.raises(InputError) as error:
        check_overrides(app / "configs", "app", overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["rate=3"],
        ["stage=2"],
        ["limit=7"],
        ["limit=text"],
        ["layers=[4,5,6]"],
        ["layers.1=4"],
        ["data=files", "data.interactions=a.csv"],
        ["+new=1"],
        ["++seed=x"],
        ["~rate"],
        ["+data@other=sample"],
        ["hydra.verbose=true"],
    ],
)
def test_a_right_override_passes(app: Path, overrides: list[str]):
    check_overrides(app / "configs", "app", overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=1,x"], "expected an integer for 'seed'; found 'x'"),
        (["seed=range(1,3,0.5)"], "found 1.0"),
        (["data=sample,sampel"], "unknown option 'sampel'"),
        (["data=sample,files"], "a value for data.interactions"),
        (["data=sample,files", "data.interactions=x"], "unknown key 'data.interactions'"),
    ],
)
def test_every_value_of_a_sweep_is_checked(app: Path, overrides: list[str], message: str):
    with pytest.raises(InputError) as error:
        check_overrides(app / "configs", "app", overrides, multirun=True)
    assert message in str(error.value)


def test_a_condition_needs_no_quotes_of_hydras_own(app: Path):
    for value in ("rating >= 4", "type != it's", "'rating > 4'", "null"):
        done = call(app, f"limit={value}")
        assert (done.returncode, done.stdout) == (0, "ran 0 all\n"), done.stderr


def test_a_mandatory_value_may_wait_until_the_run(app: Path):
    check_overrides(app / "configs", "app", ["data=files"], complete=False)


def test_a_run_is_quick_and_leaves_no_files(app: Path):
    before = set(app.rglob("*"))
    before_call = os.times()
    done = call(app, "seed=4", "stage=1,2")
    assert os.times().children_user - before_call.children_user < 5
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran 4 1,2\n", "")
    assert set(app.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["stgae=1"], "error: expected a key of the configuration; found unknown key 'stgae'; "),
        (["seed=99"], "error: expected a seed; found ninety nine; choose another\n"),
        (["--prot", "1"], "error: unrecognized arguments: --prot"),
        (["-m", "seed=1,99,3"], "error: expected a seed"),
        (["-m", "seed=1,x"], "error: expected an integer"),
        (["--help", "sede=1"], "error: expected a key of the configuration"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(app: Path, arguments: list[str], line: str):
    done = call(app, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_other_errors_keep_their_traceback(app: Path):
    done = call(app, "seed=98")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: boom" in done.stderr


def test_a_multirun_runs_each_value(app: Path):
    done = call(app, "-m", "seed=1,2", "stage=a,b")
    assert done.stdout == "ran 1 a\nran 1 b\nran 2 a\nran 2 b\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_help_and_config_are_printed(app: Path):
    helped = call(app, "--help")
    assert helped.returncode == 0
    assert helped.stdout.startswith("An application.")
    assert "max_epochs: 3" in helped.stdout
    shown = call(app, "--cfg", "job", "data=files")
    assert "interactions: ???" in shown.stdout
    assert "Hydra" in call(app, "--hydra-help").stdout


@pytest.mark.parametrize("key", ["interactions.timestamp", "interactions.weight", "items.genres"])
def test_a_column_may_be_left_out(key: str):
    files = ["data=files", "data.interactions=events.csv", "data.items=items.csv"]
    check_overrides(CONFIG_DIR, "train", [*files, f"data.columns.{key}=null"])


@pytest.mark.parametrize("key", ["interactions", "items", "interactions.user_id", "items.item_id"])
def test_what_cannot_be_left_out_is_told(key: str):
    files = ["data=files", "data.interactions=events.csv", "data.items=items.csv"]
    with pytest.raises(InputError, match="found null"):
        check_overrides(CONFIG_DIR, "train", [*files, f"data.columns.{key}=null"])


@pytest.mark.parametrize("name", ["serve", "batch"])
def test_our_commands_compose(name: str):
    check_overrides(CONFIG_DIR, name, ["device=cpu"])


@pytest.mark.parametrize(
    "value", ["checkpoints/a-b.c", "x[b]y", "it's", "a b", "${seed}", "a=b,c", "\\"]
)
def test_a_printed_override_gives_the_value_back(app: Path, value: str):
    written = as_override("stage", value)
    (given,) = shlex.split(written)
    check_overrides(app / "configs", "app", [given])
    assert call(app, given).stdout == f"ran 0 {value}\n"
    if value == "checkpoints/a-b.c":
        assert written == f"stage={value}"
