"""One way through the library, from Python, as the documentation shows it, on the people world."""

import pytest
import torch
from PIL import Image

import weights2weights as w2w
from weights2weights.worlds.folders import write_subjects

# `pipe` is a diffusers pipeline of the base.
WAY = """
base   = w2w.load_base("people")
mine   = w2w.Base.from_pipeline(pipe)
space  = w2w.WeightSpace.from_pretrained("people")
points = space.sample(3, seed=0)
older  = w2w.edit(points, {space.direction("Young", keep=["Male"]): -2.0})
prompt = "a photo of sks person, in a forest"
images = w2w.generate(base, older, space=space, prompts=[prompt], seeds=[0, 1])
found  = w2w.invert(base, space, "photo.jpg", mask="mask.png")
bald   = w2w.edit(found, {space.direction("Bald"): 2.0})
w2w.save_lora("ada.safetensors", found, space=space, format="kohya")
pipe   = w2w.load_into(pipe, older[0], space=space)
dataset = w2w.train(base, w2w.find_subjects("photos"), "loras", w2w.DreamBoothConfig(steps=800))
space   = w2w.WeightSpace.fit(dataset, components=1000)
"""
QUICKER = {
    "steps=800": "steps=2, prior_loss_weight=0.0",
    'mask="mask.png"': 'mask="mask.png", steps=4, samples_per_step=2',
}


@pytest.fixture
def pipe():
    from diffusers import StableDiffusionPipeline

    folder = w2w.info("people")["folder"]
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.slow
def test_one_way_through_the_library(tmp_path, monkeypatch, pipe):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    write_subjects("people", tmp_path / "photos", subjects=3, images=2, size=64, seed=9)
    photo = next((tmp_path / "photos").glob("*/*.png"))
    Image.open(photo).convert("RGB").save("photo.jpg")
    Image.new("L", (64, 64), 255).save("mask.png")
    way = WAY
    for slow, quick in QUICKER.items():
        assert slow in way
        way = way.replace(slow, quick)
    names = {"w2w": w2w, "pipe": pipe}
    exec(compile(way, "way", "exec"), names)
    assert names["mine"].hash == names["base"].hash
    assert names["bald"].shape == names["found"].points.shape
    assert names["points"].shape == names["older"].shape
    assert not torch.equal(names["points"], names["older"])
    assert names["images"].shape == (3, 1, 2, 64, 64, 3)
    assert names["images"].dtype == torch.uint8
    assert w2w.info("ada.safetensors")["format"] == "kohya"
    assert names["pipe"].get_active_adapters() == ["w2w"]
    assert w2w.info("loras")["models"] == 3
    assert len(names["space"].names) == 3
