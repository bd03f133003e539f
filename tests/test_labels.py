"""Label tables: one meaning in every spelling, file format and order."""

import logging
import math
import unicodedata

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weights2weights.errors import W2WError
from weights2weights.labels import find_labels, read_labels, tidy_labels, write_labels

SUFFIXES = ["csv", "parquet"]


def table(tmp_path, text: str) -> pandas.DataFrame:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    return read_labels(tmp_path / "labels.csv")


def test_labels_of_every_spelling(tmp_path):
    labels = table(
        tmp_path,
        "Bald,name,Male,Smile,Age,Hat\n"
        "1,adam,-1,true,41.5,\n"
        "0,eve,1,FALSE,-1e1,NA\n"
        " 1 ,Zoe\u0308,-1,Yes,,null\n",
    )
    assert labels.index.name == "name"
    assert list(labels.index) == ["adam", "eve", "Zo\u00eb"]
    assert labels.dtypes.astype(str).to_dict() == {
        "Bald": "boolean",
        "Male": "boolean",
        "Smile": "boolean",
        "Age": "Float64",
        "Hat": "boolean",
    }
    assert labels["Bald"].tolist() == [True, False, True]
    assert labels["Male"].tolist() == [False, True, False]
    assert labels["Smile"].tolist() == [True, False, True]
    assert labels["Age"].tolist() == [41.5, -10, pandas.NA]
    assert labels["Hat"].isna().all()


def test_names_are_the_first_column_if_none_is_called_so(tmp_path):
    assert list(table(tmp_path, "who,Bald\n007,1\n8,0\nNA,1\n").index) == ["007", "8", "NA"]


def test_a_table_may_have_a_byte_order_mark_quotes_and_blank_lines(tmp_path):
    labels = table(tmp_path, '\ufeffname,"Big, Nose"\r\n"a,b",1\r\n\r\n,\r\n')
    assert labels.loc["a,b", "Big, Nose"]
    assert len(labels) == 1


def test_columns_of_text_are_ignored_and_logged(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        labels = table(tmp_path, "name,file,Bald,note\nadam,a.jpg,1,\neve,e.jpg,0,3?\n")
    assert list(labels.columns) == ["Bald"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'labels.csv'}: ignored columns of text: 'file', 'note'"
    ]
    dates = pandas.DataFrame({"born": pandas.to_datetime(["2001-02-03"])}, index=["adam"])
    assert tidy_labels(dates, ["adam"]).columns.empty


@pytest.mark.parametrize("as_index", [True, False])
def test_parquet_means_the_same_as_csv(tmp_path, as_index):
    frame = pandas.DataFrame(
        {"name": ["adam", "eve"], "Bald": [True, None], "Age": [3, 2], "Male": [-1.0, None]}
    )
    frame["Bald"] = frame["Bald"].astype("boolean")
    path = tmp_path / "labels.parquet"
    (frame.set_index("name") if as_index else frame).to_parquet(path)
    expected = table(tmp_path, "name,Bald,Age,Male\nadam,true,3,-1\neve,,2,\n")
    pandas.testing.assert_frame_equal(read_labels(path), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("name,Age\nadam,inf\n", "'Age' of 'adam' is 'inf'; expected 0 or 1"),
        ("name,Age\nadam,4\neve,old\nbob,5\n", "'Age' of 'eve' is 'old'; expected 0 or 1"),
        ("name,Bald\nadam,1\nadam,0\n", "name 'adam' appears twice"),
        ("name,Bald,Bald\nadam,1,1\n", "column 'Bald' appears twice"),
        ("name,Bald\nadam\n", "row 2 has 1 cells; expected 2"),
        ("name,Bald\nadam,1\n,0\n", "row 2 has no name"),
        ("name;Bald\nadam;1\n", "expected commas"),
        ('name,Bald\n"adam,1\n', "unexpected end"),
    ],
)
def test_a_table_that_cannot_be_understood_says_where(tmp_path, text, message):
    with pytest.raises(W2WError, match=message):
        table(tmp_path, text)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_a_table_is_one_line(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"\xff\xfe\x00PAR1\x99")
    for name in (f"a.{suffix}", f"absent.{suffix}"):
        with pytest.raises(W2WError, match="cannot be read as") as caught:
            read_labels(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_other_file_types_are_refused(tmp_path):
    with pytest.raises(W2WError, match=r"expected a \.csv or \.parquet file"):
        read_labels(tmp_path / "labels.xlsx")
    with pytest.raises(W2WError, match=r"expected a \.csv or \.parquet file"):
        write_labels(tmp_path / "labels.xlsx", tidy_labels(None, []))


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(st.data())
def test_a_written_table_reads_as_it_was_and_writes_the_same_bytes(tmp_path_factory, suffix, data):
    text = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8)
    clean = text.filter(lambda name: name == name.encode("utf-8", "replace").decode())
    clean = clean.map(lambda name: unicodedata.normalize("NFC", name))
    names = data.draw(st.lists(clean, unique=True, max_size=6))
    columns = data.draw(st.lists(clean.map(lambda c: f"label {c}"), unique=True, max_size=4))
    values = st.sampled_from([None, 0, 1]) | st.floats(allow_nan=False, allow_infinity=False)
    rows = {name: {column: data.draw(values) for column in columns} for name in names}
    labels = tidy_labels(rows, names)
    path = tmp_path_factory.mktemp("labels") / f"labels.{suffix}"
    write_labels(path, labels)
    found = read_labels(path)
    pandas.testing.assert_frame_equal(found, labels)
    before = path.read_bytes()
    write_labels(path, found)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["", " adam", "Zoe\u0308"])
def test_a_name_that_would_change_in_a_file_is_refused(tmp_path, name):
    with pytest.raises(W2WError, match="name"):
        write_labels(tmp_path / "labels.csv", tidy_labels({name: {"Bald": 1}}, [name]))


def test_rows_come_in_the_order_of_the_names():
    labels = {"eve": {"Bald": 0, "Age": 3}, "adam": {"Bald": 1}, "bob": {"Bald": 1}}
    frame = pandas.DataFrame.from_dict(labels, orient="index")
    for table in (labels, frame):
        tidy = tidy_labels(table, ["adam", "nobody", "eve"])
        assert list(tidy.index) == ["adam", "nobody", "eve"]
        assert tidy["Bald"].tolist() == [True, pandas.NA, False]
        assert tidy["Age"].tolist() == [pandas.NA, pandas.NA, 3]
        pandas.testing.assert_frame_equal(tidy_labels(tidy, list(tidy.index)), tidy)


def test_the_kind_of_a_column_depends_on_all_its_rows():
    table = {"adam": {"Age": 1}, "eve": {"Age": 30}, "bob": {"Hat": None}}
    assert str(tidy_labels(table, ["adam"])["Age"].dtype) == "Float64"
    assert str(tidy_labels(table, ["adam"])["Hat"].dtype) == "boolean"


def test_no_labels_are_a_table_without_columns():
    for table in (None, {}, {"adam": {}}, pandas.DataFrame()):
        labels = tidy_labels(table, ["adam", "eve"])
        assert labels.shape == (2, 0)
        assert list(labels.index) == ["adam", "eve"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": {"Age": math.inf}}, "'Age' of 'a' is 'inf'"),
        ([1, 0], "labels of type list"),
        ({"a": {"name": 1}}, "a label called 'name'"),
        (pandas.DataFrame({"Bald": [1]}), "indexed by 0; expected the names"),
        (pandas.DataFrame({"Bald": [1, 0]}, index=["a", "a"]), "name 'a' appears twice"),
        (pandas.DataFrame([[1, 2]], index=["a"], columns=["x", "x"]), "label 'x' appears twice"),
    ],
)
def test_tables_that_mean_nothing_are_refused(labels, message):
    with pytest.raises(W2WError, match=message):
        tidy_labels(labels, ["a"])


def test_labels_are_found_next_to_the_subjects(tmp_path):
    assert find_labels(tmp_path) is None
    (tmp_path / "labels.csv").write_text("name,Bald\n")
    assert find_labels(tmp_path) == tmp_path / "labels.csv"
    (tmp_path / "labels.parquet").write_bytes(b"")
    with pytest.raises(W2WError, match="2 label tables"):
        find_labels(tmp_path)
