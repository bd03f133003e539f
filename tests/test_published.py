"""The authors' files: the exact layout, the exact formulas, and pickles that mean harm."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pandas
import pytest
import torch

from weights2weights.errors import W2WError
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.published import import_published, read_label_table, read_published_model
from weights2weights.sampling import sample
from weights2weights.space import WeightSpace, verify_space

LAYOUT = WeightLayout(
    tuple(
        LoRAModule(f"{block}.attentions.0.transformer_blocks.0.{part}", 6, 4)
        for block in ("down_blocks.0", "mid_block", "up_blocks.1")
        for part in ("attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v")
    ),
    1,
    27.0,
)
NUMBERS, MODELS, COMPONENTS, PROJECTED = LAYOUT.num_parameters, 25, 12, 8
NAMES = sorted(map(str, range(MODELS)))  # folders in string order: 0, 1, 10, 11, …


def table() -> pandas.DataFrame:
    generator = np.random.default_rng(0)
    signs = generator.choice([-1, 1], (MODELS, 5))
    columns = pandas.Index(["Male", "Young", "Bald", "Bangs", "Big_Nose"], dtype=object)
    return pandas.DataFrame(signs, pandas.Index(NAMES, dtype=object), columns)


def published(folder, *, weights: bool = False) -> dict[str, torch.Tensor]:
    """Write files as the authors did."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(MODELS, NUMBERS, generator=generator) * 0.1 + 1
    mean, std = rows.mean(0), rows.std(0)
    standard = (rows - mean) / std
    axes = torch.linalg.svd(standard, full_matrices=False)[2][:COMPONENTS].T.contiguous()
    projected = standard @ axes[:, :PROJECTED]
    dimensions = OrderedDict(
        (entry.key, [torch.Size([entry.count]), torch.Size(entry.shape)])
        for entry in LAYOUT.entries
    )
    files, identities = folder / "files", folder / "weights_datasets" / "identities"
    for part in (files, identities):
        part.mkdir(parents=True, exist_ok=True)
    torch.save(axes, files / "V.pt")
    torch.save(mean, files / "mean.pt")
    torch.save(std, files / "std.pt")
    torch.save(projected, files / "proj_1000pc.pt")
    torch.save(torch.linalg.pinv(projected), files / "pinverse_1000pc.pt")
    torch.save(dimensions, files / "weight_dimensions.pt")
    torch.save(table(), identities / "identity_df.pt")
    if weights:
        torch.save(rows, identities / "all_weights.pt")
    return {"rows": rows, "mean": mean, "std": std, "V": axes, "proj": projected}


def test_space_of_the_files_follows_their_formulas(tmp_path):
    files = published(tmp_path)
    space = import_published(tmp_path)
    assert space.layout.hash == LAYOUT.hash
    assert (len(space), space.num_parameters, space.layout.alpha) == (COMPONENTS, NUMBERS, 27)
    assert space.names == tuple(NAMES)
    weights = files["rows"][:4]
    coefficients = ((weights - files["mean"]) / files["std"]) @ files["V"]
    torch.testing.assert_close(space.project(weights), coefficients, rtol=1e-5, atol=1e-5)
    back = coefficients @ files["V"].T * files["std"] + files["mean"]
    torch.testing.assert_close(space.to_weights(coefficients), back, rtol=1e-5, atol=1e-5)
    some = coefficients[:, :5] @ files["V"][:, :5].T * files["std"] + files["mean"]
    torch.testing.assert_close(space.to_weights(coefficients[:, :5]), some, rtol=1e-5, atol=1e-5)
    assert torch.equal(space.coefficients, files["proj"])
    torch.testing.assert_close(space.coefficient_mean, files["proj"].mean(0))
    torch.testing.assert_close(space.coefficient_std, files["proj"].std(0))
    assert not sample(space, 2)[:, PROJECTED:].any()


def test_labels_come_by_name(tmp_path):
    published(tmp_path)
    labels = import_published(tmp_path).labels
    assert labels.columns.tolist() == ["Male", "Young", "Bald", "Bangs", "Big_Nose"]
    assert labels.index.tolist() == NAMES
    for column in labels:
        assert (labels[column] == (table()[column] == 1)).all()


def test_whole_weights_give_coefficients_on_all_components(tmp_path):
    files = published(tmp_path, weights=True)
    space = import_published(tmp_path)
    assert space.coefficients.shape == (MODELS, COMPONENTS)
    expected = ((files["rows"] - files["mean"]) / files["std"]) @ files["V"]
    torch.testing.assert_close(space.coefficients, expected, rtol=1e-5, atol=1e-5)
    assert sample(space, 1)[:, PROJECTED:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_imported_space_can_be_saved(tmp_path, dtype):
    files = published(tmp_path)
    space = import_published(tmp_path, components=10)
    folder = space.save_pretrained(tmp_path / "space", dtype=dtype)
    again = WeightSpace.from_pretrained(folder)
    assert (len(again), again.hash) == (10, import_published(tmp_path).hash)
    torch.testing.assert_close(
        again.components.float(), files["V"][:, :10].T.contiguous(), rtol=1e-3, atol=1e-6
    )
    assert again.components.is_contiguous()
    assert verify_space(folder) == []


def test_flat_folder_without_labels_will_do(tmp_path):
    published(tmp_path / "whole")
    for path in (tmp_path / "whole" / "files").iterdir():
        path.rename(tmp_path / path.name)
    space = import_published(tmp_path)
    assert space.names == tuple(map(str, range(MODELS)))
    assert space.labels.shape == (MODELS, 0)


@pytest.mark.parametrize("name", ["V", "proj_1000pc", "all_weights"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, name):
    published(tmp_path, weights=name == "all_weights")
    path = next(tmp_path.rglob(f"{name}.pt"))
    tensor = torch.load(path, weights_only=True)
    tensor[-1, 2] = float("nan")
    torch.save(tensor, path)
    with pytest.raises(W2WError, match=rf"{name}\.pt holds NaN"):
        import_published(tmp_path)
    if name == "V":
        assert len(import_published(tmp_path, components=2)) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_components_of_another_precision_will_do(tmp_path, dtype):
    published(tmp_path, weights=True)
    expected = import_published(tmp_path).coefficients
    path = tmp_path / "files" / "V.pt"
    torch.save(torch.load(path, weights_only=True).to(dtype), path)
    found = import_published(tmp_path).coefficients
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_constant_number_gets_std_one(tmp_path):
    files = published(tmp_path)
    files["std"][3] = 0
    torch.save(files["std"], tmp_path / "files" / "std.pt")
    assert import_published(tmp_path).std[3] == 1


def test_model_of_the_authors(tmp_path):
    for dtype in (torch.float32, torch.bfloat16):
        torch.save(torch.arange(6.0).to(dtype)[None], tmp_path / "w2wmodel.pt")
        assert torch.equal(read_published_model(tmp_path / "w2wmodel.pt"), torch.arange(6.0))
    torch.save(torch.zeros(2, 6), tmp_path / "w2wmodel.pt")
    with pytest.raises(W2WError, match=r"holds \[2, 6\]: expected .* shape \[1, any\]"):
        read_published_model(tmp_path / "w2wmodel.pt")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("V.pt", torch.zeros(NUMBERS - 1, 3), "V.pt holds"),
        ("V.pt", torch.zeros(NUMBERS, 3, dtype=torch.int64), "expected floating-point"),
        ("mean.pt", torch.zeros(3), "mean.pt holds"),
        ("mean.pt", torch.full((NUMBERS,), torch.nan), "NaN"),
        ("std.pt", {"a": torch.zeros(1)}, "holds OrderedDict|holds dict"),
        ("proj_1000pc.pt", torch.zeros(MODELS + 1, 8), "25 rows: expected 26"),
        ("weight_dimensions.pt", {"x": [[1], [1]]}, "no LoRA weight"),
        ("weight_dimensions.pt", {"x": 3}, "name → "),
        ("weight_dimensions.pt", torch.zeros(1), "no table of names"),
    ],
)
def test_files_that_do_not_fit(tmp_path, name, value, message):
    published(tmp_path)
    torch.save(value, tmp_path / "files" / name)
    with pytest.raises(W2WError, match=message):
        import_published(tmp_path)


def test_other_order_of_tensors_is_refused(tmp_path):
    published(tmp_path)
    path = tmp_path / "files" / "weight_dimensions.pt"
    dimensions = torch.load(path, weights_only=True)
    dimensions.move_to_end(next(iter(dimensions)))
    torch.save(dimensions, path)
    with pytest.raises(W2WError, match="another order"):
        import_published(tmp_path)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(W2WError, match=r"holds no weight_dimensions\.pt"):
        import_published(tmp_path)
    published(tmp_path)
    with pytest.raises(W2WError, match="13 components: expected 1 to 12"):
        import_published(tmp_path, components=13)
    for content in (b"", b"nonsense", (tmp_path / "files" / "V.pt").read_bytes()[:700]):
        (tmp_path / "files" / "V.pt").write_bytes(content)
        with pytest.raises(W2WError, match=r"V\.pt cannot be read as tensors"):
            import_published(tmp_path)


class Touch:
    """What attackers do: a pickle that runs a program when it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_tensor_file_that_is_a_program_is_not_run(tmp_path):
    published(tmp_path)
    torch.save(Touch(tmp_path / "harm"), tmp_path / "files" / "mean.pt")
    with pytest.raises(W2WError, match=r"mean\.pt cannot be read as tensors"):
        import_published(tmp_path)
    assert not (tmp_path / "harm").exists()


# The pickled table.


def store(path, payload: bytes):
    """A pickle inside a file of torch.save."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("index", ["names", "range", "numbers"])
def test_reads_what_pandas_wrote(tmp_path, protocol, index):
    frame = pandas.DataFrame(
        {
            "whole": np.array([1, -1, 1]),
            "real": [0.5, np.nan, 2.0],
            "flag": [True, False, True],
            "small": np.array([1, 0, 1], dtype=np.int8),
            "more": np.array([4, 5, 6]),
        }
    )
    frame.columns = frame.columns.astype(object)
    if index == "names":
        frame.index = pandas.Index(["a", "b", "ü"], dtype=object)
    elif index == "numbers":
        frame.index = pandas.Index([7, 5, 9])
    path = tmp_path / "table.pkl"
    path.write_bytes(pickle.dumps(frame, protocol=protocol))
    read = read_label_table(path)
    pandas.testing.assert_frame_equal(read, frame, check_index_type=False, check_column_type=False)


class Old:
    """Stands for a class of an old pandas, which pickled its tables in another way."""

    def __init__(self, module, name, arguments=(), state=None):
        self.parts = module, name, arguments, state


class OldPickler(pickle._Pickler):
    def save(self, obj, save_persistent_id=True):
        if not isinstance(obj, Old):
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


def old(obj) -> bytes:
    buffer = io.BytesIO()
    OldPickler(buffer, 2).dump(obj)
    return buffer.getvalue()


def old_array(array) -> Old:
    kind = Old(
        "numpy",
        "dtype",
        (array.dtype.str[1:], False, True),
        (3, "|" if array.dtype.hasobject else "<", None, None, None, -1, -1, 0),
    )
    data = array.ravel().tolist() if array.dtype.hasobject else array.tobytes()
    return Old(
        "numpy.core.multiarray",
        "_reconstruct",
        (Old("numpy", "ndarray", None), (0,), b"b"),
        (1, array.shape, kind, False, data),
    )


def old_index(names) -> Old:
    values = np.array(names, dtype=object)
    return Old(
        "pandas.core.indexes.base",
        "_new_Index",
        (
            Old("pandas.core.indexes.base", "Index", None),
            {"data": old_array(values), "name": None},
        ),
    )


def old_table(values, columns, index) -> Old:
    axes = [old_index(columns), old_index(index)]
    places = Old("builtins", "slice", (0, len(columns), 1))
    blocks = [{"values": old_array(values), "mgr_locs": places}]
    named = {"0.14.1": {"axes": axes, "blocks": blocks}}
    manager = Old(
        "pandas.core.internals.managers", "BlockManager", (), (axes, [None], [None], named)
    )
    return Old("pandas.core.frame", "DataFrame", (), {"_data": manager, "_typ": "dataframe"})


def test_reads_what_old_pandas_wrote(tmp_path):
    values = np.array([[1, -1, 1], [-1, -1, 1]])
    path = store(tmp_path / "t.pt", old(old_table(values, ["Bald", "Male"], ["0", "1", "10"])))
    read = read_label_table(path)
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
    for path in (store(tmp_path / "t.pt", payload), tmp_path / "t.pkl"):
        if path.suffix == ".pkl":
            path.write_bytes(payload)
        with pytest.raises(W2WError, match=r"wants to use .* refused and nothing was run"):
            read_label_table(path)
    assert not (tmp_path / "harm").exists()


def test_harm_inside_an_otherwise_good_table_is_refused(tmp_path):
    for place in ("cell", "attribute"):
        frame = table()
        if place == "cell":
            frame["Bald"] = frame["Bald"].astype(object)
            frame.iloc[3, 2] = Touch(tmp_path / "harm")
        else:
            frame.attrs["note"] = Touch(tmp_path / "harm")
        torch.save(frame, tmp_path / "t.pt")
        with pytest.raises(W2WError, match=r"wants to use .*mkdir"):
            read_label_table(tmp_path / "t.pt")
    assert not (tmp_path / "harm").exists()


def test_names_that_are_allowed_are_not_called_either(tmp_path):
    """ndarray((10**12,)) would take all memory; here it is a record and then no table."""
    huge = Old("numpy", "ndarray", ((10**12,),))
    with pytest.raises(W2WError, match="holds no pandas table"):
        read_label_table(store(tmp_path / "t.pt", old(huge)))


LIES = {
    "text as table": b"Vnothing\n.",
    "empty": b"",
    "cut": old(old_table(np.ones((1, 2)), ["a"], ["x", "y"]))[:-40],
    "memo": b"\x80\x02Na" + b"r\xff\xff\xff\x7f" + b".",
    "long": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "nested": b"(" * 100 + b"]" * 5000 + b"a" * 4999 + b".",
}


@pytest.mark.parametrize("payload", LIES.values(), ids=LIES)
def test_bytes_that_are_no_table_are_one_clear_line(tmp_path, payload):
    with pytest.raises(W2WError) as error:
        read_label_table(store(tmp_path / "t.pt", payload))
    assert "\n" not in str(error.value)


def change(**state) -> bytes:
    frame = old_table(np.ones((2, 3)), ["a", "b"], ["x", "y", "z"])
    named = frame.parts[3]["_data"].parts[3][3]["0.14.1"]
    named.update(state)
    return old(frame)


def block(values, places):
    return {"blocks": [{"values": old_array(values), "mgr_locs": places}]}


def slices(*limits) -> Old:
    return Old("builtins", "slice", limits)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (block(np.ones((2, 4)), slices(0, 2, 1)), "block of float64"),
        (block(np.ones((1, 3)), slices(0, 1, 1)), "lacks the values of 'b'"),
        (block(np.array([["q"] * 3] * 2, dtype=object), slices(0, 2, 1)), "block of object"),
        (block(np.ones((2, 3)), slices(0, "2", 1)), "where an integer should be"),
        (block(np.ones((2, 3)), old_array(np.array([0, 5]))), "outside the table"),
        (block(np.ones((2, 3)), old_array(np.array([1, 1]))), "outside the table"),
        (block(np.ones((2, 3), "c16"), slices(0, 2, 1)), "dtype 'c16'"),
        ({"axes": [old_index(["a", "b"])]}, "1 axes"),
        ({"axes": [old_index(["a", "b"]), 3]}, "no plain list of names"),
        ({"axes": [old_index(["a", "b"]), old_index(["x", None, "z"])]}, "other things than names"),
    ],
)
def test_tables_that_contradict_themselves(tmp_path, state, message):
    with pytest.raises(W2WError, match=message):
        read_label_table(store(tmp_path / "t.pt", change(**state)))


def test_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    from weights2weights import published as module

    monkeypatch.setattr(module, "_LARGEST_TABLE", 1000)
    with zipfile.ZipFile(tmp_path / "t.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 100_000)
    with pytest.raises(W2WError, match="too much for a label table"):
        read_label_table(tmp_path / "t.pt")
    (tmp_path / "t.pkl").write_bytes(b"0" * 1001)
    with pytest.raises(W2WError, match="too much for a label table"):
        read_label_table(tmp_path / "t.pkl")
    with zipfile.ZipFile(tmp_path / "empty.pt", "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(W2WError, match=r"expected one data\.pkl"):
        read_label_table(tmp_path / "empty.pt")


def paper_layout() -> WeightLayout:
    widths = {"down_blocks.0": (320, 2), "down_blocks.1": (640, 2), "down_blocks.2": (1280, 2)}
    widths |= {"mid_block": (1280, 1)}
    widths |= {"up_blocks.1": (1280, 3), "up_blocks.2": (640, 3), "up_blocks.3": (320, 3)}
    return WeightLayout(
        tuple(
            LoRAModule(
                f"{block}.attentions.{number}.transformer_blocks.0.{part}",
                768 if part == "attn2.to_v" else width,
                width,
            )
            for block, (width, count) in widths.items()
            for number in range(count)
            for part in ("attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v")
        ),
        1,
        27.0,
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_folder_of_the_published_size(tmp_path):
    """10,000 components of 99,648 numbers for 64,974 models: 4.3 GB in, 2.2 GB out, formulas."""
    layout = paper_layout()
    numbers, models, components, projected = layout.num_parameters, 64_974, 10_000, 1_000
    assert numbers == 99_648
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(numbers, generator=generator), torch.rand(numbers, generator=generator)
    std += 0.1
    axes = torch.empty(numbers, components)
    for part in axes.split(4096):
        part.normal_(generator=generator).div_(numbers**0.5)
    proj = torch.randn(models, projected, generator=generator)
    names = sorted(map(str, range(models)))
    signs = np.random.default_rng(0).choice([-1, 1], (models, 40))
    columns = pandas.Index([f"label {i}" for i in range(40)], dtype=object)
    labels = pandas.DataFrame(signs, pandas.Index(names, dtype=object), columns)
    dimensions = {e.key: [torch.Size([e.count]), torch.Size(e.shape)] for e in layout.entries}
    for name, value in {
        "V": axes,
        "mean": mean,
        "std": std,
        "proj_1000pc": proj,
        "weight_dimensions": dimensions,
        "identity_df": labels,
    }.items():
        torch.save(value, tmp_path / f"{name}.pt")
    weights = torch.randn(3, numbers, generator=generator)
    coefficients = ((weights - mean) / std) @ axes
    points = torch.randn(2, components, generator=generator)
    back = (points @ axes.T) * std + mean
    del axes

    space = import_published(tmp_path)
    assert (len(space), space.num_parameters, space.names) == (components, numbers, tuple(names))
    assert (space.labels["label 7"] == (labels["label 7"] == 1)).all()
    torch.testing.assert_close(space.project(weights), coefficients, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(space.to_weights(points), back, rtol=1e-5, atol=1e-4)
    drawn = sample(space, 2, seed=1)
    spread = proj.std(0)
    assert ((drawn[:, :projected] - proj.mean(0)).abs() < 6 * spread).all()

    saved = space.save_pretrained(tmp_path / "space", dtype=torch.float16)
    again = WeightSpace.from_pretrained(saved)
    assert again.hash == space.hash
    torch.testing.assert_close(again.project(weights), coefficients, rtol=1e-2, atol=5e-3)
