from pathlib import Path

import pytest

from recsys.data import sample
from recsys.errors import InputError

COMMITTED = Path(__file__).parents[2] / "data" / "sample"
NAMES = ["interactions.csv", "items.csv", "users.csv"]


def test_the_committed_files_are_what_the_script_writes(tmp_path: Path) -> None:
    sample.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (COMMITTED / name).read_bytes(), name


def test_the_sample_is_small() -> None:
    assert sum((COMMITTED / name).stat().st_size for name in NAMES) < 1_000_000


def test_the_sample_loads_clean(caplog: pytest.LogCaptureFixture) -> None:
    data = sample.load(COMMITTED)
    assert (data.name, len(data.items), len(data.interactions)) == ("sample", 400, 15_000)
    assert data.users is not None
    assert len(data.users) == 300
    assert caplog.text == ""


def test_a_missing_folder_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"python -m recsys\.data\.sample"):
        sample.load(tmp_path / "absent")
