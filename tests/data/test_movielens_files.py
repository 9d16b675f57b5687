import hashlib
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from tiny_movielens import WriteTiny

from recsys.data import movielens_files
from recsys.data.movielens_files import MovielensFiles, fetch, open_files
from recsys.errors import InputError


def test_an_archive_that_is_named_must_exist(write_tiny: WriteTiny, tmp_path: Path) -> None:
    folder = write_tiny()
    with pytest.raises(InputError, match="MOVIELENS_ARCHIVE"):
        open_files(folder, tmp_path / "absent.zip", download=False)


def test_the_folder_comes_first(write_tiny: WriteTiny, tmp_path: Path) -> None:
    folder = write_tiny()
    (tmp_path / "other.zip").write_bytes(b"never read")
    assert open_files(folder, tmp_path / "other.zip", download=False).origin == folder


def test_an_archive_may_be_a_folder_above_the_files(write_tiny: WriteTiny, tmp_path: Path) -> None:
    write_tiny()
    assert open_files(tmp_path / "absent", tmp_path, download=False).has("u.data")


def test_an_empty_folder_is_passed_over(write_tiny: WriteTiny, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert open_files(empty, write_tiny(), download=False).origin == tmp_path / "ml-100k"


def test_an_earlier_download_is_used_again(write_tiny: WriteTiny, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as out:
        for path in write_tiny().iterdir():
            out.write(path, f"ml-100k/{path.name}")
    assert open_files(tmp_path / "set", None, download=True).origin == tmp_path / "set.zip"


def test_nothing_at_hand_names_every_way(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        open_files(tmp_path / "ml-100k", None, download=False)
    for way in (str(tmp_path / "ml-100k"), "MOVIELENS_ARCHIVE", "download", "data=sample"):
        assert way in str(error.value)


@pytest.mark.parametrize("name", ["u.data", "u.item", "u.user", "u.genre"])
def test_a_missing_file_is_named(write_tiny: WriteTiny, name: str) -> None:
    folder = write_tiny(**{name.replace(".", "_"): None})
    with pytest.raises(InputError, match=f"found no {name};"):
        MovielensFiles(folder)


def test_a_broken_zip_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "ml-100k.zip"
    broken.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(InputError, match="as a zip or a folder"):
        MovielensFiles(broken)


def test_a_flipped_byte_in_a_member_is_refused(write_tiny: WriteTiny, tmp_path: Path) -> None:
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as out:
        for path in write_tiny().iterdir():
            out.write(path, path.name)
    content = bytearray(packed.read_bytes())
    content[content.index(b"Toy Story")] ^= 1
    packed.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"u\.item"):
        MovielensFiles(packed).lines("u.item")


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_file_that_unpacks_to_too_much_is_refused_before_it_does(
    as_folder: bool, write_tiny: WriteTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny()
    (folder / "u.data").write_bytes(b"1\t1\t5\t874965758\n" * 2_000_000)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as out:
        for path in folder.iterdir():
            out.write(path, path.name)
    monkeypatch.setattr(movielens_files, "MAX_FILE_BYTES", 1_000_000)
    origin = folder if as_folder else bomb
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"u\.data of more than 1,000,000 bytes"):
            MovielensFiles(origin).lines("u.data")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_zip_that_claims_less_than_it_unpacks_to_is_refused(
    write_tiny: WriteTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb.zip"
    folder = write_tiny()
    size = 3_000_000
    (folder / "u.data").write_bytes(b"0" * size)
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as out:
        for path in folder.iterdir():
            out.write(path, path.name)
    bomb.write_bytes(
        bomb.read_bytes().replace(size.to_bytes(4, "little"), (99).to_bytes(4, "little"))
    )
    with pytest.raises(InputError, match=r"u\.data"):
        MovielensFiles(bomb).lines("u.data")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packing_methods_are_refused(
    method: int, write_tiny: WriteTiny, tmp_path: Path
) -> None:
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w", method) as out:
        for path in write_tiny().iterdir():
            out.write(path, path.name)
    with pytest.raises(InputError, match="another method"):
        MovielensFiles(packed).lines("u.data")


def test_an_archive_larger_than_any_is_not_opened(tmp_path: Path) -> None:
    huge = tmp_path / "huge.zip"
    with huge.open("wb") as file:
        file.truncate(movielens_files.MAX_BYTES + 1)  # a hole
    with pytest.raises(InputError, match="more than"):
        MovielensFiles(huge)


def test_a_download_appears_whole_and_checked(tmp_path: Path) -> None:
    source = tmp_path / "source.zip"
    source.write_bytes(b"content" * 50_000)
    target = tmp_path / "data" / "ml-100k.zip"
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    fetch(source.as_uri(), target, sha256, tmp_path)
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["ml-100k.zip"]


def test_an_altered_download_is_refused_and_removed(tmp_path: Path) -> None:
    source = tmp_path / "source.zip"
    source.write_bytes(b"content")
    target = tmp_path / "data" / "ml-100k.zip"
    with pytest.raises(InputError, match="SHA-256"):
        fetch(source.as_uri(), target, movielens_files.SHA256, tmp_path)
    assert list(target.parent.iterdir()) == []


def test_a_failed_download_names_the_other_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(movielens_files, "URL", (tmp_path / "absent").as_uri())
    with pytest.raises(InputError, match=r"failed: .*MOVIELENS_ARCHIVE.*data=sample"):
        open_files(tmp_path / "ml-100k", None, download=True)
