"""The search finds what it should, the same in any company, and keeps it when it is interrupted."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import tiny
from weights2weights._config import learning_rate_at
from weights2weights.adapter import adapt
from weights2weights.bases import load_base
from weights2weights.errors import InputError, W2WError
from weights2weights.generation import generate
from weights2weights.inversion import PRESETS, InversionConfig, _search, invert
from weights2weights.inversion._coordinates import Coordinates
from weights2weights.inversion._images import TargetImages
from weights2weights.inversion._search import held_out_samples, step_samples
from weights2weights.sampling import sample
from weights2weights.space import WeightSpace

MODELS, COMPONENTS = 24, 8
FAST, PAPER = PRESETS["fast"], PRESETS["paper"]
QUICK = replace(FAST, steps=6, eval_every=2, eval_samples=4)


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(tiny_base)


@pytest.fixture(scope="module")
def space(base):
    """A space of random LoRAs, which vary in few ways."""
    layout = base.layout(alpha=27.0)
    generator = torch.Generator().manual_seed(0)
    ways = torch.randn(COMPONENTS, layout.num_parameters, generator=generator)
    amounts = torch.randn(MODELS, COMPONENTS, generator=generator) * torch.arange(COMPONENTS, 0, -1)
    rows = 0.01 * (amounts @ ways) + 0.1 * torch.randn(layout.num_parameters, generator=generator)
    dataset = _Rows(rows)
    names = [f"m{i}" for i in range(MODELS)]
    return WeightSpace.fit_blocks(
        dataset, COMPONENTS, layout=layout, names=names, base_hash=base.hash
    )


class _Rows:
    def __init__(self, rows):
        self._rows, (self.rows, self.columns) = rows, rows.shape

    def __iter__(self):
        yield self._rows


@pytest.fixture(scope="module")
def truth(space):
    return sample(space, 4, seed=5)


@pytest.fixture(scope="module")
def photos(base, space, truth):
    """An image of each of four models of the space."""
    drawn = generate(base, truth, space=space, prompts="sks person", seeds=3, steps=8, guidance=1.0)
    return drawn[:, 0, 0].numpy()


@pytest.fixture(scope="module")
def found(base, space, photos):
    return invert(base, space, photos, config=QUICK)


def test_gradients_are_those_of_dense_layers(base, space, photos):
    """Coefficients → W + alpha/r · B A written out, layer by layer, against the one product."""
    recipe = replace(QUICK, preconditioning=0.5, prior_weight=0.01, components=5)
    coordinates = Coordinates(space, recipe, base.device)
    z = 0.3 * torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    encoded = TargetImages(base, torch.from_numpy(photos[:2]), None, [0, 1], "sks person", False)
    chance = step_samples(base, recipe, 0, 0)

    ours = z.clone().requires_grad_()
    with adapt(base.denoiser, space.layout, coordinates.weights(ours)):
        loss = encoded.losses(torch.arange(2), chance).mean(1)
    (loss + coordinates.prior(ours)).sum().backward()

    theirs = z.clone().requires_grad_()
    unet = tiny.unet()
    layers = dict(unet.named_modules())
    total = 0.0
    for k in range(2):
        c = theirs[k] * space.coefficient_std[:5] ** 0.5
        w = space.std * (space.components[:5].T @ c) + space.mean
        state = space.layout.unflatten(w)
        dense = {}
        for module in space.layout.modules:
            A, B = (state[f"base_model.model.{module.name}.lora_{x}.weight"] for x in ("A", "B"))
            dense[f"{module.name}.weight"] = layers[module.name].weight + 27 * B @ A
        s = len(chance.timesteps)
        latents = encoded.latents.mean[k].expand(s, -1, -1, -1)
        alpha = base.process.levels[chance.timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * chance.noise
        text = base.encode_prompts(["sks person"] * s)
        inputs = (noisy, chance.timesteps)
        predicted = torch.func.functional_call(unet, dense, inputs, text.tensors).sample
        total = total + F.mse_loss(predicted, chance.noise)
        total = (
            total
            + 0.01 / 2 * (((c - space.coefficient_mean[:5]) / space.coefficient_std[:5]) ** 2).sum()
        )
    total.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_photos_of_the_space_are_fitted_better_than_by_its_mean(found, truth):
    assert (found.loss < found.start_loss).all()
    assert found.points.shape == truth.shape
    assert not found.interrupted
    assert found.seconds > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_run_and_improve(base, space, photos, preset):
    """With a rate for this base, whose random UNet has never learned to denoise."""
    short = replace(PRESETS[preset], steps=8, learning_rate=0.03)
    found = invert(base, space, photos[:1], config=short)
    assert found.loss < found.start_loss
    assert 0 < found.steps <= 8


def test_presets_are_the_papers_where_they_say_so():
    assert (PAPER.components, PAPER.steps, PAPER.samples_per_step) == (10_000, 400, 1)
    assert (PAPER.learning_rate, PAPER.betas, PAPER.weight_decay) == (0.1, (0.9, 0.999), 1e-10)
    assert learning_rate_at(PAPER, 0) == learning_rate_at(PAPER, 399) == 0.1
    assert (PAPER.preconditioning, PAPER.prior_weight, PAPER.eval_every) == (0, 0, 0)
    ood = PRESETS["paper-ood"]
    assert (ood.components, ood.steps, ood.learning_rate, ood.weight_decay) == (1000, 800, 1.0, 0.0)
    assert PRESETS["ood"].prior_weight > FAST.prior_weight


@pytest.mark.parametrize("together", [1, 3])
def test_a_photo_is_inverted_the_same_in_any_company(base, space, photos, found, together):
    again = invert(base, space, photos, config=QUICK, subjects_per_batch=together)
    torch.testing.assert_close(again.points, found.points, rtol=1e-3, atol=1e-4)
    alone = invert(base, space, photos[2:3], config=QUICK)
    torch.testing.assert_close(alone.points[0], found.points[2], rtol=1e-3, atol=1e-4)


def test_the_seed_decides(base, space, photos, found):
    again = invert(base, space, torch.from_numpy(photos), config=QUICK)
    assert torch.equal(again.points, found.points)
    other = invert(base, space, photos, config=QUICK, seed=1)
    assert not torch.allclose(other.points, found.points, atol=1e-3)
    state = torch.get_rng_state()
    invert(base, space, photos[:1], config=replace(PAPER, steps=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_base_is_left_as_it_was(base, space, photos):
    inputs = tiny.base_inputs(2)
    before = base.denoise(*inputs)
    invert(base, space, photos[:1], config=QUICK)
    assert torch.equal(base.denoise(*inputs), before)


def test_the_loss_within_a_mask_is_the_mean_error_there(base, photos, monkeypatch):
    mask = torch.zeros(2, 16, 16)
    mask[:, :6] = 1
    encoded = TargetImages(base, torch.from_numpy(photos[:2]), mask, [0, 1], "sks person", False)
    encoded_mask = encoded.latents.mask
    assert encoded_mask is not None
    assert encoded_mask[0, :3].eq(1).all() and encoded_mask[0, 3:].eq(0).all()
    samples = step_samples(base, QUICK, 0, 0)
    monkeypatch.setattr(base.family, "predict", lambda noisy, *others: torch.zeros_like(noisy))
    flat = encoded.losses(torch.arange(2), samples)
    inside = samples.noise[:, :, :3].square().mean((1, 2, 3))
    torch.testing.assert_close(flat, inside.expand(2, -1))


def test_a_mask_of_ones_is_no_mask_and_its_scale_does_not_matter(base, space, photos, found):
    ones = invert(base, space, photos, mask=torch.ones(4, 16, 16), config=QUICK)
    torch.testing.assert_close(ones.points, found.points, rtol=1e-3, atol=1e-4)
    half = torch.zeros(4, 16, 16)
    half[:, 4:12, 4:12] = 1
    full = invert(base, space, photos, mask=half, config=QUICK)
    soft = invert(base, space, photos, mask=half / 2, config=QUICK)
    torch.testing.assert_close(soft.points, full.points, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(full.points, found.points, atol=1e-3)


def test_several_photos_of_one_subject_give_one_point(base, space, photos, found):
    together = invert(base, space, photos, subjects=[0, 1, 0, 0], config=QUICK)
    assert together.points.shape == (2, COMPONENTS)
    torch.testing.assert_close(together.points[1], found.points[1], rtol=1e-3, atol=1e-4)
    copies = invert(base, space, photos[[2, 2]], subjects=[0, 0], config=QUICK)
    torch.testing.assert_close(copies.points[0], found.points[2], rtol=1e-3, atol=1e-4)
    encoded = TargetImages(base, torch.from_numpy(photos), None, [0, 1, 0, 0], "sks person", False)
    shown = []
    encoded.base = replace(base)
    object.__setattr__(
        encoded.base,
        "denoising_loss",
        lambda latents, noise, timesteps, text, mask: shown.append(latents) or latents[:, 0, 0, 0],
    )
    encoded.losses(torch.tensor([1, 0]), step_samples(base, QUICK, 0, 0))
    expected = encoded.latents.mean[[1, 1, 1, 1, 0, 2, 3, 0]]
    assert torch.equal(shown[0], expected)


def test_components_that_are_not_sought_stay_at_the_mean(base, space, photos):
    few = invert(base, space, photos[:1], config=replace(QUICK, components=3))
    assert few.points.shape == (1, COMPONENTS)
    assert few.points[0, :3].all() and not few.points[0, 3:].any()


def test_half_precision_components_give_the_same(base, space, photos, found):
    again = invert(base, space.to(dtype=torch.float16), photos, config=QUICK)
    torch.testing.assert_close(again.points, found.points, rtol=0.02, atol=0.02)


def test_the_best_look_is_kept_and_the_patient_stop(base, space, photos):
    wild = replace(QUICK, steps=12, learning_rate=1e3, patience=2, prior_weight=0.0)
    wild = replace(wild, preconditioning=1.0)  # the rate is in standard deviations
    found = invert(base, space, photos[:2], config=wild)
    assert (found.loss <= found.start_loss).all()
    assert (found.steps < 12).all()
    # what is reported is the loss of what is returned
    samples = held_out_samples(base, wild, 0)
    encoded = TargetImages(base, torch.from_numpy(photos[:2]), None, [0, 1], "sks person", False)
    with torch.no_grad(), adapt(base.denoiser, space.layout, space.to_weights(found.points)):
        loss = encoded.losses(torch.arange(2), samples).mean(1)
    torch.testing.assert_close(loss, found.loss)


def test_without_looks_the_last_point_is_kept(base, space, photos):
    """Under a prior that forbids every move: the best point is the start, the last is not."""
    strict = replace(QUICK, prior_weight=1e6)
    best = invert(base, space, photos[:1], config=strict)
    last = invert(base, space, photos[:1], config=replace(strict, eval_every=0))
    assert not best.points.any()
    assert last.points.all()
    assert (best.steps, last.steps) == (4, 6)


@pytest.mark.parametrize("eval_every", [0, 2])
def test_an_interruption_keeps_the_best_so_far(base, space, photos, monkeypatch, eval_every):
    recipe, seen = replace(QUICK, eval_every=eval_every), []

    def interrupted(*given):
        seen.append(given)
        if len(seen) == 6 + 4:  # in the fourth step of the second group
            raise KeyboardInterrupt
        return step_samples(*given)

    whole = invert(base, space, photos, config=recipe, subjects_per_batch=2)
    monkeypatch.setattr(_search, "step_samples", interrupted)
    before = base.denoiser.state_dict()
    found = invert(base, space, photos, config=recipe, subjects_per_batch=2)
    assert found.interrupted
    assert torch.equal(found.points[:2], whole.points[:2])
    assert found.steps.tolist()[2:] == [3, 3]
    assert found.points[2:].any(1).all()
    assert found.start_loss.isfinite().all()
    if eval_every:
        assert (found.loss[2:] <= found.start_loss[2:]).all()
    else:
        assert found.loss[2:].isnan().all()
    assert base.denoiser.state_dict().keys() == before.keys()


def test_whom_an_interruption_left_out_took_no_steps(base, space, photos, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(_search, "step_samples", interrupted)
    found = invert(base, space, photos, config=QUICK, subjects_per_batch=2)
    assert found.steps.tolist() == [0] * 4
    assert not found.points.any()
    assert found.loss.isnan().tolist() == [False, False, True, True]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_both_kinds_of_prediction(tmp_path, space, photos, prediction_type):
    other = load_base(tiny.base_folder(tmp_path, prediction_type=prediction_type))
    free = replace(space, base_hash="")
    found = invert(other, free, photos[:1], config=QUICK)
    assert found.loss < found.start_loss


def test_bfloat16_comes_near(tiny_base, space, photos, found):
    half = load_base(tiny_base, dtype=torch.bfloat16)
    again = invert(half, space, photos, config=QUICK)
    assert again.points.dtype == torch.float32
    cosine = F.cosine_similarity(again.points, found.points)
    assert cosine.min() > 0.9


def test_moves_are_those_of_adam():
    recipe = InversionConfig(steps=20, learning_rate=0.05, weight_decay=0.1, lr_end_factor=0.5)
    torch.manual_seed(0)
    theirs = torch.randn(3, 4, requires_grad=True)
    ours, moments = theirs.detach().clone(), torch.zeros(2, 3, 4)
    adam = torch.optim.Adam([theirs], betas=recipe.betas, weight_decay=recipe.weight_decay)
    for step in range(20):
        gradient = torch.randn(3, 4)
        theirs.grad, adam.param_groups[0]["lr"] = gradient.clone(), learning_rate_at(recipe, step)
        adam.step()
        ours += _search.move(ours, gradient, moments, step, recipe)
    torch.testing.assert_close(ours, theirs.detach())


def test_one_scale_for_an_image_keeps_the_ratios_of_its_gradients():
    recipe = InversionConfig(normalize="image", weight_decay=0.0)
    gradient = torch.tensor([[3.0, 0.1, 0.0], [300.0, 10.0, 0.0]])
    moved = _search.move(torch.zeros(2, 3), gradient, torch.zeros(2, 2, 3), 0, recipe)
    torch.testing.assert_close(moved[0], moved[1])
    torch.testing.assert_close(moved / moved[:, :1], gradient / gradient[:, :1])
    assert moved.square().mean(1).sqrt().tolist() == pytest.approx([0.1, 0.1])


def test_timesteps_are_even_and_within_their_range(base):
    recipe = replace(QUICK, samples_per_step=8, timestep_range=(0.25, 0.75))
    drawn = [step_samples(base, recipe, 0, step) for step in range(50)]
    times = torch.stack([noise.timesteps for noise in drawn])
    assert times.min() >= 250 and times.max() < 750
    counts = torch.histc(times.float(), 10, 250, 750)
    assert counts.max() - counts.min() <= 8
    assert not torch.equal(drawn[0].noise, drawn[1].noise)
    assert torch.equal(step_samples(base, recipe, 0, 7).noise, drawn[7].noise)
    uniform = step_samples(base, replace(PAPER, samples_per_step=500), 2, 0).timesteps
    assert uniform.min() < 20 and uniform.max() >= 980
    whole = replace(QUICK, eval_samples=5, timestep_range=(0.0, 1.0))
    held_out = held_out_samples(base, whole, 0)
    assert sorted(held_out.timesteps.tolist()) == [100, 300, 500, 700, 900]


@pytest.mark.parametrize(
    "changes",
    [
        {"components": 0},
        {"steps": 0},
        {"samples_per_step": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"lr_warmup_steps": -1},
        {"lr_end_factor": 1.5},
        {"betas": (0.9, 1.0)},
        {"weight_decay": -1.0},
        {"normalize": "row"},
        {"preconditioning": 2.0},
        {"prior_weight": -1.0},
        {"timesteps": "odd"},
        {"timestep_range": (0.5, 0.5)},
        {"timestep_range": (0.0, 1.5)},
        {"latents": "none"},
        {"eval_every": -1},
        {"eval_samples": 0},
        {"patience": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(W2WError, match="expected") as told:
        replace(PAPER, **changes)
    assert "\n" not in str(told.value)


def test_what_does_not_fit_is_reported_in_one_line(base, space, photos):
    def message(images=photos, space=space, **given):
        with pytest.raises(InputError) as error:
            invert(base, space, images, **{"config": QUICK, **given})
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "expected uint8 of [height, width, 3]" in message(photos[..., :2])
    assert "expected uint8" in message(photos.astype(np.float32))
    assert "no images" in message(photos[:0])
    assert "images of type int: expected one or several paths" in message(3)
    assert "images of type NoneType: expected" in message(None)
    assert "shape [16, 16]: expected uint8 of [height, width, 3]" in message(photos[0, ..., 0])
    assert "there is no setting 'stepz': expected steps" in message(stepz=1)
    assert "nowhere.png cannot be read" in message("nowhere.png")
    ones = torch.ones(4, 16, 16)
    assert "mask 0 of shape [8, 8]: expected that of its image, [16, 16]" in message(
        mask=ones[:, :8, :8]
    )
    assert "1 masks for 4 images" in message(mask=ones[:1])
    assert "outside 0 to 1" in message(mask=255 * ones)
    ones[2] = 0
    assert "mask 2 is empty" in message(mask=ones)
    assert "for 4 images" in message(subjects=[0, 1])
    assert "without gaps" in message(subjects=[0, 1, 3, 0])
    assert "seed -1" in message(seed=-1)
    assert "subjects_per_batch 0" in message(subjects_per_batch=0)
    assert "preset 'slow': expected one of paper" in message(preset="slow", config=None)
    assert "another base" in message(space=replace(space, base_hash="0" * 16))
    bare = WeightSpace(space.layout, space.mean, space.std, space.components)
    assert "use the preset paper" in message(space=bare)
    assert invert(base, bare, photos[:1], preset="paper", steps=1).loss.isfinite()


def test_a_pipe_is_not_waited_for(base, space, tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="is not a regular file"):
        invert(base, space, tmp_path / "a.png")


def test_a_result_is_shown_in_one_line(found):
    assert repr(found).startswith("Inversion(points (") and len(repr(found)) < 100


def test_images_and_masks_come_as_paths_pil_or_arrays(base, space, photos, found, tmp_path):
    half = np.zeros((4, 16, 16), np.uint8)
    half[:, 4:12] = 255
    for i in range(4):
        Image.fromarray(photos[i]).save(tmp_path / f"{i}.png")
        Image.fromarray(half[i]).save(tmp_path / f"{i}.mask.png")
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    masks = [str(tmp_path / f"{i}.mask.png") for i in range(4)]

    def points(images, **given):
        return invert(base, space, images, config=QUICK, **given).points

    assert torch.equal(points(paths), found.points)
    assert torch.equal(points([Image.open(path) for path in paths]), found.points)
    assert torch.equal(points(list(photos)), found.points)
    masked = points(photos, mask=half)
    opened = [Image.open(path) for path in masks]
    for same in (masks, half / 255, half > 0, torch.from_numpy(half), opened):
        assert torch.equal(points(photos, mask=same), masked)
    one = points(str(paths[0]), mask=masks[0])
    assert one.shape == (1, COMPONENTS)
    for same, mask in ((photos[0], half[0]), (Image.open(paths[0]), Image.open(masks[0]))):
        assert torch.equal(points(same, mask=mask), one)
    mixed = points(photos[:2], mask=[None, half[1]])
    torch.testing.assert_close(mixed[0], found.points[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mixed[1], masked[1], rtol=1e-3, atol=1e-4)


def test_images_of_any_size_are_cropped_as_training_crops_them(base, space, photos):
    wide = np.zeros((16, 30, 3), np.uint8)
    wide[:, 7:23] = photos[0]
    inverted = invert(base, space, wide, config=QUICK)
    assert torch.equal(inverted.images, torch.from_numpy(photos[:1]))


def test_gradient_checkpointing_changes_rounding_only(base, space, photos, found):
    frugal = invert(base, space, photos, config=QUICK, gradient_checkpointing=True)
    torch.testing.assert_close(frugal.points, found.points, rtol=1e-3, atol=1e-4)
    assert not base.denoiser.is_gradient_checkpointing


def test_a_loss_that_breaks_is_told(base, space, photos):
    broken = replace(space, mean=torch.full_like(space.mean, 1e30))
    with pytest.raises(W2WError, match="image 0 of 1 became infinite or NaN"):
        invert(base, broken, photos[:1], config=QUICK)


def test_a_space_that_knows_part_of_its_spread(base, space, photos):
    """As the published one, with 1,000 of 10,000."""
    partly = space.with_models(space.coefficients[:, :3], space.names)
    coordinates = Coordinates(partly, replace(QUICK, preconditioning=1.0), base.device)
    scale = coordinates.coefficients(torch.ones(1, COMPONENTS))[0]
    torch.testing.assert_close(scale[:3], space.coefficient_std[:3])
    assert (scale[3:] == space.coefficient_std[2]).all()
    assert invert(base, partly, photos[:1], config=QUICK).loss.isfinite()


def test_progress_goes_to_stderr(base, space, photos, capfd):
    invert(base, space, photos[:1], config=QUICK, progress=True)
    told = capfd.readouterr()
    assert told.out == ""
    assert "image-steps" in told.err
