"""The shipped base and scorers: a Stable Diffusion folder that follows prompts, and good judges.

`python -m experiments.world check` measures the same on more images.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from experiments.world.autoencoder import decode, encode, psnr
from experiments.world.check import attribute_agreement, scene_agreement, scorer_figures
from experiments.world.images import CHECK_POPULATION, draw_images
from weights2weights import inspection, load_base
from weights2weights.bases._find import find_base
from weights2weights.cli import main
from weights2weights.inspection import info, verify
from weights2weights.space import find_space
from weights2weights.worlds import is_shipped, shipped
from weights2weights.worlds.people import PEOPLE
from weights2weights.worlds.scorers import Scorer


@pytest.fixture(scope="module")
def held_out():
    return draw_images("people", CHECK_POPULATION, 60, images=2, size=64)


@pytest.fixture(scope="module")
def scorer():
    return Scorer.load(shipped("people", "scorer"))


def test_diffusers_opens_the_folder_and_draws():
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(shipped("people", "base"))
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    image = pipeline("a photo of a man", num_inference_steps=4, generator=generator).images[0]
    assert image.size == (64, 64)
    assert np.asarray(image).std() > 20, "an image, not a plain colour"


def test_the_shipped_base_is_recognised_by_its_weights(tiny_base, tmp_path):
    copy = shutil.copytree(shipped("people", "base"), tmp_path / "renamed")
    assert is_shipped(load_base("people", dtype=torch.bfloat16))
    assert is_shipped(load_base(copy))
    assert not is_shipped(load_base(tiny_base))


def test_the_shipped_weights_stay_small():
    def megabytes(part: str) -> float:
        files = shipped("people", part).rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file()) / 1e6

    assert megabytes("base") <= 25
    assert megabytes("scorer") <= 4


def test_info_names_the_folder():
    result = CliRunner().invoke(main, ["info", "people", "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["folder"] == str(shipped("people", "base"))
    assert facts["size"] == 64
    assert facts["labels"] == list(PEOPLE.label_names)


def test_a_folder_of_outputs_named_people_does_not_hide_the_world(tmp_path, monkeypatch):
    """`w2w sample people --out people` leaves one in which later commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "sample-0-0000.safetensors").write_bytes(b"")
    assert info("people")["world"] == "people"
    assert find_base("people")[0] == shipped("people", "base")
    assert find_space("people") == shipped("people", "space")
    (tmp_path / "people" / "config.json").write_text('{"format": "weights2weights-space"}')
    assert "config.json" in verify("people")[0]
    assert find_space("people") == Path("people")
    assert find_base("people")[0] == shipped("people", "base")


def test_verify_reads_the_shipped_space_too(monkeypatch):
    seen = []
    monkeypatch.setattr(inspection, "verify_space", lambda at: seen.append(at) or ["broken"])
    assert verify("people") == ["broken"]
    assert seen == [shipped("people", "space")]


def test_autoencoder_and_scorers_on_unseen_people(held_out, scorer):
    vae = load_base("people").vae
    latents = encode(vae, held_out.images, "cpu")
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=0.1, rtol=0)
    round_trips = decode(vae, latents, "cpu")
    assert psnr(held_out.images, round_trips) >= 28
    on_renders = scorer_figures(scorer, held_out, held_out.images)
    on_round_trips = scorer_figures(scorer, held_out, round_trips)
    assert on_renders["verification_auc"] >= 0.99
    assert on_round_trips["verification_auc"] >= 0.98
    assert on_renders["mean_attribute_auc"] >= 0.97
    assert on_round_trips["mean_attribute_auc"] >= 0.95


def test_images_follow_prompts_for_faces_and_scenes(scorer):
    some = ("Bald", "Eyeglasses", "Full_Beard", "Dark_Skin", "Wearing_Hat", "Long_Hair")
    base = load_base("people")
    prompts = {name: PEOPLE.attribute_prompts[name] for name in some}
    figures, _ = attribute_agreement(base, scorer, [0, 1, 2], prompts)
    assert tuple(figures["attributes"]) == some
    assert figures["mean"] >= 0.9, figures["attributes"]
    assert scene_agreement(base, seeds=1) >= 0.8
