from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from tiny_movielens import WriteTiny, write_files

# How long an example takes says how busy the machine is.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")


@pytest.fixture
def write_tiny(tmp_path: Path) -> WriteTiny:
    return partial(write_files, tmp_path)
