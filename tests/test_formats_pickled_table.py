"""The pickled table: what pandas wrote in any version, and pickles that mean harm."""

import io
import os
import pickle
import struct
import time
import zipfile

import numpy as np
import pandas
import pytest
import torch

from weights2weights.errors import W2WError
from weights2weights.formats import pickled_table
from weights2weights.formats.pickled_table import read_pickled_table


class Touch:
    """What attackers do: a pickle that runs a program when it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def store(path, payload: bytes):
    """A pickle inside a file of torch.save."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("index", ["names", "range", "numbers"])
@pytest.mark.parametrize("text", ["object", "str"])
def test_reads_what_pandas_wrote(tmp_path, protocol, index, text):
    frame = pandas.DataFrame(
        {
            "whole": np.array([1, -1, 1]),
            "real": [0.5, np.nan, 2.0],
            "flag": [True, False, True],
            "small": np.array([1, 0, 1], dtype=np.int8),
            "more": np.array([4, 5, 6]),
            "file": pandas.Series(["a.jpg", "", "ü.jpg"], dtype=text),
        }
    )
    if text == "object":
        frame.columns = frame.columns.astype(object)
    if index == "names":
        frame.index = pandas.Index(["a", "b", "ü"], dtype=text)
    elif index == "numbers":
        frame.index = pandas.Index([7, 5, 9])
    torch.save(frame, tmp_path / "table.pt", pickle_protocol=protocol)
    read = read_pickled_table(tmp_path / "table.pt")
    assert read.pop("file").tolist() == frame.pop("file").tolist()
    pandas.testing.assert_frame_equal(read, frame, check_index_type=False, check_column_type=False)


class Call:
    """Stands for a call in a pickle, of what need not be installed."""

    def __init__(self, module, name, arguments=(), state=None):
        self.parts = module, name, arguments, state


class CallPickler(pickle._Pickler):
    def save(self, obj, save_persistent_id=True):
        if not isinstance(obj, Call):
            return super().save(obj, save_persistent_id)
        module, name, arguments, state = obj.parts
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        if arguments is not None:
            super().save(tuple(arguments))
            self.write(pickle.REDUCE)
        if state is not None:
            self.save(state)
            self.write(pickle.BUILD)
        return None


def pickled(obj) -> bytes:
    buffer = io.BytesIO()
    CallPickler(buffer, 2).dump(obj)
    return buffer.getvalue()


def array_call(array) -> Call:
    kind = Call(
        "numpy",
        "dtype",
        (array.dtype.str[1:], False, True),
        (3, "|" if array.dtype.hasobject else "<", None, None, None, -1, -1, 0),
    )
    data = array.ravel().tolist() if array.dtype.hasobject else array.tobytes()
    return Call(
        "numpy.core.multiarray",
        "_reconstruct",
        (Call("numpy", "ndarray", None), (0,), b"b"),
        (1, array.shape, kind, False, data),
    )


def index_call(names) -> Call:
    values = np.array(names, dtype=object)
    return Call(
        "pandas.core.indexes.base",
        "_new_Index",
        (
            Call("pandas.core.indexes.base", "Index", None),
            {"data": array_call(values), "name": None},
        ),
    )


def table_call(values, columns, index) -> Call:
    axes = [index_call(columns), index_call(index)]
    return frame_call([block_call(values, slices(0, len(columns), 1))], axes)


def block_call(values, places) -> Call:
    return Call("pandas._libs.internals", "_unpickle_block", (array_call(values), places, 2))


def frame_call(blocks, axes) -> Call:
    manager = Call("pandas.core.internals.managers", "BlockManager", (tuple(blocks), axes))
    return Call("pandas.core.frame", "DataFrame", (), {"_mgr": manager, "_typ": "dataframe"})


def slices(*limits) -> Call:
    return Call("builtins", "slice", limits)


def test_reads_what_pandas_1_3_wrote(tmp_path):
    values = np.array([[1, -1, 1], [-1, -1, 1]])
    path = store(tmp_path / "t.pt", pickled(table_call(values, ["Bald", "Male"], ["0", "1", "10"])))
    read = read_pickled_table(path)
    assert read.columns.tolist() == ["Bald", "Male"]
    assert read.index.tolist() == ["0", "1", "10"]
    assert np.array_equal(read.to_numpy().T, values)


NAMES_OF_HARM = [
    "os system",
    "posix system",
    "builtins eval",
    "builtins exec",
    "builtins getattr",
    "builtins __import__",
    "subprocess Popen",
    "numpy load",
    "numpy.testing._private.utils runstring",
    "pandas read_pickle",
    "pandas.io.pickle read_pickle",
    "pandas.core.frame DataFrame.to_csv",
    "torch load",
    "torch._utils _rebuild_tensor_v2",
    "functools partial",
    "operator attrgetter",
    "numpy dtype.__init__",
]


@pytest.mark.parametrize("harm", NAMES_OF_HARM)
@pytest.mark.parametrize("opcode", ["GLOBAL", "STACK_GLOBAL", "INST"])
def test_pickle_that_names_anything_else_is_refused(tmp_path, harm, opcode):
    module, name = harm.split(" ")
    code = f"__import__('os').mkdir({str(tmp_path / 'harm')!r})"
    if opcode == "GLOBAL":
        payload = f"c{module}\n{name}\n(V{code}\ntR.".encode()
    elif opcode == "INST":
        payload = f"(V{code}\ni{module}\n{name}\n.".encode()
    else:
        texts = [struct.pack("<BB", 0x8C, len(text)) + text.encode() for text in (module, name)]
        payload = b"\x80\x04" + b"".join(texts) + b"\x93(" + f"V{code}\n".encode() + b"tR."
    with pytest.raises(W2WError, match=r"wants to use .*; nothing was run"):
        read_pickled_table(store(tmp_path / "t.pt", payload))
    assert not (tmp_path / "harm").exists()


def test_harm_inside_an_otherwise_good_table_is_refused(tmp_path):
    for place in ("cell", "attribute"):
        frame = pandas.DataFrame({"Bald": [1, -1, 1], "Male": [1, 1, -1]}, index=list("xyz"))
        if place == "cell":
            frame["Bald"] = frame["Bald"].astype(object)
            frame.iloc[2, 0] = Touch(tmp_path / "harm")
        else:
            frame.attrs["note"] = Touch(tmp_path / "harm")
        torch.save(frame, tmp_path / "t.pt")
        with pytest.raises(W2WError, match=r"wants to use .*mkdir"):
            read_pickled_table(tmp_path / "t.pt")
    assert not (tmp_path / "harm").exists()


def test_names_that_are_allowed_are_not_called_either(tmp_path):
    """ndarray((10**12,)) would take all memory; here it is a record and then no table."""
    huge = Call("numpy", "ndarray", ((10**12,),))
    with pytest.raises(W2WError, match="where DataFrame should be"):
        read_pickled_table(store(tmp_path / "t.pt", pickled(huge)))


LIES = {
    "text as table": b"Vnothing\n.",
    "empty": b"",
    "cut": pickled(table_call(np.ones((1, 2)), ["a"], ["x", "y"]))[:-40],
    "memo": b"\x80\x02Na" + b"r\xff\xff\xff\x7f" + b".",
    "long": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**34) + b".",
    "key": b"\x80\x02}" + b"N" + b"2\x86" * 60 + b"Ns.",
    "keys": b"\x80\x02}(" + b"N" + b"2\x86" * 60 + b"Nu.",
    "marked keys": b"(" + b"N" + b"2\x86" * 60 + b"Nd.",
    "set": b"\x80\x04\x8f(" + b"N" + b"2\x86" * 60 + b"\x90.",
    "tuples": b"\x80\x02" + b"N" + b"2\x86" * 60 + b".",
    "nested": b"(" * 100 + b"]" * 5000 + b"a" * 4999 + b".",
}


@pytest.mark.parametrize("payload", LIES.values(), ids=LIES)
def test_bytes_that_are_no_table_are_one_clear_line(tmp_path, payload):
    start = time.process_time()
    with pytest.raises(W2WError) as error:
        read_pickled_table(store(tmp_path / "t.pt", payload))
    assert "\n" not in str(error.value)
    assert time.process_time() - start < 5, "hashing 2**60 tuples would not end"


AXES = [index_call(["a", "b"]), index_call(["x", "y", "z"])]


def block(values, places):
    return [block_call(values, places)], AXES


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (block(np.ones((2, 4)), slices(0, 2, 1)), "holds a block of shape"),
        (block(np.ones((1, 3)), slices(0, 1, 1)), "lacks the values of 'b'"),
        (block(np.array([[b"q"] * 3] * 2, dtype=object), slices(0, 2, 1)), "holds objects"),
        (block(np.ones((2, 3)), slices(0, "2", 1)), "where an integer should be"),
        (block(np.ones((2, 3)), array_call(np.array([0, 5]))), "outside the table"),
        (block(np.ones((2, 3)), array_call(np.array([1, 1]))), "outside the table"),
        (block(np.ones((2, 3), "c16"), slices(0, 2, 1)), "dtype 'c16'"),
        (([], [index_call(["a", "b"])]), "not a readable pickled pandas table"),
        (([], [AXES[0], 3]), "where _new_Index should be"),
        (([], [AXES[0], index_call(["x", None, "z"])]), "something other than names"),
    ],
)
def test_tables_that_contradict_themselves(tmp_path, parts, message):
    with pytest.raises(W2WError, match=message):
        read_pickled_table(store(tmp_path / "t.pt", pickled(frame_call(*parts))))


def test_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled_table, "_MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "t.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 100_000)
    with pytest.raises(W2WError, match="too much for a label table"):
        read_pickled_table(tmp_path / "t.pt")
    with zipfile.ZipFile(tmp_path / "empty.pt", "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(W2WError, match=r"expected one data\.pkl"):
        read_pickled_table(tmp_path / "empty.pt")


def test_numpy_never_sees_a_pickled_dtype(tmp_path):
    """With these flags NumPy takes the bytes for pointers to objects, and the process dies."""
    forged = Call("numpy", "dtype", ("O", False, True), (3, "<", None, None, None, 8, 8, 0))
    parts = Call("numpy", "ndarray", None), (0,), b"b"
    array = Call(
        "numpy.core.multiarray", "_reconstruct", parts, (1, (2, 3), forged, False, b"A" * 48)
    )
    blocks = [Call("pandas._libs.internals", "_unpickle_block", (array, slices(0, 2, 1), 2))]
    with pytest.raises(W2WError, match="holds objects that are not a list"):
        read_pickled_table(store(tmp_path / "t.pt", pickled(frame_call(blocks, AXES))))


@pytest.mark.parametrize("seed", range(6))
def test_damage_anywhere_is_one_line_or_a_table_of_that_shape(tmp_path, seed):
    generator = np.random.default_rng(seed)
    names = pandas.Index(["adam", "eve", "zoe"], dtype=["str", "object"][seed % 2])
    frame = pandas.DataFrame({"Bald": [1, -1, 1], "file": ["a", "b", "c"]}, index=names)
    original = pickle.dumps(frame, protocol=(2, 3, 4)[seed % 3])
    for _ in range(300):
        damaged = bytearray(original)
        for place in generator.integers(0, len(damaged), generator.integers(1, 4)):
            damaged[place] = generator.integers(256)
        cut = generator.integers(len(damaged)) if generator.random() < 0.2 else len(damaged)
        try:
            table = read_pickled_table(store(tmp_path / "t.pt", damaged[:cut]))
        except W2WError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 1000
        else:
            assert len(table.columns) == 2 or len(table) == 3
