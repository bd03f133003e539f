"""The commands info, verify and export on files of every kind."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from weights2weights.cli import main
from weights2weights.dataset import WeightDataset
from weights2weights.formats import FORMATS, load_lora, write_lora_file
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.models import load_model, save_model
from weights2weights.space import WeightSpace

LAYOUT = WeightLayout(
    (LoRAModule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", 6, 4),),
    rank=2,
    alpha=27.0,
    base="somebody/base",
)


def run(*args: object):
    return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="w2w")


def write(folder: Path, kind: str = "kohya", metadata: dict[str, str] | None = None) -> Path:
    path = folder / ("adapter" if kind == "peft" else f"{kind}.safetensors")
    return write_lora_file(path, torch.arange(20.0), LAYOUT, kind, metadata)


def forget_alpha(path: Path) -> None:
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)


@pytest.mark.parametrize("kind", FORMATS)
def test_info_says_what_a_lora_is(tmp_path, kind):
    result = run("info", write(tmp_path, kind), "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    metadata = facts.pop("metadata")
    assert facts == {
        "format": kind,
        "rank": 2,
        "alpha": 27.0,
        "numbers": 20,
        "modules": 1,
        "targets": ["to_q"],
        "dtype": "float32",
        "layout": LAYOUT.hash,
        "base": "somebody/base",
    }
    assert all(isinstance(text, str) for text in metadata.values())


def test_info_says_that_alpha_is_missing_and_goes_on(tmp_path):
    path = write(tmp_path, "diffusers")
    forget_alpha(path)
    facts = json.loads(run("info", path, "--json").output)
    assert (facts["alpha"], facts["layout"], facts["numbers"]) == (None, None, 20)
    assert "alpha     -" in run("info", path).output


def test_info_for_people_is_short_and_cannot_steer_the_terminal(tmp_path):
    strange = {"title": "\x1b[2J", "ss_tag_frequency": "tag " * 10_000}
    path = write(tmp_path, "kohya", strange)
    text = run("info", path).output
    assert "\x1b" not in text and len(text) < 1500
    assert json.loads(run("info", path, "--json").output)["metadata"].items() >= strange.items()


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_what_is_not_there_is_one_line_and_exit_1(tmp_path, verb):
    result = run(verb, tmp_path / "absent.safetensors")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "absent.safetensors: cannot be read (No such file or directory)" in result.stderr


def test_verify_finds_a_sound_file_sound(tmp_path):
    path = write(tmp_path)
    assert run("verify", path).output == f"{path}: sound\n"
    assert json.loads(run("verify", path, "--json").output) == {
        "path": str(path),
        "sound": True,
        "problems": [],
    }


def test_verify_tells_each_problem_and_exits_with_1(tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    result = run("verify", path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {path}: is not valid safetensors")
    facts = json.loads(run("verify", path, "--json").stdout)
    assert not facts["sound"] and len(facts["problems"]) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_export_writes_any_format(tmp_path, kind):
    source = write(tmp_path, "diffusers", {"note": "mine"})
    out = tmp_path / "out" / ("adapter" if kind == "peft" else "out.safetensors")
    result = run("export", source, "--format", kind, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {"path": str(out), "format": kind, "rank": 2, "alpha": 27.0}
    got = load_lora(out)
    assert (got.format, got.layout, got.metadata["note"]) == (kind, LAYOUT, "mine")
    assert torch.equal(got.weights, torch.arange(20.0))


def test_export_takes_an_alpha_that_the_file_does_not_state(tmp_path):
    source, out = write(tmp_path, "diffusers"), tmp_path / "out.safetensors"
    forget_alpha(source)
    result = run("export", source, "--format", "kohya", "--out", out)
    assert (result.exit_code, out.exists()) == (1, False)
    assert "--alpha" in result.stderr
    assert run("export", source, "--format", "kohya", "--out", out, "--alpha", 27).exit_code == 0
    assert load_lora(out).layout.alpha == 27


@pytest.fixture
def space(tmp_path) -> WeightSpace:
    components, _ = torch.linalg.qr(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))
    bare = WeightSpace(LAYOUT, torch.ones(20), torch.full((20,), 0.3), components.T.contiguous())
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
    full = bare.with_models(rows, [f"p{row}" for row in range(9)])
    full.save_pretrained(tmp_path / "space")
    return WeightSpace.from_pretrained(tmp_path / "space")


@pytest.mark.parametrize("kind", FORMATS)
def test_export_writes_what_sampling_made(tmp_path, space, kind):
    assert run("sample", tmp_path / "space", "-n", 2, "--out", tmp_path / "new").exit_code == 0
    source = tmp_path / "new" / "sample-0-0001.safetensors"
    out = tmp_path / ("adapter" if kind == "peft" else "out.safetensors")
    result = run("export", source, "--format", kind, "--out", out, "--space", tmp_path / "space")
    assert result.exit_code == 0, result.output
    got = load_lora(out)
    assert (got.format, got.layout) == (kind, LAYOUT)
    assert torch.equal(got.weights, space.to_weights(space.coefficients_of(load_model(source))))


def test_a_folder_of_models_is_described_and_one_of_them_is_expected(tmp_path, space):
    new = tmp_path / "new"
    run("sample", tmp_path / "space", "-n", 2, "--out", new)
    facts = json.loads(run("info", new, "--json").stdout)
    assert (facts["models"], facts["names"]) == (2, ["sample-0-0000", "sample-0-0001"])
    assert run("verify", new).exit_code == 0
    result = run("export", new, "--format", "kohya", "--out", tmp_path / "out.safetensors")
    assert f"{new} holds 2 models: expected one, as {new}/NAME" in result.stderr


def test_export_takes_a_model_of_a_dataset(tmp_path):
    dataset = WeightDataset.create(tmp_path / "w", LAYOUT)
    dataset.write("ada", torch.arange(20.0))
    dataset.write("eve", torch.arange(20.0, 40.0))
    out = tmp_path / "out.safetensors"
    assert run("export", tmp_path / "w" / "eve", "--format", "kohya", "--out", out).exit_code == 0
    assert torch.equal(load_lora(out).weights, torch.arange(20.0, 40.0))
    result = run("export", tmp_path / "w", "--format", "kohya", "--out", out)
    assert (result.exit_code, "holds 2 models: expected one" in result.stderr) == (1, True)


def test_export_of_a_model_that_does_not_fit_is_one_line(tmp_path, space):
    point = save_model(tmp_path / "point.safetensors", space.model(torch.ones(3), {}))
    other = WeightSpace(LAYOUT, torch.zeros(20), torch.ones(20), torch.eye(20)[:3])
    other.save_pretrained(tmp_path / "other")
    export = ["export", point, "--format", "kohya", "--out", tmp_path / "out.safetensors"]
    for options, message in [
        (["--space", tmp_path / "other"], "give the space that it was made in"),
        (["--alpha", 1], "point states alpha 27, and 1 was given"),
    ]:
        result = run(*export, *options)
        assert result.exit_code == 1
        assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("args", [[], ["--format", "kohya"], ["--format", "ckpt", "--out", "x"]])
def test_bad_usage_exits_with_2(tmp_path, args):
    assert run("export", write(tmp_path), *args).exit_code == 2


@pytest.mark.parametrize("command", ["info", "verify"])
def test_what_is_not_a_regular_file_neither_hangs_nor_crashes(tmp_path, command):
    import os

    os.mkfifo(tmp_path / "pipe.safetensors")
    inside = tmp_path / "folder"
    inside.mkdir()
    for name in ("dataset.json", "config.json", "adapter_model.safetensors"):
        os.mkfifo(inside / name)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "pipe.safetensors", "/dev/zero", inside, tmp_path / "loop"):
        result = run(command, path)
        assert result.exit_code == 1, result.output
        assert len(result.stderr.splitlines()) == 1
        assert str(path) in result.stderr


@pytest.mark.parametrize("command", ["info", "verify"])
@pytest.mark.parametrize("name", ["huge.safetensors", "dataset.json", "config.json"])
def test_a_huge_file_is_refused_before_it_is_read(tmp_path, command, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 40)  # sparse
    result = run(command, tmp_path / name if name.startswith("huge") else tmp_path)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
