"""Text files as people have them: encodings, separators, and quotes that must not swallow rows."""

import gzip
from pathlib import Path

import pytest

from recsys.data import encodings
from recsys.data.tables import read_table
from recsys.errors import InputError


def written(tmp_path: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path, **options: str) -> list[list[str]]:
    return read_table(path, "data.items", **options).frame.to_numpy().tolist()


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(InputError) as error:
        read_table(path, "data.items", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('a,b\n1,x\n2,"y\n3,z\n4,w\n', 3),  # never closed
        ('a,b\n1,x\n2,"y\n3,"z"\n4,w\n', 3),  # closed by a quote that opens another field
        ('a,b\n1,"the "best" tea"\n', 2),
        ('a,b\n1,"said \\"hi\\""\n', 2),
        ('a,b\n1,"x" y\n', 2),
        ('a,b\n1, "x"\n', 2),
        ('"a,b\n1,2\n', 1),
    ],
)
def test_quotes_that_do_not_enclose_a_field_are_refused(
    tmp_path: Path, text: str, line: int
) -> None:
    assert f"line {line} " in refusal(written(tmp_path, text))


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_pair_of_stray_quotes_swallows_no_rows(tmp_path: Path, separator: str) -> None:
    """They enclose what reads as a field of four lines."""
    text = 'a,b,c\n1,"x,y\n2,x,y\n3,x,y\n4,x",y\n5,x,y\n'.replace(",", separator)
    if separator == ",":
        assert "from line 2 to line 5" in refusal(written(tmp_path, text))
    else:
        found = rows(written(tmp_path, text, "table.tsv"))
        assert [row[:2] for row in found] == [[str(n), t] for n, t in enumerate(_TITLES, 1)]


_TITLES = ['"x', "x", "x", 'x"', "x"]


def test_quotes_of_a_tsv_that_does_not_quote_are_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = 'id\ttitle\n1\t"Rome" in a day\n2\tthe 5" disk\n3\t"Tea\n'
    assert [title for _, title in rows(written(tmp_path, text, "table.tsv"))] == [
        '"Rome" in a day',
        'the 5" disk',
        '"Tea',
    ]
    assert "first line 2" in caplog.text


def test_a_tsv_that_quotes_is_read_so_and_refused_where_it_does_not(tmp_path: Path) -> None:
    good = 'id\ttitle\n1\t"a\ttab"\n2\t"two ""words"""\n3\t"two\nlines"\n'
    assert [title for _, title in rows(written(tmp_path, good, "table.tsv"))] == [
        "a\ttab",
        'two "words"',
        "two\nlines",
    ]
    assert "line 6" in refusal(written(tmp_path, good + '4\t"Tea\n', "table.tsv"))
    assert "line 3" in refusal(written(tmp_path, '"id"\t"t"\n"1"\t"x"\n"2"\t"y\n', "table.tsv"))


def test_quotes_within_a_field_are_text(tmp_path: Path) -> None:
    text = 'a,b\n1,5" disk\n2,Pipe 5"\n3,"x" \n4,"p, ""q"""\n5,""\n'
    assert [b for _, b in rows(written(tmp_path, text))] == [
        '5" disk',
        'Pipe 5"',
        "x ",
        'p, "q"',
        "",
    ]


def test_a_field_of_several_lines_is_one(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, 'a,b,c\n1,"one\ntwo\n\nfour",x\n2,y,z\n'), "data.items")
    assert table.frame.to_numpy().tolist() == [["1", "one\ntwo\n\nfour", "x"], ["2", "y", "z"]]
    assert [table.place(row) for row in range(2)] == ["line 5", "line 6"]


def test_rows_after_a_long_field_have_their_line(tmp_path: Path) -> None:
    """Longer than the 128 KiB of Python's csv module and the 1 MiB of an Arrow block."""
    long = "x" * 3_000_000
    table = read_table(written(tmp_path, f"a,b\n1,{long}\n\n2,y\n"), "data.items")
    assert table.frame["b"].str.len().tolist() == [len(long), 1]
    assert table.place(1) == "line 4"
    assert "line 4 with 1" in refusal(written(tmp_path, f"a,b\n1,{long}\n\n2\n"))


def test_places_pass_over_blank_lines(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "\na\tb\n\n1\t2\n   \n\t\n3\t4\n", "t.tsv"), "data.items")
    assert table.frame["a"].tolist() == ["1", "", "3"]
    assert [table.place(row) for row in range(3)] == ["line 4", "line 6", "line 7"]
    assert "line 5 with 3" in refusal(written(tmp_path, "a,b\n1,2\n   \n\n1,2,3\n"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings_line_ends_and_gzip(
    tmp_path: Path, encoding: str, ends: str, packed: bool
) -> None:
    content = f"item_id,title{ends}1,Thé{ends}2,茶{ends}".encode(encoding)
    name = "table.csv.gz" if packed else "TABLE.CSV"
    path = written(tmp_path, gzip.compress(content) if packed else content, name)
    table = read_table(path, "data.items")
    assert table.names == ["item_id", "title"]
    assert table.frame.to_numpy().tolist() == [["1", "Thé"], ["2", "茶"]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n3,Thé\n".encode("latin-1"), "UTF-8 text; found b'\\xe9' in line 3"),
        ("a,b\n1,x\n".encode("utf-16-le"), "UTF-16 with a byte order mark; found a NUL"),
        (b"\xff\xfea\0,\0b", "UTF-16 text"),
        (b"a,b\n1,\0\n", "a NUL byte in line 2"),
        (b"PK\x03\x04workbook", "an Excel workbook or a zip"),
        (b"\xd0\xcf\x11\xe0workbook", "an old Excel workbook"),
        (gzip.compress(b"a,b\n1,2\n" * 50, mtime=0)[:-9], "end-of-stream"),
        (b"\x1f\x8bnothing", "readable file"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    assert says in refusal(written(tmp_path, content))


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "MAX_UNPACKED", 1000)
    assert "at most" in refusal(written(tmp_path, gzip.compress(b"a\n" * 1000), "t.csv.gz"))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
def test_the_header_shows_the_separator(tmp_path: Path, separator: str, name: str) -> None:
    text = "a,b,c\n1,x y,2.5\n".replace(",", separator)
    assert rows(written(tmp_path, text, name)) == [["1", "x y", "2.5"]]


def test_excels_hint_names_it(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "sep=;\na;b\n1;x\n2;y\n"), "data.items")
    assert table.frame.to_numpy().tolist() == [["1", "x"], ["2", "y"]]
    assert table.place(1) == "line 4"


def test_semicolons_with_commas_among_the_values(tmp_path: Path) -> None:
    assert rows(written(tmp_path, 'a;b\n1;3,5\n2;"x; y"\n')) == [["1", "3,5"], ["2", "x; y"]]
    assert rows(written(tmp_path, "a;b, or c;d\n1;2;3\n")) == [["1", "2", "3"]]


def test_a_comma_stays_one_among_other_signs(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a,b|c\n1,x|y\n")) == [["1", "x|y"]]


def test_a_separator_that_is_not_certain_must_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a;b|c\n1;2|3\n")
    assert "set data.separator to one of comma, semicolon" in refusal(path)
    assert rows(path, separator="semicolon") == [["1", "2|3"]]
    assert rows(path, separator="|") == [["1;2", "3"]]
    assert "set data.separator" in refusal(written(tmp_path, "a,b\n1,2,3\n"))


@pytest.mark.parametrize("name", ["space", " "])
def test_a_separator_that_is_named_reads_any_text(tmp_path: Path, name: str) -> None:
    assert rows(written(tmp_path, "a b\n1 2\n", "events.dat"), separator=name) == [["1", "2"]]


@pytest.mark.parametrize("separator", ["::", "", '"', "\n", "é"])
def test_a_separator_is_one_character(tmp_path: Path, separator: str) -> None:
    path = written(tmp_path, "a,b\n1,2\n")
    assert "data.separator to be one ASCII character" in refusal(path, separator=separator)


def test_blanks_around_names_and_columns_without_one(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, ', item_id ,"title ",\n0,1,x,\n'), "data.items")
    assert table.names == ["item_id", "title"]
    assert table.frame.to_numpy().tolist() == [["1", "x"]]
    assert "repeated: ['a']" in refusal(written(tmp_path, "a, a\n1,2\n"))


def test_thousands_of_columns(tmp_path: Path) -> None:
    text = ",".join(f"c{n}" for n in range(5000)) + "\n" + ",".join(map(str, range(5000))) + "\n"
    path = written(tmp_path, text)
    assert rows(path) == [[str(n) for n in range(5000)]]
    table = read_table(path, "data.items", wanted=["c7", "absent"])
    assert table.frame.to_dict("list") == {"c7": ["7"]}
    assert len(table.names) == 5000
