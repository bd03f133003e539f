"""Images do not depend on their company, and agree with the pipeline of diffusers."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from weights2weights.bases import load_base
from weights2weights.errors import W2WError
from weights2weights.generation import generate, initial_noise
from weights2weights.models import save_model
from weights2weights.space import WeightSpace

PROMPTS = ["sks person", "sks person with a hat"]
SEEDS = [0, 7, 3]


def draw(base, models=None, **options) -> torch.Tensor:
    return generate(base, models, **{"prompts": PROMPTS, "seeds": SEEDS, "steps": 4, **options})


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
    return draw(base, weights, layout=layout)


def levels(a: torch.Tensor, b: torch.Tensor) -> int:
    """Largest difference in grey levels."""
    return int((a.int() - b.int()).abs().max())


def test_every_model_prompt_and_seed_has_its_image(images):
    assert images.shape == (3, 2, 3, 16, 16, 3)
    flat = images.flatten(0, 2)
    assert len(torch.unique(flat, dim=0)) == len(flat)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 100])
def test_an_image_is_the_same_whatever_the_batch(base, layout, weights, images, size):
    again = draw(base, weights, layout=layout, batch_size=size)
    assert levels(again, images) <= 1


def test_an_image_is_the_same_in_any_company(base, layout, weights, images):
    alone = draw(base, weights[2:], layout=layout, prompts=PROMPTS[1:], seeds=[7])
    assert levels(alone[0, 0, 0], images[2, 1, 1]) <= 1


def test_the_same_call_gives_the_same_bits(base, layout, weights, images):
    again = draw(base, weights, layout=layout)
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
        prompts=PROMPTS[0],
        seeds=7,
        steps=5,
        guidance=guidance,
        negative_prompt="blurred",
    )
    assert levels(ours[0, 0, 0], torch.from_numpy(theirs * 255).round()) <= 1


def test_zero_weights_draw_the_base(base, layout):
    plain = draw(base)
    zero = draw(base, torch.zeros(layout.num_parameters), layout=layout)
    assert levels(zero, plain) <= 1


def test_the_base_is_left_as_it_was(base, layout, weights):
    inputs = tiny.base_inputs(2)
    before = base.denoise(*inputs)
    draw(base, weights, layout=layout, prompts=PROMPTS[:1], seeds=[0], steps=2)
    assert torch.equal(base.denoise(*inputs), before)


@pytest.mark.parametrize("original", [None, "other"])
def test_injection_at_the_extremes_is_one_model_throughout(base, layout, weights, images, original):
    before = None if original is None else weights.flip(0)
    options = {"original": before}
    always = draw(base, weights, layout=layout, inject_at=1000, **options)
    assert torch.equal(always, images)
    never = draw(base, weights, layout=layout, inject_at=-1, **options)
    if original is None:
        expected = draw(base).expand_as(never)
    else:
        expected = draw(base, weights.flip(0), layout=layout)
    assert levels(never, expected) <= 1


def test_injection_changes_the_model_at_its_timestep(base, layout, weights):
    """With four steps, 751, 501, 251 and 1, of which the edit takes those up to T."""
    drawn = {
        T: draw(base, weights, layout=layout, prompts=PROMPTS[:1], seeds=[0], inject_at=T)
        for T in (751, 750, 501, 500, 251)
    }
    assert torch.equal(drawn[750], drawn[501])
    assert torch.equal(drawn[500], drawn[251])
    distinct = [drawn[T] for T in (751, 750, 500)]
    assert len(torch.unique(torch.stack(distinct).flatten(1), dim=0)) == 3


def test_too_little_memory_halves_the_batch(base, layout, weights, images, monkeypatch):
    sizes = []
    denoise = type(base).denoise

    def greedy(self, noisy, *others):
        sizes.append(len(noisy))
        if len(noisy) > 8:
            raise torch.OutOfMemoryError("no")
        return denoise(self, noisy, *others)

    monkeypatch.setattr(type(base), "denoise", greedy)
    again = draw(base, weights, layout=layout, batch_size=18)
    assert levels(again, images) <= 1
    assert sizes[:3] == [36, 18, 10]
    assert max(sizes[3:]) <= 10
    assert sizes.count(10) == 1


def test_no_memory_for_one_image_is_one_line(base, monkeypatch):
    def greedy(self, *_):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(type(base), "denoise", greedy)
    with pytest.raises(W2WError, match="does not fit into the memory"):
        draw(base)


def test_a_name_is_not_a_base():
    with pytest.raises(W2WError, match=r"expected a Base; w2w.load_base\('people'\) loads one"):
        inspect.unwrap(generate)("people", prompts="a", seeds=0)


def test_seeds_may_come_from_numpy(base):
    for seeds in (np.int64(3), np.array([3]), [np.int64(3)]):
        assert torch.equal(draw(base, seeds=seeds), draw(base, seeds=3))


def test_noise_is_that_of_the_seed(base):
    assert torch.equal(initial_noise(base, 3), initial_noise(base, 3))
    assert not torch.equal(initial_noise(base, 3), initial_noise(base, 4))
    assert initial_noise(base, 3).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "0 prompts and 1 seeds"),
        ({"seeds": range(0)}, "1 prompts and 0 seeds"),
        ({"layout": None}, "does not say what it holds"),
        ({"steps": 0}, "0 steps"),
        ({"steps": 1001}, "1001 steps: expected at most 1000"),
        ({"guidance": float("nan")}, "guidance nan"),
        ({"seeds": [-1]}, "seeds from -1"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"models": None, "layout": None, "inject_at": 500}, "expected the models to inject"),
        ({"models": torch.zeros(1, 5)}, r"shape \[5\]: expected"),
        ({"original": torch.zeros(3, 700)}, "without inject_at"),
        ({"original": torch.zeros(2, 700), "inject_at": 500}, "2 original models for 3"),
    ],
)
def test_arguments_out_of_range_are_refused(base, layout, weights, changes, message):
    arguments = {"models": weights, "layout": layout, "prompts": ["a"], "seeds": [0]} | changes
    with pytest.raises(W2WError, match=message):
        draw(base, **arguments)


def test_points_models_and_files_are_drawn_alike(base, layout, weights, images, tmp_path):
    components, _ = torch.linalg.qr((weights - weights.mean(0)).T[:, :2])
    d = layout.num_parameters
    space = WeightSpace(layout, weights.mean(0), torch.ones(d), components.T.contiguous())
    points = space.project(weights)
    models = [space.model(point, {}) for point in points]
    path = save_model(tmp_path / "eve.safetensors", models[2])
    for given in (points, points.numpy(), models, [*models[:2], path]):
        assert levels(draw(base, given, space=space), images) <= 1
    one = draw(base, path, space=space, prompts=PROMPTS[1], seeds=7)
    assert levels(one[0, 0, 0], images[2, 1, 1]) <= 1
    stranger = replace(models[0], base_hash="0123456789abcdef", name="adam")
    with pytest.raises(W2WError, match="adam was made for another base"):
        draw(base, stranger, space=space)
