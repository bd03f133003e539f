"""`w2w invert`: every flag arrives, what is written serves the other verbs, failures are a line."""

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from weights2weights import cli
from weights2weights import inversion as room
from weights2weights._json import plain
from weights2weights.bases import load_base
from weights2weights.inversion import PRESETS, _search
from weights2weights.models import load_model
from weights2weights.space import WeightSpace

MODELS, COMPONENTS = 12, 5


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(tiny_base)


@pytest.fixture(scope="module")
def space(base, tmp_path_factory):
    layout = base.layout(alpha=27.0)
    generator = torch.Generator().manual_seed(0)
    components = torch.linalg.qr(
        torch.randn(layout.num_parameters, COMPONENTS, generator=generator)
    )[0].T
    bare = WeightSpace(
        layout,
        mean=0.1 * torch.randn(layout.num_parameters, generator=generator),
        std=torch.full((layout.num_parameters,), 0.1),
        components=components.contiguous(),
        base_hash=base.hash,
    )
    coefficients = 10 * torch.randn(MODELS, COMPONENTS, generator=generator)
    folder = tmp_path_factory.mktemp("space")
    names = [f"m{i}" for i in range(MODELS)]
    return bare.with_models(coefficients, names).save_pretrained(folder)


def pixels(seed=0, shape=(20, 24, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def photo(path, seed=0, **options):
    Image.fromarray(pixels(seed)).save(path, **options)
    return path


@pytest.fixture
def run(tiny_base, space, tmp_path):
    flags = ("--base", tiny_base, "--space", space, "--device", "cpu", "--seeds", 0)
    quick = ("--steps", 2, "--samples-per-step", 2)

    def run(*args, code=0, options=(*flags, *quick)):
        out = ("--out", tmp_path / "out")
        given = [str(arg) for arg in ("invert", *out, *options, *args)]
        result = CliRunner().invoke(cli.main, given, prog_name="w2w")
        assert result.exit_code == code, result.output + result.stderr
        return result

    return run


def test_a_model_for_every_photo_and_a_grid(run, base, space, tmp_path):
    one, two = photo(tmp_path / "ada.png"), photo(tmp_path / "bob.jpg", 1)
    told = json.loads(run(one, two, "--seed", 3, "--seeds", 1, "--json").stdout)
    assert told["files"] == [str(tmp_path / "out" / f"{n}.safetensors") for n in ("ada", "bob")]
    assert told["steps"] == [2, 2]
    assert not told["interrupted"]
    with Image.open(told["grid"]) as grid:
        assert grid.width > 3 * 128 and grid.height > 2 * 128
    opened = WeightSpace.from_pretrained(space)
    model = load_model(told["files"][0])
    assert (model.space, model.base_hash) == (opened.hash, base.hash)
    assert model.coefficients.shape == (COMPONENTS,)
    assert model.origin["images"][0]["name"] == "ada.png"
    assert len(model.origin["images"][0]["sha256"]) == 64
    assert (model.origin["seed"], model.origin["prompt"]) == (3, "sks person")
    assert model.origin["config"]["steps"] == 2
    # what came out goes into the other verbs
    near = CliRunner().invoke(
        cli.main, ["neighbours", told["files"][0], "--space", str(space), "--json"]
    )
    assert near.exit_code == 0, near.output
    again = json.loads(run(one, "--seed", 3, "--json").stdout)
    alone = load_model(again["files"][0]).coefficients
    torch.testing.assert_close(alone, model.coefficients, rtol=1e-3, atol=1e-4)


def test_every_flag_arrives(run, tmp_path, monkeypatch):
    given = {}
    original = room.invert

    def invert(base, space, images, **options):
        given.update(options, images=images)
        return original(base, space, images, **options)

    monkeypatch.setattr(room, "invert", invert)
    mask = Image.fromarray(np.full((20, 24), 255, np.uint8))
    mask.save(tmp_path / "m.png")
    one, two = photo(tmp_path / "1.png"), photo(tmp_path / "2.png", 1)
    told = run(
        *(one, two, "--mask", tmp_path / "m.png", "--mask", tmp_path / "m.png", "--together"),
        *("--preset", "ood", "--components", 3, "--steps", 1, "--samples-per-step", 4),
        *("--learning-rate", 0.01, "--prior-weight", 0.5, "--prompt", "a dog", "--seed", 7),
        *("--subjects-per-batch", 1, "--dtype", "bfloat16", "--gradient-checkpointing"),
    )
    assert "models       1" in told.stdout
    assert given.pop("mask") == [tmp_path / "m.png"] * 2
    assert given.pop("images") == (one, two)
    changed = {"components": 3, "steps": 1, "samples_per_step": 4, "learning_rate": 0.01}
    changed |= {"prior_weight": 0.5, "gradient_checkpointing": True}
    origin = load_model(tmp_path / "out" / "1.safetensors").origin
    assert (origin["preset"], origin["prompt"], origin["seed"]) == ("ood", "a dog", 7)
    assert origin["config"] == plain(replace(PRESETS["ood"], **changed))
    assert [image["name"] for image in origin["images"]] == ["1.png", "2.png"]
    assert given == {
        **changed,
        "preset": "ood",
        "subjects": [0, 0],
        "prompt": "a dog",
        "seed": 7,
        "subjects_per_batch": 1,
        "progress": True,
    }


def test_a_mask_beside_its_photo_is_found(run, tmp_path):
    one = photo(tmp_path / "1.png")
    whole = json.loads(run(one, "--json").stdout)
    plain = load_model(whole["files"][0]).coefficients
    half = np.zeros((20, 24), np.uint8)
    half[:10] = 255
    Image.fromarray(half).save(tmp_path / "1.mask.png")
    run(one)
    masked = load_model(whole["files"][0]).coefficients
    assert not torch.equal(masked, plain)
    run(one, "--mask", tmp_path / "1.mask.png")
    assert torch.equal(load_model(whole["files"][0]).coefficients, masked)


def test_an_interruption_keeps_the_work_and_exits_130(run, tmp_path, monkeypatch):
    one, two, steps = photo(tmp_path / "1.png"), photo(tmp_path / "2.png", 1), []
    draw = _search.step_samples

    def interrupted(*given):
        steps.append(given)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return draw(*given)

    monkeypatch.setattr(_search, "step_samples", interrupted)
    told = run(one, two, "--subjects-per-batch", 1, "--steps", 3, "--seeds", 2, "--json", code=130)
    facts = json.loads(told.stdout)
    assert facts["interrupted"]
    assert facts["steps"] == [3, 0]
    assert facts["grid"] is None
    assert facts["files"] == [str(tmp_path / "out" / "1.safetensors")]
    assert "saved the best models so far, 1 of 2" in told.stderr
    assert load_model(facts["files"][0]).coefficients.any()


def bomb(path):
    """A PNG of a few bytes that claims 50,000 × 50,000 pixels."""
    header = (50_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    chunks = b""
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        chunks += len(data).to_bytes(4, "big") + kind + data + checksum
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def text(path):
    path.write_text("no image at all")


def single_pixel(path):
    Image.new("RGB", (1, 1)).save(path)


def animated(path):
    frames = [Image.fromarray(pixels(i)) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def cut_off(path):
    photo(path)
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (text, "is not an image"),
        (single_pixel, "1×1"),
        (bomb, "is far too large"),
        (animated, "is animated"),
        (cut_off, "is damaged"),
    ],
)
def test_a_bad_photo_is_told_in_one_line(run, tmp_path, make, why):
    make(tmp_path / "bad.png")
    told = run(tmp_path / "bad.png", code=1)
    (line,) = told.stderr.strip().splitlines()
    assert "bad.png" in line
    assert why in line
    assert not (tmp_path / "out").exists()


def test_odd_photos_are_read(run, tmp_path):
    Image.fromarray(pixels()).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(pixels(shape=(20, 24, 4)), "RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    paths = [tmp_path / name for name in ("cmyk.jpg", "alpha.png", "deep.png")]
    assert json.loads(run(*paths, "--json").stdout)["steps"] == [2, 2, 2]


def test_a_bad_mask_is_told_in_one_line(run, tmp_path):
    one = photo(tmp_path / "1.png")
    mask = tmp_path / "m.png"
    for size, why in (((24, 20), "is empty within"), ((20, 24), "expected a mask of the same")):
        Image.new("L", size).save(mask)
        told = run(one, "--mask", mask, code=1)
        (line,) = told.stderr.strip().splitlines()
        assert "m.png" in line
        assert why in line
    text(mask)
    assert "is not an image" in run(one, "--mask", mask, code=1).stderr


def test_bad_usage(run, base, space, tmp_path):
    one = photo(tmp_path / "1.png")
    assert "does not exist" in run(tmp_path / "none.png", code=2).stderr
    assert "2 masks for 1 images" in run(one, "--mask", one, "--mask", one, code=2).stderr
    (tmp_path / "more").mkdir()
    twin = photo(tmp_path / "more" / "1.jpg")
    assert "2 images are named 1" in run(one, twin, code=1).stderr
    assert "prior_weight -1.0: expected" in run(one, "--prior-weight", -1, code=1).stderr
    assert "learning_rate 0.0: expected" in run(one, "--learning-rate", 0, code=1).stderr
    run(one, "--preset", "slow", code=2)
    told = run(one, code=1, options=("--space", space, "--device", "cpu"))
    assert "another base" in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1
