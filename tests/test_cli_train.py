"""`w2w train` and `w2w generate`: what they print, write and exit with."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from weights2weights import cli
from weights2weights.bases import load_base
from weights2weights.cli.model import seeds
from weights2weights.dataset import WeightDataset
from weights2weights.formats import write_lora_file
from weights2weights.models import Model, save_model

QUICK = ["--device", "cpu", "--steps", "2", "--num-class-images", "2", "--preset", "paper"]


def run(*args):
    return CliRunner().invoke(cli.main, [str(arg) for arg in args], prog_name="w2w")


@pytest.fixture
def subjects(tmp_path, monkeypatch):
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "subjects"
    for seed, name in enumerate(("adam", "eve 2")):
        (folder / name).mkdir(parents=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / "0.png")
    (folder / "labels.csv").write_text("name,Bald\nadam,1\neve 2,0\nnoah,1\n")
    return folder


@pytest.fixture
def base(tiny_base):
    return load_base(tiny_base)


@pytest.fixture
def weights(base):
    return 0.3 * torch.randn(
        2, base.layout().num_parameters, generator=torch.Generator().manual_seed(0)
    )


# w2w train


def test_train_and_draw_and_go_on(tiny_base, base, subjects, tmp_path):
    out = tmp_path / "weights"
    options = ["--base", tiny_base, *QUICK]
    result = run("train", subjects, "--out", out, *options, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts == {
        "path": str(out),
        "models": 2,
        "numbers": 700,
        "layout": base.layout().hash,
        "base": str(tiny_base),
        "failed": {},
    }
    dataset = WeightDataset.open(out)
    assert dataset.labels["Bald"].tolist() == [True, False]
    assert dataset.recipe["steps"] == 2
    again = run("train", subjects, "--out", out, *options)
    assert again.exit_code == 0
    assert "models   2" in again.stdout
    draw = ["--base", tiny_base, "--prompt", "sks person", "--steps", "2", "--device", "cpu"]
    for model, rows in ((out, ["adam", "eve 2"]), (out / "eve 2", ["eve 2"])):
        drawn = run("generate", model, *draw, "--out", tmp_path / "grid.png", "--json")
        assert drawn.exit_code == 0, drawn.output
        assert json.loads(drawn.stdout)["models"] == rows


def test_caption_dropout_arrives(tiny_base, subjects, tmp_path):
    (subjects / "adam" / "0.txt").write_text("smiling, on a beach")
    options = ["--base", tiny_base, *QUICK, "--caption-dropout"]
    result = run("train", subjects, "--out", tmp_path / "out", *options, "0.25")
    assert result.exit_code == 0, result.output
    assert WeightDataset.open(tmp_path / "out").recipe["caption_dropout"] == 0.25
    assert run("train", subjects, "--out", tmp_path / "out", *options, "1.5").exit_code == 2


def test_a_subject_that_fails_is_named_and_the_exit_code_tells(tiny_base, subjects, tmp_path):
    (subjects / "broken").mkdir()
    (subjects / "broken" / "0.jpg").write_bytes(b"no image")
    (subjects / "empty").mkdir()
    command = ["train", subjects, "--out", tmp_path / "out", "--base", tiny_base, *QUICK]
    for _ in range(2):
        result = run(*command)
        assert result.exit_code == 1
        assert len(WeightDataset.open(tmp_path / "out")) == 2
        assert "broken: 0.jpg is not an image; expected" in result.stderr
        assert "empty: no images: expected PNG" in result.stderr
        assert "2 of 4 subjects failed; fix them and rerun with --retry" in result.stderr
    Image.new("RGB", (20, 20)).save(subjects / "empty" / "0.png")
    result = run(*command, "--retry", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["models"] == 3
    assert list(json.loads(result.stdout)["failed"]) == ["broken"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["SUBJECTS"], 2, "Missing option '--out'"),
        (["nowhere", "--out", "OUT"], 1, "nowhere is not a directory"),
        (["SUBJECTS", "--out", "OUT", "--base", "martians"], 1, "no embedded world"),
        (["SUBJECTS", "--out", "OUT", "--steps", "0"], 2, "--steps"),
        (["SUBJECTS", "--out", "OUT", "--alpha", "-1"], 1, "alpha -1.0: expected more than 0"),
        (["SUBJECTS", "--out", "OUT", "--device", "abacus"], 1, "device 'abacus' cannot be used"),
        (["SUBJECTS", "--out", "OUT", "--labels", "no.csv"], 1, "no.csv cannot be read"),
        (["SUBJECTS", "--out", "SUBJECTS"], 1, "not empty and holds no dataset"),
    ],
)
def test_what_train_cannot_do_is_one_line(tiny_base, subjects, tmp_path, args, code, message):
    places = {"SUBJECTS": subjects, "OUT": tmp_path / "out"}
    given = ["--base", tiny_base] if "--base" not in args else []
    result = run("train", *(places.get(arg, arg) for arg in args), *given)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    if code == 1:
        assert len(result.stderr.strip().splitlines()) == 1


# w2w generate


def test_draws_the_base_without_a_model(tiny_base, tmp_path):
    out = tmp_path / "new" / "grid.png"
    result = run(
        *("generate", "--base", tiny_base, "--prompt", "a", "--prompt", "b", "--seeds", "0-1,5"),
        *("--steps", "2", "--out", out, "--each", tmp_path / "each", "--json", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["images"] == 6
    assert facts["seeds"] == [0, 1, 5]
    assert facts["models"] == []
    with Image.open(out) as sheet:
        assert sheet.size[0] >= 6 * 128
    assert len(list((tmp_path / "each").glob("*.png"))) == 6


def test_draws_models_and_lora_files_side_by_side(tiny_base, base, weights, tmp_path):
    layout = base.layout()
    write_lora_file(tmp_path / "lora.safetensors", weights[0], layout, "kohya")
    save_model(tmp_path / "adam.safetensors", Model(layout, weights=weights[1]))
    draw = ["--base", tiny_base, "--prompt", "a", "--seeds", "3", "--steps", "2", "--device", "cpu"]
    files = [tmp_path / "lora.safetensors", tmp_path / "adam.safetensors"]
    result = run("generate", *files, *draw, "--out", tmp_path / "grid.png", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["models"] == ["lora", "adam"]


def test_injection_of_an_edit_into_its_original(tiny_base, base, weights, tmp_path):
    layout = base.layout()
    for name, row in zip(("before", "after"), weights, strict=True):
        save_model(tmp_path / f"{name}.safetensors", Model(layout, weights=row))
    draw = ["--base", tiny_base, "--prompt", "a", "--seeds", "3", "--steps", "2", "--device", "cpu"]
    original = ["--original", tmp_path / "before.safetensors"]

    def pixels(model, *options):
        out = tmp_path / "grid.png"
        result = run("generate", tmp_path / f"{model}.safetensors", *draw, "--out", out, *options)
        assert result.exit_code == 0, result.output
        with Image.open(out) as sheet:
            return np.asarray(sheet)[-128:, -128:]  # the image, without its caption

    late = pixels("after", "--inject-at", 0, *original)
    assert np.array_equal(late, pixels("before"))
    early = pixels("after", "--inject-at", 1000, *original)
    assert np.array_equal(early, pixels("after"))
    assert not np.array_equal(early, late)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--out", "a.png"], 2, "Missing option '--prompt'"),
        (["--prompt", "a", "--out", "a.gif"], 2, "expected a name ending in .png"),
        (["--prompt", "a", "--out", "a.png", "--seeds", "3-1"], 2, "expected 1 to 10,000 seeds"),
        (["--prompt", "a", "--out", "a.png", "--inject-at", "5"], 2, "needs a MODEL"),
        (["--prompt", "a", "--out", "a.png", "--original", "b"], 2, "--inject-at"),
        (["nowhere", "--prompt", "a", "--out", "a.png"], 1, "nowhere does not exist"),
    ],
)
def test_what_generate_cannot_do_is_one_line(args, code, message):
    result = run("generate", *args)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())


def test_models_of_another_base_or_layout_are_refused(tiny_base, base, weights, tmp_path):
    stranger = Model(base.layout(), weights=weights[0], base_hash="0123456789abcdef")
    save_model(tmp_path / "stranger.safetensors", stranger)
    save_model(tmp_path / "adam.safetensors", Model(base.layout(), weights=weights[0]))
    save_model(tmp_path / "eve.safetensors", Model(base.layout(alpha=1.0), weights=weights[1]))
    draw = ["--base", tiny_base, "--prompt", "a", "--out", tmp_path / "a.png", "--device", "cpu"]
    result = run("generate", tmp_path / "stranger.safetensors", *draw)
    assert result.exit_code == 1
    assert "stranger was made for another base" in result.stderr
    result = run("generate", tmp_path / "adam.safetensors", tmp_path / "eve.safetensors", *draw)
    assert result.exit_code == 1
    assert "eve has another layout: alpha 1, expected 27" in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"), [("0-3", [0, 1, 2, 3]), ("7", [7]), ("5, 0-1", [5, 0, 1])]
)
def test_seeds_are_numbers_and_ranges(text, expected):
    assert seeds(text) == expected


@pytest.mark.parametrize("text", ["", "a", "-1", "1-", "0-99999999", "9223372036854775808"])
def test_what_is_no_seeds_is_bad_usage(text):
    result = run("generate", "--prompt", "a", "--out", "a.png", "--seeds", text)
    assert result.exit_code == 2
    assert "expected" in result.stderr
