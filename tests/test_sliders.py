"""Text sliders: where they lead, what they leave alone, and that each trains independently."""

from typing import Any

import pytest
import torch

import tiny
from experiments.sliders import Concept, SliderConfig, moved_target, train_sliders
from weights2weights.adapter import adapt
from weights2weights.bases import Base, noise_target
from weights2weights.errors import W2WError
from weights2weights.generation import generate
from weights2weights.layout import WeightLayout
from weights2weights.merging import merge_weights

BALD = Concept("a bald person", "a person with hair", "a person")
HAT = Concept("a person with hat", "no hat", "a person")
DOG = Concept("big dog", "small dog", "dog")
QUICK: dict[str, Any] = {"steps": 3, "samples_per_step": 2, "images": 2, "learning_rate": 1e-2}


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("base")
    return Base.from_pipeline(tiny.pipeline(folder, prediction_type=request.param))


def unseen(base: Base, count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(123)
    latents = torch.randn(count, *base.latent_shape, generator=generator)
    return latents, torch.randint(0, 1000, (count,), generator=generator)


def say(base: Base, prompt: str) -> torch.Tensor:
    latents, timesteps = unseen(base)
    with torch.no_grad():
        return base.denoise(latents, timesteps, base.encode_prompts([prompt] * len(latents)))


def scaled(slider: torch.Tensor, layout: WeightLayout, strength: float) -> torch.Tensor:
    """The slider with `strength` times its update: B scaled, A kept."""
    slider = slider.clone()
    for _, _, B in layout.slices():
        slider[B] *= strength
    return slider


def test_slider_moves_unseen_predictions_to_the_wanted_ones(base):
    layout = base.layout(alpha=1.0)
    (slider,) = train_sliders(
        base,
        layout,
        [BALD],
        steps=120,
        samples_per_step=4,
        images=4,
        learning_rate=2e-2,
        guidance=3.0,
    )
    prompts = BALD.target, BALD.positive, BALD.negative
    wanted = moved_target(*(say(base, text) for text in prompts), guidance=3.0)
    neutral = say(base, BALD.target)
    far = (wanted - neutral).square().mean()

    def left(strength: float) -> float:
        with adapt(base.denoiser, layout, scaled(slider, layout, strength)[None]):
            return float((say(base, BALD.target) - wanted).square().mean() / far)

    assert left(1.0) < 0.5
    assert left(1.0) < left(0.5) < left(0.0) == 1.0 < left(-1.0)


def test_scale_0_is_the_base_and_the_base_is_left_as_it_was(base):
    layout, before = base.layout(alpha=1.0), say(base, "a person")
    (slider,) = train_sliders(base, layout, [Concept("bald", "hair", "a person")], **QUICK)
    assert torch.equal(say(base, "a person"), before)
    with adapt(base.denoiser, layout, scaled(slider, layout, 0.0)[None]):
        assert torch.equal(say(base, "a person"), before)
    with adapt(base.denoiser, layout, slider[None]):
        assert not torch.equal(say(base, "a person"), before)


def test_sliders_do_not_depend_on_the_other_concepts(base):
    layout = base.layout(alpha=1.0)
    together = train_sliders(base, layout, [BALD, HAT, DOG, BALD], seed=5, **QUICK)
    assert together.shape == (4, layout.num_parameters)
    for k, concept in enumerate([BALD, HAT, DOG]):
        (alone,) = train_sliders(base, layout, [concept], seed=5, **QUICK)
        torch.testing.assert_close(together[k], alone, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(together[0], together[3], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(base):
    layout = base.layout(alpha=1.0)
    first, again, other = (
        train_sliders(base, layout, [BALD], seed=seed, **QUICK) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_merged_slider_is_the_slider_and_strength_is_a_weight(base):
    layout = base.layout(alpha=1.0)
    (slider,) = train_sliders(base, layout, [Concept("bald", "hair", "a person")], **QUICK)
    nothing = torch.zeros(layout.num_parameters)
    merged_layout, merged = merge_weights(layout, nothing, layout, slider, weight=-0.5)
    prompts, seeds = ["a person"], [0]
    weakened = scaled(slider, layout, -0.5)[None]
    first = generate(base, weakened, layout=layout, prompts=prompts, seeds=seeds, steps=2)
    second = generate(base, merged, layout=merged_layout, prompts=prompts, seeds=seeds, steps=2)
    assert (first.int() - second.int()).abs().max() <= 1


def test_the_wanted_move_is_one_and_the_same_in_noise_and_velocity():
    generator = torch.Generator().manual_seed(0)
    x, *noises = torch.randn(4, 2, 1, 3, 3, generator=generator)
    alpha_bar = torch.tensor([0.3, 0.9])
    signal, spread = (a.view(-1, 1, 1, 1) for a in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))

    def velocity(noise: torch.Tensor) -> torch.Tensor:
        """The velocity of the noisy image x if its noise is this."""
        return noise_target((x - spread * noise) / signal, noise, alpha_bar, "v_prediction")

    moved = moved_target(*noises, guidance=3.0)
    expected = moved_target(*(velocity(noise) for noise in noises), guidance=3.0)
    torch.testing.assert_close(velocity(moved), expected, atol=1e-5, rtol=1e-5)


def test_invalid_arguments_and_divergence_are_errors(base):
    layout = base.layout(alpha=1.0)
    with pytest.raises(W2WError, match="no concepts"):
        train_sliders(base, layout, [])
    with pytest.raises(W2WError, match="steps 0: expected at least 1"):
        SliderConfig(steps=0)
    with pytest.raises(W2WError, match="swap positive and negative"):
        SliderConfig(guidance=-1.0)
    with pytest.raises(W2WError, match="became infinite or NaN"):
        train_sliders(base, layout, [BALD], **(QUICK | {"learning_rate": 1e30}))


def test_learning_rate_rises_and_falls():
    recipe = SliderConfig(steps=100, warmup=9, learning_rate=1.0)
    rates = [recipe.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) > 0.9 and rates[-1] < 0.12
