"""Tensors that several processes compute once."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recsys.shared_tensors import computed_once, share_in

SIBLING = """
import sys, torch
from pathlib import Path
from recsys.shared_tensors import computed_once, share_in
share_in(Path(sys.argv[1]))
def compute():
    print("computed")
    return torch.arange(6.0).reshape(2, 3)
print(computed_once([torch.arange(3)], compute).tolist())
"""

NO_ROOM = """
import resource, sys, torch
from pathlib import Path
from recsys.shared_tensors import computed_once, share_in
share_in(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
print(computed_once([torch.arange(3)], lambda: torch.ones(100_000)).sum().item())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    share_in(tmp_path)
    yield tmp_path
    share_in(None)


def never() -> torch.Tensor:
    raise AssertionError("computed twice")


def test_without_a_folder_everyone_computes() -> None:
    found = [computed_once([], lambda n=n: torch.tensor(n)).item() for n in (1, 2)]
    assert found == [1, 2]


def test_the_same_inputs_are_computed_once(folder: Path) -> None:
    table = torch.rand(5, 3)
    assert computed_once([torch.arange(4)], lambda: table).equal(table)
    assert computed_once([torch.arange(4)], never).equal(table)


@pytest.mark.parametrize(
    "other", [torch.arange(1, 5), torch.arange(4).float(), torch.arange(4).reshape(2, 2)]
)
def test_other_inputs_are_computed_anew(folder: Path, other: torch.Tensor) -> None:
    computed_once([torch.arange(4)], lambda: torch.zeros(1))
    assert computed_once([other], lambda: torch.ones(1)).tolist() == [1]


def test_of_many_the_last_six_stay(folder: Path) -> None:
    for number in range(9):
        computed_once([torch.tensor([number])], lambda n=number: torch.tensor([n]))
    for number in range(3, 9):
        assert computed_once([torch.tensor([number])], never).tolist() == [number]
    assert len(list(folder.glob("*.safetensors"))) == 6


def test_a_folder_that_was_cleaned_is_made_again(folder: Path) -> None:
    table = torch.rand(5, 3)
    first = computed_once([torch.arange(4)], lambda: table)
    shutil.rmtree(folder)
    assert computed_once([torch.arange(4)], lambda: table).equal(first)
    assert computed_once([torch.arange(4)], never).equal(first)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("made_by", ["another user", "a link"])
def test_what_somebody_else_has_put_there_is_not_read(
    folder: Path, made_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed_once([torch.arange(4)], lambda: torch.zeros(1))
    if made_by == "a link":
        folder.rename(folder.with_name("elsewhere"))
        folder.symlink_to("elsewhere")
    else:
        monkeypatch.setattr("os.geteuid", lambda: folder.stat().st_uid + 1)
    assert computed_once([torch.arange(4)], lambda: torch.ones(1)).tolist() == [1]


def test_without_room_for_the_file_everyone_computes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_ROOM, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True
    )
    assert done.stdout == "100000.0\n"
    assert "not shared with the other processes" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_processes_that_start_together_compute_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SIBLING, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        for _ in range(2)
    ]
    printed = "".join(process.communicate(timeout=60)[0] for process in processes)
    assert printed.count("computed") == 1
    assert printed.count("[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]") == 2


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="tells of memory on Linux")
def test_what_is_shared_is_mapped_from_the_file(folder: Path) -> None:
    table = computed_once([torch.arange(4)], lambda: torch.rand(1_000_000))
    assert table.sum() > 0
    (file,) = folder.glob("*.safetensors")
    maps = Path("/proc/self/smaps").read_text()
    (own,) = re.findall(rf"{file.name}\n(.*?)VmFlags", maps, re.DOTALL)
    assert int(re.search(r"Rss: +(\d+)", own)[1]) > 3_000
    assert int(re.search(r"Anonymous: +(\d+)", own)[1]) == 0
