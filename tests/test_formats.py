"""LoRA files in and out: bit-exact round trips, alpha never guessed, refusals in one line."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from weights2weights.errors import W2WError
from weights2weights.formats import FORMATS, LoRAFile, load_lora, write_lora_file
from weights2weights.layout import LoRAModule, WeightLayout

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
MODULES = (
    LoRAModule(f"{BLOCK}.attn1.to_q", 4, 4),
    LoRAModule(f"{BLOCK}.attn2.to_v", 6, 4),
    LoRAModule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", 8, 8),
)
LAYOUT = WeightLayout(MODULES, rank=2, alpha=27.0, base="somebody/base")
FIRST = MODULES[0].name


def numbers(layout: WeightLayout = LAYOUT, seed: int = 0) -> Tensor:
    return torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(seed))


def place(folder: Path, kind: str) -> Path:
    return folder / ("adapter" if kind == "peft" else f"{kind}.safetensors")


def weights_file(path: Path) -> Path:
    return path / "adapter_model.safetensors" if path.is_dir() else path


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def tampered(path: Path, change) -> Path:
    """Rewrite a LoRA's safetensors file as `change(tensors, metadata)` leaves it."""
    file = weights_file(path)
    with safetensors.safe_open(file, "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        metadata = dict(opened.metadata() or {})
    change(tensors, metadata)
    safetensors.torch.save_file(tensors, file, metadata)
    return path


def config_with(path: Path, **fields) -> Path:
    file = path / "adapter_config.json"
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return path


@pytest.fixture(autouse=True)
def unflushed(monkeypatch):
    """Flushing to a busy disk is most of the time here, and none of the matter."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(params=FORMATS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def lora(tmp_path, kind) -> Path:
    return write_lora_file(place(tmp_path, kind), numbers(), LAYOUT, kind)


# ---- round trips ------------------------------------------------------------------------------


names = st.sampled_from(
    [
        f"{block}.{layer}"
        for block in (BLOCK, "up_blocks.3.attentions.2.transformer_blocks.11")
        for layer in ("attn1.to_q", "attn2.to_k", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2")
    ]
    + [
        "time_embedding.linear_1",
        "mid_block.resnets.1.time_emb_proj",
        "mid_block.attentions.0.proj",
    ]
)
layouts = st.builds(
    WeightLayout,
    modules=st.lists(
        st.builds(LoRAModule, names, st.integers(1, 9), st.integers(1, 9)),
        min_size=1,
        max_size=6,
        unique_by=lambda module: module.name,
    ).map(tuple),
    rank=st.integers(1, 5),
    alpha=st.floats(1e-30, 1e30),
    base=st.text(max_size=20),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    layout=layouts,
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    metadata=st.dictionaries(texts.map("x_".__add__), texts, max_size=3),
    seed=st.integers(0, 99),
)
def test_write_then_read_gives_every_bit_back(tmp_path, kind, layout, dtype, metadata, seed):
    weights = numbers(layout, seed).to(dtype)
    weights[0] = -0.0
    path = write_lora_file(place(tmp_path, kind), weights, layout, kind, metadata)
    got = load_lora(path)
    assert got.layout == layout
    assert got.weights.dtype == dtype
    assert torch.equal(bits(got.weights), bits(weights))
    assert got.format == kind
    assert metadata.items() <= got.metadata.items()


@pytest.mark.parametrize("target", FORMATS)
def test_any_format_leads_to_any_other(lora, target, tmp_path):
    first = load_lora(lora)
    path = write_lora_file(
        place(tmp_path / "again", target), first.weights, first.layout, target, first.metadata
    )
    again = load_lora(path)
    assert again.layout == LAYOUT
    assert torch.equal(again.weights, numbers())


def test_the_reference_library_reads_the_same_tensors(lora, kind):
    tensors = safetensors.torch.load_file(weights_file(lora))
    if kind == "kohya":
        alphas = {key: tensors.pop(key) for key in list(tensors) if key.endswith(".alpha")}
        assert len(alphas) == len(MODULES)
        assert all(alpha == 27 and alpha.shape == () for alpha in alphas.values())
    expected = LAYOUT.unflatten(numbers())
    assert sorted(map(tuple, (t.flatten().tolist() for t in tensors.values()))) == sorted(
        map(tuple, (t.flatten().tolist() for t in expected.values()))
    )


def test_files_of_the_reference_library_are_read(lora, kind):
    tampered(lora, lambda tensors, metadata: None)
    assert torch.equal(load_lora(lora).weights, numbers())


def test_golden_keys_and_header(lora, kind):
    with safetensors.safe_open(weights_file(lora), "pt") as opened:
        keys, metadata = list(opened.keys()), opened.metadata()
    first = {
        "peft": f"base_model.model.{FIRST}.lora_A.weight",
        "diffusers": f"unet.{FIRST}.lora_A.weight",
        "kohya": f"lora_unet_{FIRST.replace('.', '_')}.lora_down.weight",
    }[kind]
    assert first in keys
    if kind == "peft":
        config = json.loads((lora / "adapter_config.json").read_text())
        assert (config["lora_alpha"], config["r"]) == (27, 2)
        assert config["base_model_name_or_path"] == "somebody/base"
    elif kind == "diffusers":
        fields = json.loads(metadata["lora_adapter_metadata"])
        assert (fields["unet.lora_alpha"], fields["unet.r"]) == (27, 2)
    else:
        assert metadata == {
            "ss_base_model_version": "somebody/base",
            "ss_network_alpha": "27",
            "ss_network_dim": "2",
            "ss_network_module": "networks.lora",
            "ss_sd_model_name": "somebody/base",
        }


@pytest.mark.parametrize(
    ("width", "family"), [(768, "sd_v1"), (1024, "sd_v2"), (2048, "sdxl_base_v1-0")]
)
def test_kohya_names_the_family_by_the_width_of_its_text(tmp_path, width, family):
    layout = WeightLayout((LoRAModule(f"{BLOCK}.attn2.to_v", width, 4),), 1, 27.0)
    got = load_lora(write_lora_file(tmp_path / "a.safetensors", numbers(layout), layout, "kohya"))
    assert got.metadata["ss_base_model_version"] == family
    assert got.layout.base == "", "a family is no base"


def test_equal_contents_give_equal_bytes(tmp_path, kind):
    metadata = {f"key {i}": str(i) for i in range(20)}
    paths = [
        write_lora_file(place(tmp_path / name, kind), numbers(), LAYOUT, kind, metadata)
        for name in ("one", "two")
    ]
    assert len({weights_file(path).read_bytes() for path in paths}) == 1


def test_stale_metadata_of_another_format_does_not_survive(tmp_path):
    stale = {"ss_network_alpha": "1", "lora_adapter_metadata": "{}", "ss_tag_frequency": "{}"}
    for kind in FORMATS:
        got = load_lora(write_lora_file(place(tmp_path, kind), numbers(), LAYOUT, kind, stale))
        assert got.layout.alpha == 27
        assert got.metadata["ss_tag_frequency"] == "{}"
        assert got.metadata.get("ss_network_alpha", "27") == "27"


def test_the_authors_adapter_name_inside_the_key_is_understood(tmp_path):
    path = write_lora_file(tmp_path / "adapter", numbers(), LAYOUT, "peft")

    def rename(tensors, metadata):
        for key in list(tensors):
            tensors[key.replace(".weight", ".identity1.weight")] = tensors.pop(key)

    got = load_lora(tampered(path, rename))
    assert got.layout == LAYOUT
    assert torch.equal(got.weights, numbers())


def test_older_diffusers_names_are_understood(tmp_path):
    def rename(tensors, metadata):
        metadata.clear()
        for key in list(tensors):
            new = key.replace("lora_A", "lora.down").replace("lora_B", "lora.up")
            tensors[new] = tensors.pop(key)

    path = write_lora_file(tmp_path / "a.safetensors", numbers(), LAYOUT, "diffusers")
    got = load_lora(tampered(path, rename), alpha=27.0)
    assert got.layout == replace(LAYOUT, base="")
    assert torch.equal(got.weights, numbers())


# ---- where things are -------------------------------------------------------------------------


def test_a_folder_stands_for_its_one_lora(tmp_path):
    path = write_lora_file(tmp_path, numbers(), LAYOUT, "diffusers")
    assert path == tmp_path / "pytorch_lora_weights.safetensors"
    assert load_lora(tmp_path).format == "diffusers"
    path.rename(tmp_path / "mine.safetensors")
    assert isinstance(load_lora(str(tmp_path)), LoRAFile)
    write_lora_file(tmp_path / "other.safetensors", numbers(), LAYOUT, "kohya")
    with pytest.raises(W2WError, match=r"2 LoRA files.*mine.safetensors, other.safetensors"):
        load_lora(tmp_path)


def test_a_config_belongs_to_the_file_beside_it_only(tmp_path):
    path = write_lora_file(tmp_path, numbers(), LAYOUT, "peft")
    weights_file(path).rename(tmp_path / "renamed.safetensors")
    with pytest.raises(W2WError, match="does not state its alpha"):
        load_lora(tmp_path)


def test_replacing_an_adapter_leaves_other_files(tmp_path, kind):
    path = place(tmp_path, kind)
    write_lora_file(path, numbers(), LAYOUT, kind)
    (tmp_path / "notes.txt").write_text("mine")
    write_lora_file(path, numbers(seed=1), LAYOUT, kind)
    assert torch.equal(load_lora(path).weights, numbers(seed=1))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not [entry for entry in tmp_path.rglob("*") if ".tmp" in entry.name]


def test_a_write_that_is_cut_leaves_the_old_file(lora, kind, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(W2WError, match="No space left"):
        write_lora_file(lora, numbers(seed=1), LAYOUT, kind)
    monkeypatch.undo()
    if kind == "peft":  # two files cannot be replaced at once: without its config, no alpha
        with pytest.raises(W2WError, match="does not state its alpha"):
            load_lora(lora)
        assert torch.equal(load_lora(lora, alpha=27.0).weights, numbers())
    else:
        assert torch.equal(load_lora(lora).weights, numbers())


# ---- alpha ------------------------------------------------------------------------------------


def without_alpha(path: Path, kind: str) -> Path:
    if kind == "peft":
        return config_with(path, lora_alpha=...)

    def remove(tensors, metadata):
        metadata.clear()
        for key in [key for key in tensors if key.endswith(".alpha")]:
            del tensors[key]

    return tampered(path, remove)


def test_a_file_without_alpha_asks_for_it(lora, kind):
    without_alpha(lora, kind)
    with pytest.raises(W2WError, match=r"does not state its alpha.*--alpha.*2, the rank"):
        load_lora(lora)
    assert load_lora(lora, alpha=27.0).layout.hash == LAYOUT.hash


def test_an_alpha_that_contradicts_the_file_is_refused(lora):
    assert load_lora(lora, alpha=27.0).layout == LAYOUT
    with pytest.raises(W2WError, match="states alpha 27, and 2 was given"):
        load_lora(lora, alpha=2.0)


def test_a_given_alpha_must_be_possible(lora, kind):
    with pytest.raises(W2WError, match="alpha"):
        load_lora(without_alpha(lora, kind), alpha=float("nan"))


@pytest.mark.parametrize("alpha", [0, -27, True, "27", [27], 10**400, 1e400])
def test_an_impossible_alpha_is_refused(tmp_path, alpha):
    path = write_lora_file(tmp_path / "adapter", numbers(), LAYOUT, "peft")
    with pytest.raises(W2WError, match="adapter"):
        load_lora(config_with(path, lora_alpha=alpha))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_alpha_tensor_is_refused(tmp_path, value):
    def change(tensors, metadata):
        for key in tensors:
            if key.endswith(".alpha"):
                tensors[key] = torch.tensor(value)

    path = write_lora_file(tmp_path / "a.safetensors", numbers(), LAYOUT, "kohya")
    with pytest.raises(W2WError, match=r"attn1_to_q.alpha is .*finite number above 0"):
        load_lora(tampered(path, change))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_alpha_tensors_of_any_number_type_are_read(tmp_path, dtype):
    def change(tensors, metadata):
        for key in tensors:
            if key.endswith(".alpha"):
                tensors[key] = torch.tensor([27], dtype=dtype)

    path = write_lora_file(tmp_path / "a.safetensors", numbers(), LAYOUT, "kohya")
    assert load_lora(tampered(path, change)).layout == LAYOUT


def test_alpha_tensors_win_over_the_header_which_only_adds_digits(tmp_path):
    layout = replace(LAYOUT, alpha=0.1)
    path = write_lora_file(tmp_path / "a.safetensors", numbers(), layout, "kohya")
    assert load_lora(path).layout.alpha == 0.1
    tampered(path, lambda tensors, metadata: metadata.update(ss_network_alpha="8"))
    assert load_lora(path).layout.alpha == pytest.approx(0.1, rel=1e-6)
    tampered(path, lambda tensors, metadata: metadata.update(ss_network_alpha="a lot"))
    assert load_lora(path).layout.alpha == pytest.approx(0.1, rel=1e-6)


# ---- what is refused --------------------------------------------------------------------------

KOHYA = "lora_unet_" + FIRST.replace(".", "_")


def put(key: str, *shape: int, dtype=torch.float32):
    return lambda tensors, metadata: tensors.update({key: torch.zeros(shape, dtype=dtype)})


def drop(key: str):
    return lambda tensors, metadata: tensors.pop(key)


def set_metadata(**fields):
    def change(tensors, metadata):
        stated = json.loads(metadata["lora_adapter_metadata"])
        stated |= {f"unet.{name}": value for name, value in fields.items()}
        metadata["lora_adapter_metadata"] = json.dumps(stated)

    return change


REFUSED = {
    "text encoder, kohya": (
        "kohya",
        put("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", 2, 5),
        r"lora_te_.*\[2, 5\] belongs to a text encoder; expected .* layers",
    ),
    "second text encoder, kohya": (
        "kohya",
        put("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"),
        r"lora_te2_.*\[\] belongs to a text encoder",
    ),
    "text encoder, diffusers": (
        "diffusers",
        put("text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", 2, 5),
        r"text_encoder\..*\[2, 5\] belongs to a text encoder",
    ),
    "text encoder, peft": (
        "peft",
        put("base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", 2, 5),
        "belongs to a text encoder",
    ),
    "transformer": (
        "diffusers",
        put("transformer.blocks.0.to_q.lora_A.weight", 2, 5),
        "not a UNet",
    ),
    "DoRA, kohya": ("kohya", put(f"{KOHYA}.dora_scale", 4, 1), r"dora_scale.*\[4, 1\].*a DoRA"),
    "DoRA, diffusers": ("diffusers", put(f"unet.{FIRST}.lora_magnitude_vector", 4), "a DoRA"),
    "LoHa": ("kohya", put(f"{KOHYA}.hada_w1_a", 4, 2), r"hada_w1_a.*\[4, 2\].*a LoHa"),
    "LoKr": ("kohya", put(f"{KOHYA}.lokr_w1", 2, 2), "a LoKr"),
    "LoCon": ("kohya", put(f"{KOHYA}.lora_mid.weight", 2, 2, 3, 3), "a LoCon"),
    "full difference": ("kohya", put(f"{KOHYA}.diff", 4, 4), "full weight difference"),
    "bias": ("peft", put(f"base_model.model.{FIRST}.lora_B.bias", 4), "is a bias"),
    "unknown key": ("peft", put("base_model.model.what", 3), r"what.*\[3\] is unknown; expected"),
    "unknown layer": (
        "kohya",
        put("lora_unet_some_new_layer.lora_down.weight", 2, 4),
        r"some_new_layer.*\[2, 4\] is unknown; expected .* a linear layer of Stable",
    ),
    "formats mixed": ("kohya", put(f"unet.{FIRST}.lora_A.weight", 2, 4), "mixes the formats"),
    "convolution": (
        "kohya",
        put(f"{KOHYA}.lora_down.weight", 2, 4, 3, 3),
        r"\[2, 4, 3, 3\] adapts a conv",
    ),
    "B missing": ("kohya", drop(f"{KOHYA}.lora_up.weight"), "has only lora_A"),
    "alpha missing": (
        "kohya",
        drop(f"{KOHYA}.alpha"),
        r"attn1_to_q\.lora_up\.weight has no alpha next to it",
    ),
    "alpha alone": (
        "kohya",
        put("lora_unet_mid_block_attentions_0_proj_in.alpha"),
        "proj_in.alpha has no weights next to it",
    ),
    "alpha no number": ("kohya", put(f"{KOHYA}.alpha", 2), r"F32 of shape \[2\]; expected one n"),
    "alpha mixed": (
        "kohya",
        lambda tensors, metadata: tensors[f"{KOHYA}.alpha"].fill_(1),
        "one alpha for all modules",
    ),
    "rank mixed": (
        "diffusers",
        lambda tensors, metadata: tensors.update(
            {f"unet.{FIRST}.lora_A.weight": torch.zeros(3, 4)}
            | {f"unet.{FIRST}.lora_B.weight": torch.zeros(4, 3)}
        ),
        "rank",
    ),
    "A and B disagree": ("kohya", put(f"{KOHYA}.lora_down.weight", 3, 4), "A of 3×4 and B of 4×2"),
    "two adapters": (
        "peft",
        put(f"base_model.model.{FIRST}.lora_A.second.weight", 2, 4),
        "two adapters",
    ),
    "tensor twice": ("diffusers", put(f"unet.{FIRST}.lora.down.weight", 2, 4), "expected it once"),
    "spelt twice": (
        "kohya",
        put("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight", 4, 2),
        "are one tensor; expected it once",
    ),
    "no tensors": ("peft", lambda tensors, metadata: tensors.clear(), "holds no tensors"),
    "no LoRA": (
        "kohya",
        lambda tensors, metadata: (tensors.clear(), tensors.update(w=torch.zeros(3))),
        r"'w' of shape \[3\] is unknown; expected keys such as",
    ),
    "text encoder only": (
        "kohya",
        lambda tensors, metadata: (
            tensors.clear(),
            tensors.update({"lora_te1_text_model_encoder.alpha": torch.zeros(())}),
        ),
        "belongs to a text encoder",
    ),
    "float64": (
        "peft",
        put(f"base_model.model.{FIRST}.lora_A.weight", 2, 4, dtype=torch.float64),
        r"of shape \[2, 4\] holds F64",
    ),
    "integers": ("kohya", put(f"{KOHYA}.lora_up.weight", 4, 2, dtype=torch.int8), "holds I8"),
    "dtypes mixed": (
        "kohya",
        put(f"{KOHYA}.lora_up.weight", 4, 2, dtype=torch.float16),
        "expected one dtype",
    ),
    "NaN": (
        "kohya",
        lambda tensors, metadata: tensors[f"{KOHYA}.lora_up.weight"][1].fill_(torch.nan),
        r"lora_up.weight of shape \[4, 2\] holds NaN or infinite numbers",
    ),
    "infinity": (
        "diffusers",
        lambda tensors, metadata: tensors[f"unet.{FIRST}.lora_A.weight"][0, 0].fill_(-torch.inf),
        "lora_A.weight .*holds NaN or infinite numbers",
    ),
    "rank stated wrongly": (
        "diffusers",
        set_metadata(r=1),
        "states rank 1 and its tensors have rank 2",
    ),
    "PEFT would skip": (
        "diffusers",
        set_metadata(target_modules=["to_v"]),
        "leaves .* out of its targ",
    ),
    "alpha pattern": ("diffusers", set_metadata(alpha_pattern={"to_q": 1}), "alpha 27 and also 1"),
    "rank pattern": ("diffusers", set_metadata(rank_pattern={"to_q": 8}), "states rank 8"),
    "PiSSA": ("diffusers", set_metadata(init_lora_weights="pissa"), "changes the base"),
    "other adapter": ("diffusers", set_metadata(peft_type="LOHA"), "peft_type 'LOHA'"),
    "metadata no JSON": (
        "diffusers",
        lambda tensors, metadata: metadata.update(lora_adapter_metadata="{"),
        "lora_adapter_metadata is not valid JSON",
    ),
}


@pytest.mark.parametrize(("kind", "change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_plain_lora_is_refused_in_one_line(tmp_path, kind, change, message):
    path = tampered(write_lora_file(place(tmp_path, kind), numbers(), LAYOUT, kind), change)
    with pytest.raises(W2WError, match=message) as caught:
        load_lora(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_settings_without_effect_and_equal_patterns_are_accepted(tmp_path):
    path = write_lora_file(tmp_path / "adapter", numbers(), LAYOUT, "peft")
    config_with(
        path,
        lora_dropout=0.1,
        peft_version="0.21.2",
        target_modules=["to_q", "to_v"],
        alpha_pattern={"to_q": 27},
        rank_pattern={"to_q": 2},
        init_lora_weights="gaussian",
        runtime_config={"ephemeral_gpu_offload": False},
    )
    assert load_lora(path).layout == LAYOUT


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"r": NaN}', '{"r": 1, "r": 2}', "\xff"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path, text):
    path = write_lora_file(tmp_path / "adapter", numbers(), LAYOUT, "peft")
    (path / "adapter_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(W2WError, match=r"adapter_config\.json"):
        load_lora(path)


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.CKPT", "a.pth", "a.pkl"])
def test_pickles_are_refused_by_name_without_opening_them(tmp_path, name):
    with pytest.raises(W2WError, match=r"pickle.*run any program.*weights_only=True"):
        load_lora(tmp_path / name)


def test_pickles_are_refused_by_their_first_bytes(tmp_path):
    path = tmp_path / "a.safetensors"
    for legacy in (True, False):
        torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=legacy)
        with pytest.raises(W2WError, match="is a pickle by its first bytes"):
            load_lora(path)


def test_a_folder_of_pickles_or_nothing_is_refused(tmp_path):
    with pytest.raises(W2WError, match="a folder without a LoRA"):
        load_lora(tmp_path)
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(W2WError, match=r"pickle \(\.bin\)"):
        load_lora(tmp_path)


def test_what_is_not_there_or_no_file_is_refused(tmp_path):
    with pytest.raises(W2WError, match="No such file"):
        load_lora(tmp_path / "absent.safetensors")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.safetensors")
        with pytest.raises(W2WError, match="not a regular file"):
            load_lora(tmp_path / "pipe.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": torch.zeros(3)}, r"weights of shape \[3\]: expected \[68\]"),
        ({"weights": numbers().double()}, "float64: expected float32"),
        ({"weights": numbers() / 0}, r"lora_A\.weight holds NaN or infinite"),
        ({"metadata": {"a": "x" * 5_000_000}}, "header of .* bytes"),
        ({"path": "lora.bin"}, r"expected a name ending in \.safetensors"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, change, message):
    arguments = {"path": "a.safetensors", "weights": numbers(), "metadata": {}} | change
    with pytest.raises(W2WError, match=message):
        write_lora_file(
            tmp_path / arguments["path"],
            arguments["weights"],
            LAYOUT,
            "diffusers",
            arguments["metadata"],
        )
    assert not list(tmp_path.iterdir())


def test_paths_that_do_not_suit_the_format_are_refused(tmp_path):
    with pytest.raises(W2WError, match="a PEFT adapter is a folder"):
        write_lora_file(tmp_path / "a.safetensors", numbers(), LAYOUT, "peft")
    with pytest.raises(W2WError, match="is a folder"):
        write_lora_file(tmp_path, numbers(), LAYOUT, "kohya")
