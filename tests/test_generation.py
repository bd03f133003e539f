"""Images do not depend on their company, and agree with the pipeline of diffusers."""

import pytest
import torch
from PIL import Image

import tiny
from weights2weights.bases import load_base
from weights2weights.errors import W2WError
from weights2weights.generation import generate, image_grid, initial_noise

PROMPTS = ["sks person", "sks person with a hat"]
SEEDS = [0, 7, 3]


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(tiny_base)


@pytest.fixture(scope="module")
def layout(base):
    return base.layout(alpha=27.0)


@pytest.fixture(scope="module")
def weights(layout):
    """Three strong models, so that their images differ clearly."""
    return 0.3 * torch.randn(3, layout.num_parameters, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def images(base, layout, weights):
    return generate(base, weights, layout, PROMPTS, SEEDS, steps=4)


def levels(a: torch.Tensor, b: torch.Tensor) -> int:
    """Largest difference in grey levels."""
    return int((a.int() - b.int()).abs().max())


def test_every_model_prompt_and_seed_has_its_image(images):
    assert images.shape == (3, 2, 3, 16, 16, 3)
    flat = images.flatten(0, 2)
    assert len(torch.unique(flat, dim=0)) == len(flat)


@pytest.mark.parametrize("chunk", [1, 2, 5, 7, 100])
def test_a_image_is_the_same_whatever_the_batch(base, layout, weights, images, chunk):
    again = generate(base, weights, layout, PROMPTS, SEEDS, steps=4, chunk=chunk)
    assert levels(again, images) <= 1


def test_a_image_is_the_same_in_any_company(base, layout, weights, images):
    alone = generate(base, weights[2:], layout, PROMPTS[1:], [7], steps=4)
    assert levels(alone[0, 0, 0], images[2, 1, 1]) <= 1


def test_the_same_call_gives_the_same_bits(base, layout, weights, images):
    again = generate(base, weights, layout, PROMPTS, SEEDS, steps=4)
    assert torch.equal(again, images)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_base_draws_as_its_pipeline_does(tmp_path, prediction_type, guidance):
    folder = tiny.base_folder(tmp_path, prediction_type=prediction_type)
    pipe = tiny.pipeline(tmp_path, prediction_type=prediction_type)
    theirs = pipe(
        PROMPTS[0],
        num_inference_steps=5,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
        negative_prompt="blurred",
    ).images[0]
    ours = generate(
        load_base(folder),
        None,
        None,
        PROMPTS[:1],
        [7],
        steps=5,
        guidance=guidance,
        negative_prompt="blurred",
    )
    assert levels(ours[0, 0, 0], torch.from_numpy(theirs * 255).round()) <= 1


def test_zero_weights_draw_the_base(base, layout):
    plain = generate(base, None, None, PROMPTS, SEEDS, steps=4)
    zero = generate(base, torch.zeros(1, layout.num_parameters), layout, PROMPTS, SEEDS, steps=4)
    assert levels(zero, plain) <= 1


def test_the_base_is_left_as_it_was(base, layout, weights):
    inputs = tiny.unet_inputs(2)
    before = base.denoise(*inputs)
    generate(base, weights, layout, PROMPTS[:1], [0], steps=2)
    assert torch.equal(base.denoise(*inputs), before)


@pytest.mark.parametrize("original", [None, "other"])
def test_injection_at_the_extremes_is_one_model_throughout(base, layout, weights, images, original):
    before = None if original is None else weights.flip(0)
    options = {"steps": 4, "original": before}
    always = generate(base, weights, layout, PROMPTS, SEEDS, inject_at=1000, **options)
    assert torch.equal(always, images)
    never = generate(base, weights, layout, PROMPTS, SEEDS, inject_at=-1, **options)
    if original is None:
        expected = generate(base, None, None, PROMPTS, SEEDS, steps=4).expand_as(never)
    else:
        expected = generate(base, weights.flip(0), layout, PROMPTS, SEEDS, steps=4)
    assert levels(never, expected) <= 1


def test_injection_changes_the_model_at_its_timestep(base, layout, weights):
    """With four steps, 751, 501, 251 and 1, of which the edit takes those up to T."""
    draw = {
        T: generate(base, weights, layout, PROMPTS[:1], [0], steps=4, inject_at=T)
        for T in (751, 750, 501, 500, 251)
    }
    assert torch.equal(draw[750], draw[501])
    assert torch.equal(draw[500], draw[251])
    distinct = [draw[T] for T in (751, 750, 500)]
    assert len(torch.unique(torch.stack(distinct).flatten(1), dim=0)) == 3


def test_too_little_memory_halves_the_chunk(base, layout, weights, images, monkeypatch):
    sizes = []
    denoise = type(base).denoise

    def greedy(self, noisy, timesteps, prompts):
        sizes.append(len(noisy))
        if len(noisy) > 8:
            raise torch.OutOfMemoryError("no")
        return denoise(self, noisy, timesteps, prompts)

    monkeypatch.setattr(type(base), "denoise", greedy)
    again = generate(base, weights, layout, PROMPTS, SEEDS, steps=4, chunk=18)
    assert levels(again, images) <= 1
    assert sizes[:3] == [36, 18, 10]
    assert max(sizes[3:]) <= 10
    assert sizes.count(10) == 1


def test_no_memory_for_one_image_is_one_line(base, monkeypatch):
    def greedy(self, *_):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(type(base), "denoise", greedy)
    with pytest.raises(W2WError, match="does not fit into the memory"):
        generate(base, None, None, PROMPTS, SEEDS)


def test_noise_is_that_of_the_seed(base):
    assert torch.equal(initial_noise(base, 3), initial_noise(base, 3))
    assert not torch.equal(initial_noise(base, 3), initial_noise(base, 4))
    assert initial_noise(base, 3).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": "a person"}, "expected a list"),
        ({"prompts": []}, "0 prompts and 1 seeds"),
        ({"seeds": []}, "1 prompts and 0 seeds"),
        ({"layout": None}, "without their layout"),
        ({"steps": 0}, "0 steps"),
        ({"chunk": 0}, "chunks of 0"),
        ({"weights": None, "layout": None, "inject_at": 500}, "expected the weights to inject"),
        ({"weights": torch.zeros(1, 5)}, r"shape \(1, 5\)"),
    ],
)
def test_arguments_out_of_range_are_refused(base, layout, weights, changes, message):
    arguments = {"weights": weights, "layout": layout, "prompts": ["a"], "seeds": [0]} | changes
    with pytest.raises(W2WError, match=message):
        generate(base, **arguments)


def test_original_without_its_timestep_is_refused(base, layout, weights):
    with pytest.raises(W2WError, match="without inject_at"):
        generate(base, weights, layout, ["a"], [0], original=weights)


def test_grid_places_images_and_captions():
    cells = torch.arange(6).view(2, 3, 1, 1, 1).expand(2, 3, 16, 16, 3).to(torch.uint8) * 40
    bare = image_grid(cells, cell=16)
    assert bare.size == (3 * 18 - 2, 2 * 18 - 2)
    assert [bare.getpixel((c * 18 + 8, 26))[0] for c in range(3)] == [120, 160, 200]
    told = image_grid(cells, ["Adam", "Eve"], ["on a beach", "0", "1"])
    assert told.size[0] > 3 * 128
    assert told.size[1] > 2 * 128
    assert isinstance(told, Image.Image)


def test_captions_are_as_many_as_what_they_name():
    cells = torch.zeros(2, 3, 16, 16, 3, dtype=torch.uint8)
    with pytest.raises(W2WError, match="1 captions for 2 rows"):
        image_grid(cells, ["Adam"])
