"""A folder of strangers' LoRAs on the command line: fit, info, neighbours, and the verbs after."""

import json

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from test_updates import strangers, write_all
from weights2weights.cli import main
from weights2weights.formats import write_lora_file
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.updates import labels_from_headers, read_updates


def facts(*arguments, code=0):
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "downloads"
    folder.mkdir()
    updates = strangers(8)
    for number, update in enumerate(updates):
        object.__setattr__(update, "name", f"{'anime' if number % 2 else 'photo'}-{number}")
    write_all(folder, updates)
    first = updates[0]
    copy = WeightLayout(first.layout.modules, first.layout.rank, 5.0)
    tensors = [x.flatten() for m in first.layout.modules for x in first.factors[m.name]]
    write_lora_file(folder / "photo-copy.safetensors", torch.cat(tensors), copy, "kohya")
    (folder / "broken.safetensors").write_bytes(b"nothing")
    return folder


def test_a_folder_of_unlike_loras_becomes_a_space(folder, tmp_path):
    space = tmp_path / "space"
    told = facts("fit", folder, "--of", "updates", "--out", space, "--rank", 6)
    assert told["of"] == "updates" and told["models"] == 9 and len(told["refused"]) == 1
    assert told["labels"] == ["anime", "photo"]  # from the names of the files
    assert facts("info", space)["of"] == "updates" and facts("verify", space)["sound"]
    sample = facts("sample", space, "-n", 1, "--out", tmp_path / "new")["files"][0]
    lora = tmp_path / "lora.safetensors"
    facts("export", sample, "--space", space, "--format", "kohya", "--out", lora)
    assert facts("info", lora)["rank"] == 6
    near = facts("neighbours", folder / "photo-0.safetensors", "--space", space, "-n", 2)
    ((best, second),) = near["neighbours"].values()
    assert {best["name"], second["name"]} == {"photo-0", "photo-copy"}
    moved = tmp_path / "moved.safetensors"
    stranger = folder / "anime-1.safetensors"
    facts("edit", stranger, "--space", space, "--set", "anime=-1", "--out", moved)
    assert facts("info", moved)["rank"] == 6


def test_info_of_a_folder_tells_ranks_alphas_and_near_copies(folder):
    told = facts("info", folder)
    assert told["models"] == 9 and told["ranks"] == {"1": 4, "3": 3, "8": 2}
    (pair,) = told["near_copies"]
    assert set(pair["names"]) == {"photo-0", "photo-copy"}
    assert list(told["refused"]) == [str(folder / "broken.safetensors")]
    problems = facts("verify", folder, code=1)["problems"]
    assert len(problems) == 1 and "broken" in problems[0]


def test_neighbours_among_a_folder_need_no_space(folder, tmp_path):
    Image.new("RGB", (64, 64), "red").save(folder / "photo-0.png")
    sheet = tmp_path / "map.png"
    told = facts("neighbours", "--among", folder, "-n", 2, "--map", sheet)
    assert told["near_copies"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert told["neighbours"]["photo-0"][0]["name"] == "photo-copy"
    colours = Image.open(sheet).getcolors(1 << 20)
    assert any(colour == (255, 0, 0) and count > 24 * 24 / 2 for count, colour in colours)
    one = facts("neighbours", folder / "photo-0.safetensors", "--among", folder, "-n", 1)
    assert one["neighbours"]["photo-0"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    shown = CliRunner().invoke(main, ["neighbours", "--among", str(folder)])
    assert "photo-0 = photo-copy" in shown.stdout and "broken" in shown.stderr


def test_tags_of_kohya_headers_become_labels(tmp_path):
    layout = WeightLayout((LoRAModule("a.attentions.0.to_q", 6, 5),), 1, 1.0)
    for number in range(8):
        tags = {"img": {"sword" if number < 4 else "hat": 10, "rare": 1}}
        metadata = {} if number == 7 else {"ss_tag_frequency": json.dumps(tags)}
        weights = torch.randn(11, generator=torch.Generator().manual_seed(number))
        write_lora_file(tmp_path / f"{number}.safetensors", weights, layout, "diffusers", metadata)
    table = labels_from_headers(read_updates([tmp_path])[0])
    assert list(table.columns) == ["hat", "sword"]
    assert table["sword"].tolist()[:7] == [True] * 4 + [False] * 3
    assert table["sword"].isna().tolist()[7]
