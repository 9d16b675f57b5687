from functools import partial
from pathlib import Path

import pytest
from tiny_movielens import WriteTiny, write_files


@pytest.fixture
def write_tiny(tmp_path: Path) -> WriteTiny:
    return partial(write_files, tmp_path)
