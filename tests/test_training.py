"""Subjects trained together are those trained alone; what was interrupted ends as if it was not."""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import tiny
from experiments.world import start as world_start
from weights2weights import _files
from weights2weights._cache import Cache
from weights2weights._config import learning_rate_at
from weights2weights._noise import initial_weights
from weights2weights.bases import Base, load_base
from weights2weights.dataset import WeightDataset
from weights2weights.errors import W2WError
from weights2weights.subjects import Subject, find_subjects, read_images
from weights2weights.training import (
    PRESETS,
    DreamBoothConfig,
    _latents,
    _loop,
    _train,
    train,
)
from weights2weights.training._batches import draw_prompts, image_order, step_noise
from weights2weights.training._loop import start_weights
from weights2weights.training._progress import ProgressLog

QUICK = DreamBoothConfig(steps=6, num_class_images=3, learning_rate=1e-2)


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(tiny_base)


def write_subjects(folder: Path, counts: dict[str, int], side: int = 20) -> Path:
    for seed, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        generator = np.random.default_rng(seed)
        for i in range(count):
            pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subjects")
    counts = {"adam": 3, "eve": 1, "kain": 4, "abel": 2, "seth": 3}
    return find_subjects(write_subjects(folder, counts))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all tests of this file, as one user has it."""
    return tmp_path_factory.mktemp("cache")


def rows(dataset: WeightDataset) -> dict[str, np.ndarray]:
    return dict(zip(dataset.names, dataset[:].numpy(), strict=True))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The same as alone.


def trained_by_peft(
    pipe,
    recipe: DreamBoothConfig,
    subject: Subject,
    start: torch.Tensor,
    prior: _latents.Latents | None,
) -> torch.Tensor:
    """DreamBooth of one subject as its example scripts do it: PEFT, diffusers, torch, a loop.

    Shared with the library: what chance decides, the initial weights and the class's latents.
    """
    from diffusers import DDPMScheduler
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    base = Base.from_pipeline(pipe)
    layout = base.layout(recipe.rank, recipe.alpha)
    config = LoraConfig(
        r=recipe.rank, lora_alpha=int(recipe.alpha), target_modules=["to_q", "to_v"]
    )
    unet = get_peft_model(pipe.unet, config)
    for key, value in layout.unflatten(start).items():
        unet.state_dict()[key.replace(".weight", ".default.weight")].copy_(value)
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    pixels = read_images(subject, 16).pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    order = image_order(recipe, "subject", len(pixels))
    texts = [pipe.encode_prompt(p, "cpu", 1, False)[0] for p in ("sks person", "person")]
    for step in range(recipe.steps):
        chance = step_noise(base, recipe, "subject", step)
        posterior = pipe.vae.encode(pixels[order[step]]).latent_dist
        latents = posterior.mean + posterior.std * chance.posterior
        batches = [(latents * pipe.vae.config.scaling_factor, chance, texts[0], 1.0)]
        if prior is not None:
            which = image_order(recipe, "class", len(prior.mean))[step]
            drawn = step_noise(base, recipe, "class", step)
            latents = prior.mean[which] + prior.std[which] * drawn.posterior
            batches.append((latents, drawn, texts[1], recipe.prior_loss_weight))
        for latents, chance, text, weight in batches:
            noisy = scheduler.add_noise(latents, chance.noise, chance.timesteps)
            text = text.expand(len(noisy), -1, -1)
            predicted = unet(noisy, chance.timesteps, text).sample
            target = chance.noise
            if scheduler.config.prediction_type == "v_prediction":
                target = scheduler.get_velocity(latents, chance.noise, chance.timesteps)
            (weight * F.mse_loss(predicted, target)).backward()
        if recipe.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
    return layout.flatten(get_peft_model_state_dict(unet))


@pytest.mark.parametrize(
    ("steps", "prior_weight", "clip", "images", "prediction_type"),
    [
        (50, 0.0, None, 1, "epsilon"),
        (50, 1.0, 0.02, 1, "epsilon"),
        (10, 0.5, None, 2, "v_prediction"),
    ],
    ids=["plain", "prior and clipping", "prior, two images, velocity"],
)
def test_together_equals_alone_with_peft(
    tmp_path, subjects, steps, prior_weight, clip, images, prediction_type
):
    recipe = DreamBoothConfig(
        steps=steps,
        learning_rate=1e-3,
        prior_loss_weight=prior_weight,
        max_grad_norm=clip,
        num_class_images=3,
        train_batch_size=images,
    )
    base = Base.from_pipeline(tiny.pipeline(tmp_path, prediction_type=prediction_type), "tiny")
    four = subjects[:4]
    ours = train(
        base, four, tmp_path / "out", recipe, subjects_per_batch=4, cache=tmp_path / "cache"
    )
    start = initial_weights(ours.layout, recipe.seed)
    prior = None
    if prior_weight:
        store = Cache(tmp_path / "cache")
        prior = _latents.class_latents(base, recipe, store, False)
    for subject in four:
        pipe = tiny.pipeline(tmp_path, prediction_type=prediction_type)
        theirs = trained_by_peft(pipe, recipe, subject, start, prior)
        change = theirs - start
        assert change.norm() > 2e-3 * steps
        assert (ours[subject.name] - theirs).norm() <= 1e-4 * change.norm()


def test_neither_batch_size_nor_company_nor_order_matters(tmp_path, base, subjects, cache):
    start = initial_weights(base.layout(), 0)
    runs = {
        "alone": ([subjects[2]], 1),
        "pairs": (subjects, 2),
        "together": (subjects, 5),
        "reversed": (subjects[::-1], 3),
    }
    eve = {
        name: train(base, chosen, tmp_path / name, QUICK, subjects_per_batch=K, cache=cache)["eve"]
        for name, (chosen, K) in runs.items()
    }
    change = (eve["alone"] - start).norm()
    for name in runs:
        assert (eve[name] - eve["alone"]).norm() <= 1e-4 * change, name


def test_the_same_run_gives_the_same_bytes(tmp_path, base, subjects, cache):
    for name in ("one", "two"):
        train(base, subjects, tmp_path / name, QUICK, subjects_per_batch=3, cache=cache)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_an_empty_cache_changes_nothing(tmp_path, base, subjects, cache):
    train(base, subjects[:2], tmp_path / "warm", QUICK, subjects_per_batch=2, cache=cache)
    train(
        base, subjects[:2], tmp_path / "cold", QUICK, subjects_per_batch=2, cache=tmp_path / "cache"
    )
    assert files(tmp_path / "warm") == files(tmp_path / "cold")


def test_the_base_is_left_as_it_was(tmp_path, base, subjects, cache):
    inputs = tiny.base_inputs(2)
    before = base.denoise(*inputs)
    train(base, subjects[:2], tmp_path / "out", QUICK, cache=cache)
    assert torch.equal(base.denoise(*inputs), before)
    assert all(parameter.grad is None for parameter in base.denoiser.parameters())


def test_training_lowers_the_loss_on_the_subject(tmp_path, base, subjects, cache):
    dataset = train(
        base, subjects[:1], tmp_path / "out", QUICK, steps=60, prior_loss_weight=0.0, cache=cache
    )
    first = train(
        base, subjects[:1], tmp_path / "first", QUICK, steps=1, prior_loss_weight=0.0, cache=cache
    )
    assert dataset.info("abel")["loss"] < first.info("abel")["loss"]


# What is random.


def test_all_start_from_one_a_as_peft_draws_it(base):
    layout = base.layout(rank=2)
    weights = initial_weights(layout, 0)
    assert torch.equal(weights, initial_weights(layout, 0))
    assert not torch.equal(weights, initial_weights(layout, 1))
    for name, tensor in layout.unflatten(weights).items():
        if ".lora_B." in name:
            assert not tensor.any()
        else:
            bound = tensor.shape[1] ** -0.5
            assert tensor.abs().max() <= bound
            assert tensor.std() == pytest.approx(bound / 3**0.5, rel=0.35)


def test_subjects_may_start_from_an_a_of_their_own(base):
    layout, recipe = base.layout(rank=2), replace(QUICK, start="own", rank=2)
    ada, eve = (start_weights(base, layout, recipe, name) for name in ("ada", "eve"))
    assert not torch.equal(ada, eve)
    assert torch.equal(ada, start_weights(base, layout, recipe, "ada"))
    shared = replace(recipe, start="random")
    assert torch.equal(*(start_weights(base, layout, shared, name) for name in ("ada", "eve")))


def seeded(seed: int) -> DreamBoothConfig:
    return replace(QUICK, seed=seed)


def test_noise_depends_on_its_arguments_alone(base):
    torch.manual_seed(0)
    first = step_noise(base, seeded(3), "subject", 5)
    torch.manual_seed(1)
    again = step_noise(base, seeded(3), "subject", 5)
    assert torch.equal(first.noise, again.noise)
    assert torch.equal(first.timesteps, again.timesteps)
    for seed, kind, step in ((4, "subject", 5), (3, "class", 5), (3, "subject", 6)):
        assert not torch.equal(step_noise(base, seeded(seed), kind, step).noise, first.noise)


@pytest.mark.parametrize("timesteps", ["uniform", "even"])
def test_timesteps_cover_all_noise_levels(base, timesteps):
    recipe = replace(QUICK, steps=100, train_batch_size=2, timesteps=timesteps)
    drawn = torch.cat([step_noise(base, recipe, "subject", step).timesteps for step in range(100)])
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    counts = torch.histc(drawn.float(), bins=10, min=0, max=1000)
    assert counts.min() >= (18 if timesteps == "even" else 5)


def test_images_come_in_shuffled_rounds():
    order = image_order(replace(QUICK, steps=10, train_batch_size=2), "subject", 5)
    assert order.shape == (10, 2)
    for round in order.flatten().view(4, 5):
        assert sorted(round.tolist()) == [0, 1, 2, 3, 4]
    assert not torch.equal(order[:5], order[5:])


@pytest.mark.parametrize("recipe", PRESETS.values(), ids=PRESETS)
def test_presets_have_a_learning_rate_for_every_step(recipe):
    rates = [learning_rate_at(recipe, step) for step in range(recipe.steps)]
    assert max(rates) <= recipe.learning_rate
    assert min(rates) > 0
    after_the_last = recipe.learning_rate * recipe.lr_end_factor
    assert learning_rate_at(recipe, recipe.steps) == pytest.approx(after_the_last)
    assert after_the_last <= rates[-1] <= after_the_last + recipe.learning_rate / recipe.steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps 0: expected at least 1"),
        ({"learning_rate": 0.0}, "more than 0"),
        ({"prior_loss_weight": -1.0}, "prior_loss_weight -1.0: expected at least 0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm"),
        ({"latents": "median"}, "latents 'median': expected sample or mean"),
        ({"timesteps": "odd"}, "expected uniform or even"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(W2WError, match=message):
        replace(QUICK, **change)


def test_an_unknown_setting_is_refused_with_the_nearest(tmp_path, base, subjects):
    with pytest.raises(W2WError, match=r"^there is no setting 'stepz': expected steps$"):
        train(base, subjects, tmp_path / "out", stepz=1)
    assert not (tmp_path / "out").exists()


# What the dataset says.


def test_the_dataset_knows_how_it_came_about(tmp_path, base, subjects, cache):
    labels = {"adam": {"Male": 1}, "eve": {"Male": 0, "Bald": None}, "noah": {"Male": 1}}
    dataset = train(
        base,
        subjects,
        tmp_path / "out",
        QUICK,
        subjects_per_batch=2,
        labels=labels,
        cache=cache,
        seed=7,
    )
    assert dataset.names == ("abel", "adam", "eve", "kain", "seth")
    assert dataset.layout == base.layout()
    assert dataset.base_hash == base.hash
    assert {
        "steps": 6,
        "seed": 7,
        "subjects_per_batch": 2,
        "dtype": "float32",
    }.items() <= dataset.recipe.items()
    assert dataset.info("kain")["images"] == 4
    assert dataset.labels["Male"].tolist()[1:3] == [True, False]
    assert list(dataset.verify()) == []


def test_masks_change_what_is_learned_of_masked_subjects_only(tmp_path, base, cache):
    folder = write_subjects(tmp_path / "s", {"adam": 2, "eve": 2})
    plain = rows(train(base, find_subjects(folder), tmp_path / "plain", QUICK, cache=cache))
    mask = Image.new("L", (20, 20))
    mask.paste(255, (0, 0, 10, 20))
    mask.save(folder / "adam" / "0.mask.png")
    masked = rows(train(base, find_subjects(folder), tmp_path / "masked", QUICK, cache=cache))
    assert np.abs(masked["adam"] - plain["adam"]).max() > 1e-4
    np.testing.assert_allclose(masked["eve"], plain["eve"], atol=1e-5)


def test_the_log_is_lines_of_json(tmp_path, base, subjects, cache):
    path = tmp_path / "logs" / "log.jsonl"
    recipe = replace(QUICK, steps=45)
    broken = Subject("noah", problem="no images")
    train(
        base,
        [*subjects[:2], broken],
        tmp_path / "out",
        recipe,
        cache=cache,
        log=path,
        subjects_per_batch=3,
    )
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "step"] == [20, 40]
    assert all(
        e["loss"] > 0 and e["prior_loss"] > 0 and e["subject_steps_per_second"] > 0
        for e in events
        if e["event"] == "step"
    )
    assert [e["subject"] for e in events if e["event"] == "failed"] == ["noah"]
    assert ["adam", "abel"] in [
        sorted(e["subjects"], reverse=True) for e in events if "subjects" in e
    ]


def test_a_group_in_which_all_failed_has_no_loss_in_json(tmp_path):
    path = tmp_path / "log.jsonl"
    with ProgressLog(path, 20, progress=False) as log:
        log.begin(["adam"], 0)
        for step in range(20):
            log.step(step, torch.full((1,), math.nan), None, torch.zeros(1, dtype=torch.bool))
    told = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert (told[-1]["loss"], told[-1]["failed"]) == (None, 1)


def test_progress_goes_to_stderr_with_rate_and_time_left(tmp_path, base, subjects, cache, capsys):
    train(base, subjects[:1], tmp_path / "out", QUICK, cache=cache, progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "6.00/6.00" in printed.err
    assert "subject-steps/s" in printed.err


# Going on.


def test_a_finished_run_is_not_repeated(tmp_path, base, subjects, cache, monkeypatch):
    train(base, subjects[:2], tmp_path / "out", QUICK, cache=cache)
    before = files(tmp_path / "out")
    monkeypatch.setattr(_train, "train_batch", None)
    train(base, subjects[:2], tmp_path / "out", QUICK, cache=cache)
    assert files(tmp_path / "out") == before


def test_more_subjects_are_added_behind(tmp_path, base, subjects, cache):
    train(base, subjects[:2], tmp_path / "out", QUICK, subjects_per_batch=2, cache=cache)
    dataset = train(base, subjects, tmp_path / "out", QUICK, cache=cache)
    assert dataset.names == ("abel", "adam", "eve", "kain", "seth")
    assert dataset.recipe["subjects_per_batch"] == 2


def test_other_settings_do_not_mix(tmp_path, base, subjects, cache):
    train(base, subjects[:1], tmp_path / "out", QUICK, cache=cache)
    with pytest.raises(W2WError, match=r"steps|recipe"):
        train(base, subjects[:1], tmp_path / "out", QUICK, steps=7, cache=cache)


class Stop(Exception):
    pass


def stop_at(monkeypatch, step: int):
    """Let the next run die after a number of steps."""
    log_step = _loop.ProgressLog.step
    seen = []

    def stopping(self, *arguments):
        log_step(self, *arguments)
        seen.append(1)
        if len(seen) == step:
            raise Stop

    monkeypatch.setattr(_loop.ProgressLog, "step", stopping)


def test_a_batch_resumes_from_its_checkpoint(tmp_path, base, subjects, monkeypatch):
    """Died in step 9, the first of group two being step 6 + 1: two of its steps are kept."""
    cache, recipe = tmp_path / "cache", QUICK
    train(base, subjects, tmp_path / "whole", recipe, subjects_per_batch=3, cache=cache)
    monkeypatch.setattr(_loop, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at(patch, 9)
        train(base, subjects, tmp_path / "out", recipe, subjects_per_batch=3, cache=cache)
    assert len(WeightDataset.open(tmp_path / "out").names) == 3
    (checkpoint,) = (cache / "runs").iterdir()
    begun = []
    begin = _loop.ProgressLog.begin
    monkeypatch.setattr(
        _loop.ProgressLog, "begin", lambda self, *a: (begun.append(a[1]), begin(self, *a))[1]
    )
    train(base, subjects, tmp_path / "out", recipe, subjects_per_batch=3, cache=cache)
    assert begun == [2]
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert not checkpoint.exists()


def test_a_damaged_row_is_trained_again_and_no_other_file_is_touched(
    tmp_path, base, subjects, cache, caplog
):
    def identities():
        stats = {path.name: path.stat() for path in out.iterdir() if path.is_file()}
        return {name: (found.st_ino, found.st_mtime_ns) for name, found in stats.items()}

    out, labels = tmp_path / "out", {"eve": {"Young": 1}}
    whole = train(
        base, subjects, out, QUICK, subjects_per_batch=2, labels=labels, cache=cache
    ).path_of("eve")
    before, written = files(out), identities()
    damaged = bytearray(whole.read_bytes())
    damaged[-5] ^= 0x10
    whole.write_bytes(damaged)
    assert list(WeightDataset.open(out).verify()) == ["eve"]
    healed = train(base, subjects, out, QUICK, labels=labels, cache=cache)
    assert healed.verify() == {}
    assert "is damaged" in caplog.text and "trained again" in caplog.text
    assert files(out) == {**before, "broken/eve.safetensors": bytes(damaged)}
    changed = {name for name, found in identities().items() if found != written[name]}
    assert changed == {"eve.safetensors"}


def test_a_damaged_checkpoint_costs_time_only(tmp_path, base, subjects, monkeypatch):
    cache = tmp_path / "cache"
    train(base, subjects[:2], tmp_path / "whole", QUICK, cache=cache)
    monkeypatch.setattr(_loop, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at(patch, 4)
        train(base, subjects[:2], tmp_path / "out", QUICK, cache=cache)
    for path in cache.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-3])
    train(base, subjects[:2], tmp_path / "out", QUICK, cache=cache)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


KILLED = """
import os, random, signal, sys, threading, time
from pathlib import Path
import torch
from tqdm import tqdm
torch.set_num_threads(1)
# All children share the semaphore of tqdm: one that is killed while it holds it blocks the others.
tqdm.set_lock(threading.RLock())
sys.path.insert(0, {tests!r})
from weights2weights.bases import load_base
from weights2weights.subjects import find_subjects
from weights2weights.training import DreamBoothConfig, _loop, train

base = load_base({base!r})
subjects = find_subjects({subjects!r})
cache, folder = Path({folder!r}) / "cache", Path({folder!r})
recipe = DreamBoothConfig(steps=6, num_class_images=2, learning_rate=1e-2)
_loop.CHECKPOINT_SECONDS = -1.0

def run(out):
    train(base, subjects, out, recipe, subjects_per_batch=2, cache=cache)

begun = time.monotonic()
run(folder / "whole")
seconds = time.monotonic() - begun
kills, out, chance = 0, 0, random.Random({seed})
while kills < {kills}:
    child = os.fork()
    if not child:
        run(folder / f"killed-{{out}}")
        os._exit(0)
    time.sleep(chance.uniform(0, seconds / 2))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
    else:  # it was done before the kill: begin another
        assert status == 0
        out += 1
for number in range(out + 1):
    run(folder / f"killed-{{number}}")
print(out + 1)
"""


@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked to start at once")
@pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_in_the_same_bytes(tiny_base, subjects, tmp_path, kills):
    script = KILLED.format(
        tests=str(Path(__file__).parent),
        base=str(tiny_base),
        subjects=str(subjects[0].images[0].parent.parent),
        folder=str(tmp_path),
        kills=kills,
        seed=kills,
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    expected = files(tmp_path / "whole")
    assert len(WeightDataset.open(tmp_path / "whole")) == 5
    for number in range(int(result.stdout)):
        assert files(tmp_path / f"killed-{number}") == expected


# Faults.


def poisoned(monkeypatch, name: str, value: float = float("nan")):
    """Let the latents of one subject hold a number that ruins its loss."""
    read = _train.subject_latents

    def reading(base, recipe, subject, cache):
        latents = read(base, recipe, subject, cache)
        if subject.name == name:
            latents = replace(latents, mean=latents.mean * value)
        return latents

    monkeypatch.setattr(_train, "subject_latents", reading)


@pytest.mark.parametrize("value", [float("nan"), 1e30])
def test_a_loss_that_becomes_nan_fails_its_subject_alone(
    tmp_path, base, subjects, cache, monkeypatch, value
):
    sound = rows(
        train(base, subjects, tmp_path / "sound", QUICK, subjects_per_batch=5, cache=cache)
    )
    poisoned(monkeypatch, "eve", value)
    dataset = train(base, subjects, tmp_path / "out", QUICK, subjects_per_batch=5, cache=cache)
    assert dataset.names == ("abel", "adam", "kain", "seth")
    assert "infinite or NaN" in dataset.failed["eve"]
    for name, row in rows(dataset).items():
        np.testing.assert_allclose(row, sound[name], atol=1e-6)


def test_what_failed_is_tried_again_when_asked(tmp_path, base, subjects, cache, monkeypatch):
    with monkeypatch.context() as patch:
        poisoned(patch, "eve")
        train(base, subjects, tmp_path / "out", QUICK, subjects_per_batch=5, cache=cache)
    again = train(base, subjects, tmp_path / "out", QUICK, cache=cache)
    assert list(again.failed) == ["eve"]
    healed = train(base, subjects, tmp_path / "out", QUICK, cache=cache, retry_failed=True)
    assert not healed.failed
    assert healed.names == ("abel", "adam", "eve", "kain", "seth")
    assert list(healed.verify()) == []


def test_unreadable_subjects_fail_alone_and_say_why(tmp_path, base, cache):
    folder = write_subjects(tmp_path / "s", {"adam": 2, "broken ü": 2, "empty": 0, "zoë 2": 1})
    (folder / "broken ü" / "1.png").write_bytes(b"no image")
    dataset = train(
        base, find_subjects(folder), tmp_path / "out", QUICK, subjects_per_batch=2, cache=cache
    )
    assert dataset.names == ("adam", "zoë 2")
    assert dataset.failed == {
        "broken ü": "1.png is not an image; expected a PNG, JPEG or WebP of up to 100,000,000"
        " pixels",
        "empty": "no images: expected PNG, JPEG or WebP",
    }


def test_a_group_of_failures_only_is_passed_over(tmp_path, base, cache):
    broken = [Subject(name, problem="no images") for name in "abc"]
    dataset = train(base, broken, tmp_path / "out", QUICK, subjects_per_batch=2, cache=cache)
    assert len(dataset) == 0
    assert list(dataset.failed) == ["a", "b", "c"]


def full_disk(monkeypatch, folder: Path):
    write = _files._write_flushed

    def failing(file, chunks):
        if folder in Path(file.name).parents:
            raise OSError(28, "No space left on device", file.name)
        return write(file, chunks)

    monkeypatch.setattr(_files, "_write_flushed", failing)


def test_a_full_disk_is_one_line_and_the_next_call_goes_on(
    tmp_path, base, subjects, cache, monkeypatch
):
    train(base, subjects[:2], tmp_path / "whole", QUICK, subjects_per_batch=2, cache=cache)
    begun = train(base, subjects[:1], tmp_path / "out", QUICK, subjects_per_batch=2, cache=cache)
    assert len(begun) == 1
    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path / "out")
        with pytest.raises(W2WError, match="No space left on device") as caught:
            train(base, subjects[:2], tmp_path / "out", QUICK, cache=cache)
    assert "\n" not in str(caught.value)
    dataset = train(base, subjects[:2], tmp_path / "out", QUICK, cache=cache)
    assert len(dataset) == 2
    assert list(dataset.verify()) == []


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path, base, subjects, cache, monkeypatch, caplog
):
    train(base, subjects[:2], tmp_path / "whole", QUICK, cache=cache)
    full_disk(monkeypatch, tmp_path / "cache")
    train(base, subjects[:2], tmp_path / "out", QUICK, cache=tmp_path / "cache")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert "not cached: cannot write" in caplog.text


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, base, subjects, cache):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(W2WError, match=r"cannot (make|write)"):
        train(base, subjects[:1], tmp_path / "file" / "out", QUICK, cache=cache)


@pytest.mark.parametrize("chosen", [[], [Subject("a"), Subject("a")]])
def test_no_subjects_or_two_of_one_name_are_refused(tmp_path, base, cache, chosen):
    with pytest.raises(W2WError, match="subjects of"):
        train(base, chosen, tmp_path / "out", QUICK, cache=cache)


def test_labels_of_other_subjects_are_refused(tmp_path, base, subjects, cache):
    with pytest.raises(W2WError, match="'noah', the first subject is 'abel'"):
        train(base, subjects, tmp_path / "out", QUICK, labels={"noah": {"Male": 1}}, cache=cache)


def test_too_large_a_group_is_one_line(tmp_path, base, subjects, cache, monkeypatch):
    def greedy(self, *_, **__):
        raise torch.OutOfMemoryError("no")

    train(base, subjects[:1], tmp_path / "warm", QUICK, cache=cache)
    monkeypatch.setattr(Base, "denoising_loss", greedy)
    with pytest.raises(W2WError, match="2 subjects at once do not fit"):
        train(base, subjects[:2], tmp_path / "out", QUICK, subjects_per_batch=2, cache=cache)


# Captions.


def captioned(folder: Path, captions: dict[str, str]) -> list[Subject]:
    """Subjects of three images each, with captions by "subject/image"."""
    write_subjects(folder, {"adam": 3, "eve": 3})
    for name, text in captions.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return find_subjects(folder)


def test_parts_of_captions_follow_the_prompt_as_often_as_asked():
    recipe, caption = replace(QUICK, caption_dropout=0.7), "smiling, red shirt ,, on a beach"
    drawn = [draw_prompts(replace(recipe, seed=5), step, [caption, ""]) for step in range(400)]
    assert drawn[7] == draw_prompts(replace(recipe, seed=5), 7, [caption, ""])
    assert {second for _, second in drawn} == {"sks person"}
    firsts = [first for first, _ in drawn]
    for part in ("smiling", "red shirt", "on a beach"):
        assert 0.2 < np.mean([f", {part}" in first for first in firsts]) < 0.4
    assert set(firsts) <= {
        ", ".join(["sks person", *(part for part, yes in zip(parts, kept, strict=True) if yes)])
        for parts in [("smiling", "red shirt", "on a beach")]
        for kept in itertools.product((False, True), repeat=3)
    }


def test_a_share_of_nothing_is_as_no_captions(base, tmp_path, cache):
    recipe = replace(QUICK, caption_dropout=1.0)
    plain = captioned(tmp_path / "plain", {})
    told = captioned(tmp_path / "told", {"adam/0": "smiling", "eve/2": "on a beach"})
    expected = rows(train(base, plain, tmp_path / "a", recipe, cache=cache))
    found = rows(train(base, told, tmp_path / "b", recipe, cache=cache))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("prior_weight", [0.0, 1.0])
def test_whole_captions_are_part_of_the_prompt(base, tmp_path, cache, prior_weight):
    """Adam's captions are all one text, which is the same as a prompt that ends with it."""
    recipe = replace(QUICK, caption_dropout=0.0, prior_loss_weight=prior_weight)
    told = captioned(tmp_path / "told", {f"adam/{i}": "on a beach" for i in range(3)})
    plain, beach = (
        captioned(tmp_path / "plain", {}),
        replace(recipe, instance_prompt="sks person, on a beach"),
    )
    found = rows(train(base, told, tmp_path / "a", recipe, cache=cache))
    as_prompt = rows(train(base, plain, tmp_path / "b", beach, cache=cache))
    as_ever = rows(train(base, plain, tmp_path / "c", recipe, cache=cache))
    np.testing.assert_allclose(found["adam"], as_prompt["adam"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["eve"], as_ever["eve"], rtol=1e-4, atol=1e-6)
    assert not np.allclose(found["adam"], as_ever["adam"], rtol=1e-2)


def test_a_mended_caption_encodes_nothing_anew_but_begins_a_new_run(base, tmp_path, monkeypatch):
    store, layout = Cache(tmp_path / "cache"), base.layout()

    def learn(text: str) -> tuple[_latents.Latents, str]:
        subject, _ = captioned(tmp_path / f"of {text}", {"adam/1": text})
        latents = _latents.subject_latents(base, QUICK, subject, store)
        return latents, _loop.run_key(base, layout, QUICK, {"adam": latents}, None)

    first, run = learn("smiling on a beach")
    monkeypatch.setattr(Base, "encode_moments", None)
    second, other = learn("smiling, on a beach")
    assert torch.equal(first.mean, second.mean)
    assert second.captions == ("", "smiling, on a beach", "")
    assert len({run, other, learn("")[1]}) == 3


def test_gradient_checkpointing_changes_rounding_only(base, tmp_path, subjects, cache):
    plain = train(base, subjects[:2], tmp_path / "a", QUICK, cache=cache)
    frugal = train(
        base, subjects[:2], tmp_path / "b", QUICK, cache=cache, gradient_checkpointing=True
    )
    torch.testing.assert_close(frugal[0], plain[0], rtol=1e-3, atol=1e-5)
    assert not base.denoiser.is_gradient_checkpointing


def test_a_caption_that_is_no_text_fails_its_subject_alone(base, tmp_path, cache):
    subjects = captioned(tmp_path / "s", {"adam/1": "x" * 5000})
    dataset = train(base, subjects, tmp_path / "w", QUICK, cache=cache)
    assert dataset.names == ("eve",)
    assert "1.txt is too long for a caption: over 4,096 bytes" in dataset.failed["adam"]


# Where training begins.


def test_the_start_is_the_input_along_which_gradients_of_subjects_differ(base):
    """Beside the gradients of the layers' own weights, and their singular vectors."""
    layout, generator = base.layout(rank=2), torch.Generator().manual_seed(4)
    subjects = [
        _latents.Latents(torch.randn(3, *base.latent_shape, generator=generator), None, None)
        for _ in range(4)
    ]
    start = world_start.find_start(base, layout, QUICK, subjects, passes=2)
    layers = dict(base.denoiser.named_modules())
    text = base.encode_prompts([QUICK.instance_prompt])
    gradients = []
    for one in subjects:
        total = None
        for index, timesteps, noise in world_start._samples(base, 3, 2, 0):
            weights = [layers[module.name].weight.requires_grad_() for module in layout.modules]
            losses = base.denoising_loss(one.mean[index], noise, timesteps, text.expand(len(index)))
            total = torch.autograd.grad(losses.sum(), weights)
            for weight in weights:
                weight.requires_grad_(False)
        gradients.append(total)
    for (_, A, B), of_layer in zip(layout.slices(), zip(*gradients, strict=True), strict=True):
        differences = torch.stack(of_layer)
        differences = (differences - differences.mean(0)).flatten(0, 1)
        rows = 3**0.5 * start[A].view(2, -1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(2), atol=1e-4, rtol=0)
        held = torch.linalg.svdvals(differences)[:2].norm()
        assert (differences @ rows.T).norm() == pytest.approx(float(held), rel=1e-3)
        assert not start[B].any()
    assert all(not parameter.requires_grad for parameter in base.denoiser.parameters())


def test_training_begins_where_the_bases_folder_says(tiny_base, tmp_path, subjects, cache):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    base = load_base(folder)
    recipe = replace(QUICK, start="base", steps=1, learning_rate=1e-6, prior_loss_weight=0.0)
    layout = base.layout(recipe.rank, recipe.alpha, recipe.targets)
    with pytest.raises(W2WError, match=r"has no LoRA to start from: expected start\.safeten"):
        train(base, subjects, tmp_path / "none", recipe, cache=cache)
    with pytest.raises(W2WError, match="base 'my-own' has no LoRA to start from"):
        start_weights(replace(base, id="my-own"), layout, recipe)  # a name given to a pipeline
    start = torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(1))
    world_start.write_start(folder, base, layout, start)
    dataset = train(base, subjects[:2], tmp_path / "w", recipe, cache=cache)
    torch.testing.assert_close(dataset[0], start, atol=1e-5, rtol=0)
    with pytest.raises(W2WError, match="set start to random if not"):
        start_weights(base, base.layout(rank=2), replace(recipe, rank=2))
    other = replace(base, hash="0" * 16)
    with pytest.raises(W2WError, match="was made for another base"):
        start_weights(other, layout, recipe)


def test_scale_multiplies_every_update(base, tmp_path, subjects, cache):
    recipe = replace(QUICK, prior_loss_weight=0.0)
    plain = train(base, subjects[:2], tmp_path / "a", recipe, cache=cache)
    further = train(base, subjects[:2], tmp_path / "b", replace(recipe, scale=1.5), cache=cache)
    for _, A, B in plain.layout.slices():
        torch.testing.assert_close(further[0][A], plain[0][A])
        torch.testing.assert_close(further[0][B], 1.5 * plain[0][B])
    with pytest.raises(W2WError, match=r"scale 0\.0: expected more than 0"):
        replace(recipe, scale=0.0)
