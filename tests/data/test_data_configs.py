from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError
from tiny_movielens import WriteTiny

from recsys.data.splits import make_split

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "configs" / "data").glob("*.yaml"))
KEYS = {"name", "source", "split", "num_test", "test_fraction", "split_seed"}


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config: DictConfig = compose(overrides=[f"+data={name}", *overrides]).data
        return config


def test_every_group_is_here() -> None:
    assert NAMES == ["files", "ml100k", "sample", "synthetic"]


@pytest.mark.parametrize("name", NAMES)
def test_each_has_the_common_keys_and_its_name(name: str) -> None:
    config = composed(name)
    assert set(config) >= KEYS
    assert config.name == name


@pytest.mark.parametrize("missing", ["interactions", "items"])
def test_files_asks_for_its_paths(missing: str) -> None:
    given = {"interactions", "items"} - {missing}
    config = composed("files", *(f"data.{key}=table.csv" for key in given))
    with pytest.raises(InterpolationToMissingValueError, match=rf"data\.{missing}"):
        OmegaConf.to_container(config.source, resolve=True, throw_on_missing=True)


def test_the_sample_loads_and_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = composed("sample")
    data = instantiate(config.source)
    split = make_split(
        data.interactions,
        config.split,
        num_test=config.num_test,
        test_fraction=config.test_fraction,
        seed=config.split_seed,
    )
    assert data.name == "sample"
    assert len(split.train) + len(split.test) == 15_000


def test_files_take_paths_and_column_names() -> None:
    folder = ROOT / "data" / "sample"
    config = composed(
        "files",
        f"data.interactions={folder}/interactions.csv",
        f"data.items={folder}/items.csv",
        "data.columns.items.description=genres",
    )
    items = instantiate(config.source).items
    assert items["description"].str.contains("|", regex=False).any()


@pytest.mark.parametrize("separator", ["semicolon", "';'"])
def test_files_take_a_separator(separator: str, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id;item_id|x\n1;1\n2;1\n")
    (tmp_path / "i.csv").write_text("item_id;title|x\n1;One\n")
    config = composed(
        "files",
        f"data.interactions={tmp_path}/e.csv",
        f"data.items={tmp_path}/i.csv",
        f"data.separator={separator}",
        "data.columns.interactions.item_id='item_id|x'",
        "data.columns.items.title='title|x'",
        "data.columns.interactions.timestamp=null",
    )
    data = instantiate(config.source)
    assert data.items["title"].tolist() == ["One"]
    assert list(data.interactions) == ["user_id", "item_id"]


def test_synthetic_sizes_are_overridden_by_name() -> None:
    config = composed(
        "synthetic", "data.num_users=20", "data.num_items=50", "data.num_interactions=300"
    )
    data = instantiate(config.source)
    assert (len(data.users), len(data.items), len(data.interactions)) == (20, 50, 300)


def test_ml100k_takes_the_archive_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, write_tiny: WriteTiny, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOVIELENS_ARCHIVE", str(write_tiny()))
    config = composed("ml100k", f"data.folder={tmp_path}/absent", "data.source.counts=null")
    assert len(instantiate(config.source).interactions) == 36
    monkeypatch.delenv("MOVIELENS_ARCHIVE")
    assert composed("ml100k").archive is None
