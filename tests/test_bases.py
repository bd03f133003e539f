"""A base loads from a folder, agrees with diffusers itself, and refuses what it cannot be."""

import gc
import json
import os
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from weights2weights.adapter import adapt
from weights2weights.bases import (
    Base,
    _load,
    add_noise,
    find_start_file,
    load_base,
    noise_target,
)
from weights2weights.errors import InputError, ResourceError, W2WError


@pytest.fixture
def base(tiny_base):
    return load_base(tiny_base)


def random_images(count: int, side: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


def test_is_loaded_once_and_frozen(tiny_base, base):
    assert load_base(str(tiny_base)) is base
    networks = (base.denoiser, base.vae, base.family.parts["text_encoder"])
    assert not any(p.requires_grad for network in networks for p in network.parameters())
    assert not any(network.training for network in networks)


def test_knows_its_shapes(base):
    assert base.size == 16
    assert base.latent_shape == (4, 8, 8)
    assert base.process.prediction_type == "epsilon"
    assert base.layout(rank=2, alpha=3.0) == base.layout(2, 3.0)
    assert base.layout().base == base.id


def test_an_unused_base_is_unloaded(tiny_base, tmp_path):
    base = load_base(copy(tiny_base, tmp_path))
    held = [weakref.ref(base), weakref.ref(base.denoiser), weakref.ref(base.vae)]
    del base
    gc.collect()
    assert [one() for one in held] == [None] * 3


def test_a_folder_that_changed_is_loaded_again(tiny_base, tmp_path):
    folder = copy(tiny_base, tmp_path)
    before = load_base(folder)
    assert load_base(folder) is before
    other = tiny.pipeline(tmp_path, seed=1)
    other.vae.save_pretrained(folder / "vae")
    os.utime(next((folder / "vae").glob("*.safetensors")), ns=(1, 1))
    after = load_base(folder)
    assert after is not before
    assert after.hash == Base.from_pipeline(other_vae(tmp_path, other.vae)).hash != before.hash


def other_vae(folder, vae):
    pipe = tiny.pipeline(folder)
    pipe.vae = vae
    return pipe


def test_the_same_files_are_hashed_once(tiny_base, tmp_path, monkeypatch):
    folder = copy(tiny_base, tmp_path)
    first = load_base(folder).hash
    monkeypatch.setattr(_load, "content_hash", None)
    assert load_base(folder, dtype=torch.bfloat16).hash == first
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(TypeError):
        load_base(folder)


def test_a_base_goes_to_another_dtype_and_leaves_the_first_as_it_was(base):
    inputs = tiny.base_inputs(2)
    before = base.denoise(*inputs)
    half = base.to(dtype=torch.bfloat16)
    assert (half.dtype, half.denoiser.dtype, half.vae.dtype) == (torch.bfloat16,) * 2 + (
        torch.float32,
    )
    assert half.hash == base.hash
    assert torch.equal(base.denoise(*inputs), before)
    assert base.to("cpu", torch.float32) is base
    assert half.vae.encoder.conv_in.weight.data_ptr() == base.vae.encoder.conv_in.weight.data_ptr()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_pipeline_stays_as_it_was(tmp_path, dtype):
    pipe = tiny.pipeline(tmp_path)
    pipe.unet.train().requires_grad_(True)
    networks = (pipe.unet, pipe.vae, pipe.text_encoder)

    def state():
        return [
            (id(module), module.training, type(module), getattr(module, "processor", None))
            for network in networks
            for module in network.modules()
        ] + [
            (name, id(p), p.data_ptr(), p.requires_grad, p.dtype)
            for network in networks
            for name, p in network.named_parameters()
        ]

    inputs = tiny.base_inputs(2)
    latents, times, prompts = inputs
    expected = pipe.unet(latents, times, **prompts.tensors).sample.detach()
    before = state()
    base = Base.from_pipeline(pipe, dtype=dtype)
    layout = base.layout()
    with adapt(base.denoiser, layout, torch.ones(1, layout.num_parameters)):
        base.denoise(*inputs)
    base.decode(torch.zeros(1, 4, 8, 8))
    assert state() == before
    again = pipe.unet(latents, times, **prompts.tensors).sample.detach()
    assert torch.equal(again, expected)
    if dtype is None:  # nothing was copied
        assert base.denoiser.conv_in.weight.data_ptr() == pipe.unet.conv_in.weight.data_ptr()
        torch.testing.assert_close(base.denoise(*inputs), expected)


def test_an_offloaded_pipeline_is_refused(tmp_path):
    pipe = tiny.pipeline(tmp_path)
    pipe.vae._hf_hook = object()
    with pytest.raises(InputError, match="remove_all_hooks"):
        Base.from_pipeline(pipe)


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument")  # from diffusers
def test_an_unreachable_hub_is_the_machines_failure():
    with pytest.raises(ResourceError, match="hub cannot be reached"):
        load_base("nobody-at-all/no-such-base")


def test_a_device_that_is_not_there_is_refused(tiny_base):
    with pytest.raises(InputError, match="device 'abacus' cannot be used here"):
        load_base(tiny_base, "abacus")


def test_hash_is_that_of_the_values_not_of_the_files(tiny_base, base, tmp_path):
    assert load_base(tiny_base, dtype=torch.bfloat16).hash == base.hash
    halves, again = tmp_path / "halves", tmp_path / "again"
    pipe = tiny.pipeline(tmp_path)
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        network.half().float()
    pipe.save_pretrained(again)
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        network.half()
    pipe.save_pretrained(halves)
    assert load_base(halves).hash == load_base(again).hash != base.hash


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_hash_sees_every_network(tmp_path, base, part):
    pipe = tiny.pipeline(tmp_path)
    next(iter(getattr(pipe, part).parameters())).data.view(-1)[0] += 1
    assert Base.from_pipeline(pipe).hash != base.hash


def test_hash_sees_what_the_unet_predicts(tmp_path, base):
    other = Base.from_pipeline(tiny.pipeline(tmp_path, prediction_type="v_prediction"))
    assert other.process.prediction_type == "v_prediction"
    assert other.hash != base.hash


def encoded(base, prompts) -> torch.Tensor:
    return base.encode_prompts(prompts).tensors["encoder_hidden_states"]


def test_prompts_as_the_pipeline_encodes_them(tiny_pipeline, base):
    prompts = ["sks person", "", "a person with a red hat"]
    theirs, _ = tiny_pipeline.encode_prompt(prompts, "cpu", 1, False)
    ours = base.encode_prompts(prompts).tensors["encoder_hidden_states"]
    torch.testing.assert_close(ours, theirs)


def test_a_prompt_gives_the_same_bits_in_any_company(base):
    """Else a run that resumes, and so asks in another order, would not end in the same bytes."""
    alone = encoded(base, ["sks person"])[0]
    for company in (
        ["a", "sks person", "b"],
        [*"abcdefghijklm", "sks person"],
        ["sks person", "x"],
    ):
        base._prompts.clear()
        again = encoded(base, company)[company.index("sks person")]
        assert torch.equal(again, alone)


def test_prompts_are_encoded_in_batches(base, monkeypatch):
    base._prompts.clear()
    encoder = base.family.parts["text_encoder"]
    sizes, encode = [], encoder.forward

    def counting(tokens, *args, **kwargs):
        sizes.append(len(tokens))
        return encode(tokens, *args, **kwargs)

    monkeypatch.setattr(encoder, "forward", counting)
    base.encode_prompts([f"{i % 10}" for i in range(30)])
    assert sizes == [8, 8]
    base.encode_prompts(["3", "7"])
    assert sizes == [8, 8]


def test_a_full_prompt_cache_forgets_what_was_used_longest_ago(base, monkeypatch):
    calls = (["a", "b"], ["a", "c"], ["a", "d", "e"], ["e", "a", "e"])
    expected = [encoded(base, prompts) for prompts in calls]
    base._prompts.clear()
    monkeypatch.setattr(
        "weights2weights.bases._base._CACHED_PROMPT_BYTES", 2 * expected[0][0].nbytes
    )
    kept = []
    for prompts, before in zip(calls, expected, strict=True):
        assert torch.equal(encoded(base, prompts), before)
        kept.append("".join(base._prompts))
    assert kept == ["ab", "ac", "de", "ae"]


def test_a_prompt_that_is_cut_off_is_told(base, caplog):
    base.encode_prompts(["a very long prompt that names many more things than fit"])
    assert "this base reads 32; kept: 'a very long" in " ".join(caplog.text.split())


def test_images_make_the_round_trip_that_diffusers_makes(base):
    images = random_images(3)
    scaled = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    theirs = base.vae.encode(scaled).latent_dist.mean * base.vae.config.scaling_factor
    latents = base.encode_images(images)
    torch.testing.assert_close(latents, theirs)
    decoded = base.vae.decode(theirs / base.vae.config.scaling_factor).sample
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
    assert (base.decode(latents).int() - expected.int()).abs().max() <= 1


def test_images_come_as_arrays_tensors_or_pil(base):
    images = random_images(2)
    latents = base.encode_images(images)
    assert torch.equal(base.encode_images(images.numpy()), latents)
    assert torch.equal(base.encode_images([Image.fromarray(i.numpy()) for i in images]), latents)


@pytest.mark.parametrize(
    "settings",
    [
        {"scaling_factor": 0.5, "shift_factor": 0.25},
        {
            "scaling_factor": 2.0,
            "latents_mean": [0.0, 0.1, 0.2, 0.3],
            "latents_std": [1.0, 2.0, 3.0, 4.0],
        },
    ],
)
def test_latents_are_shifted_and_scaled_as_the_vae_says(tmp_path, base, settings):
    pipe = tiny.pipeline(tmp_path)
    pipe.vae.register_to_config(**settings)
    other = Base.from_pipeline(pipe)
    images = random_images(2)
    raw = base.encode_images(images) / base.vae.config.scaling_factor
    mean = torch.tensor(settings.get("latents_mean", settings.get("shift_factor"))).view(
        1, -1, 1, 1
    )
    std = torch.tensor(settings.get("latents_std", 1.0)).view(1, -1, 1, 1)
    latents = other.encode_images(images)
    torch.testing.assert_close(latents, (raw - mean) * settings["scaling_factor"] / std)
    difference = other.decode(latents).int() - base.decode(base.encode_images(images)).int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 16, 16, 3), "float32 of shape"),
        (torch.zeros(16, 16, 3, dtype=torch.uint8), "expected uint8 of shape"),
        (torch.zeros(1, 17, 16, 3, dtype=torch.uint8), "multiples of 2"),
        (torch.zeros(0, 16, 16, 3, dtype=torch.uint8), "at least one"),
        ([], "one or more"),
        ([Image.new("RGB", (16, 16)), Image.new("RGB", (16, 18))], "16×16, 16×18"),
    ],
)
def test_images_of_another_kind_are_refused(base, images, message):
    with pytest.raises(W2WError, match=message):
        base.encode_images(images)


def loss_inputs(base, batch: int = 3) -> tuple[torch.Tensor, ...]:
    latents, timesteps, prompts = tiny.base_inputs(batch)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(9))
    return latents, noise, timesteps, prompts


def test_formulas_of_the_forward_process_are_those_of_diffusers(base):
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler.from_config(base.scheduler_config)
    latents, noise, timesteps, _ = loss_inputs(base)
    alpha_bar = base.process.levels[timesteps]
    noisy = theirs.add_noise(latents, noise, timesteps)
    torch.testing.assert_close(add_noise(latents, noise, alpha_bar), noisy)
    velocity = theirs.get_velocity(latents, noise, timesteps)
    ours = noise_target(latents, noise, alpha_bar, "v_prediction")
    torch.testing.assert_close(ours, velocity)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_loss_is_the_error_of_every_sample_alone(tmp_path, prediction_type):
    base = Base.from_pipeline(tiny.pipeline(tmp_path, prediction_type=prediction_type))
    latents, noise, timesteps, prompts = loss_inputs(base)
    losses = base.denoising_loss(latents, noise, timesteps, prompts)
    alpha_bar = base.process.levels[timesteps].view(-1, 1, 1, 1)
    noisy = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise
    target = noise
    if prediction_type == "v_prediction":
        target = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * latents
    for i in range(3):
        one = slice(i, i + 1)
        predicted = base.denoiser(noisy[one], timesteps[one], **prompts[one].tensors).sample
        torch.testing.assert_close(losses[i], (predicted - target[one]).square().mean())


def test_mask_weighs_the_error_whatever_its_scale(base):
    inputs = loss_inputs(base)
    plain = base.denoising_loss(*inputs)
    ones = torch.ones(3, 8, 8)
    torch.testing.assert_close(base.denoising_loss(*inputs, mask=ones), plain)
    torch.testing.assert_close(base.denoising_loss(*inputs, mask=ones * 255), plain)
    half = ones.clone()
    half[:, :4] = 0
    upper, lower = (base.denoising_loss(*inputs, mask=m) for m in (half, 1 - half))
    torch.testing.assert_close((upper + lower) / 2, plain)
    assert torch.isfinite(base.denoising_loss(*inputs, mask=0 * ones)).all()


def test_reduced_precision_stays_near_float32_and_gives_float32(tiny_base, base):
    inputs = loss_inputs(base)
    reduced = load_base(tiny_base, dtype=torch.bfloat16)
    losses = reduced.denoising_loss(*inputs)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, base.denoising_loss(*inputs), rtol=0.05, atol=0)
    difference = reduced.decode(inputs[0]).float() - base.decode(inputs[0]).float()
    assert difference.abs().mean() < 2


def test_plain_attention_changes_rounding_only(tmp_path, base):
    fresh = tiny.unet()
    latents, timesteps, prompts = tiny.base_inputs(2)
    theirs = fresh(latents, timesteps, **prompts.tensors).sample
    torch.testing.assert_close(base.denoise(latents, timesteps, prompts), theirs)


def test_an_unknown_world_names_those_there_are():
    with pytest.raises(W2WError, match="no embedded world of this name"):
        load_base("martians")


def test_a_folder_of_images_does_not_hide_the_world_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "people" / "people-0-00000").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = load_base("people")
    monkeypatch.chdir("/")
    assert found.hash == load_base("people").hash


@pytest.mark.parametrize("spec", ["/nowhere/at/all", "./nowhere", "a b/c", "one/two/three"])
def test_what_can_be_no_base_is_refused_at_once(spec):
    with pytest.raises(W2WError, match="hub id such as"):
        load_base(spec)


def test_a_name_that_the_hub_refuses_is_one_line():
    with pytest.raises(InputError, match="cannot be read"):
        load_base("a--b/c")


def test_a_dtype_may_be_named(tiny_base):
    assert load_base(tiny_base, "cpu", "float32") is load_base(tiny_base, "cpu")
    with pytest.raises(InputError, match="dtype 'float33': expected float32"):
        load_base(tiny_base, "cpu", "float33")


def test_a_base_is_shown_in_one_line(tiny_base, base):
    assert repr(base) == f"Base({base.id!r}, 16 px, float32, cpu)"


def copy(tiny_base, tmp_path):
    return shutil.copytree(tiny_base, tmp_path / "copy")


def test_a_folder_that_lacks_a_part_names_it(tiny_base, tmp_path):
    folder = copy(tiny_base, tmp_path)
    shutil.rmtree(folder / "vae")
    with pytest.raises(W2WError, match="lacks vae"):
        load_base(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "KandinskyPipeline"}, "is a 'KandinskyPipeline'; expected one of Stable"),
        ({"_class_name": ["pipeline.py", "Mine"]}, r"is a .*pipeline\.py.*; expected one of"),
        ({"unet": ["mine", "MyUNet"]}, "names .*MyUNet.* as its unet; expected UNet2D"),
        ({"text_encoder": [None, None]}, "names .*None.* as its text_encoder; expected CLIP"),
    ],
)
def test_an_index_that_names_anything_else_is_refused(tiny_base, tmp_path, changes, message):
    folder = copy(tiny_base, tmp_path)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))
    (folder / "pipeline.py").write_text("raise SystemExit")
    with pytest.raises(InputError, match=message) as caught:
        load_base(folder)
    assert "\n" not in str(caught.value)


def test_a_quantised_part_is_refused(tiny_base, tmp_path):
    folder = copy(tiny_base, tmp_path)
    config = folder / "unet" / "config.json"
    quantised = {"quantization_config": {"quant_method": "bitsandbytes"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | quantised))
    with pytest.raises(InputError, match="quantised unet"):
        load_base(folder)


def test_shards_are_read_and_a_missing_one_is_one_line(tiny_base, tmp_path):
    folder = copy(tiny_base, tmp_path)
    unet = tiny.unet()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    shards = sorted((folder / "unet").glob("*.safetensors"))
    assert len(shards) > 1
    assert load_base(folder).hash == load_base(tiny_base).hash
    shards[1].unlink()
    with pytest.raises(InputError, match="its unet cannot be read"):
        load_base(folder)


def test_the_start_is_a_file_in_the_folder_of_a_base(tiny_base, tmp_path):
    folder = copy(tiny_base, tmp_path)
    base = load_base(folder)
    assert find_start_file(base) is None
    (folder / "start.safetensors").touch()
    assert find_start_file(base) == folder / "start.safetensors"
    (tmp_path / "start.safetensors").touch()
    for name in ("", "mine", "my/pipeline", "/nowhere/at/all", str(tmp_path)):
        assert find_start_file(replace(base, id=name)) is None


def test_a_damaged_part_is_one_line(tiny_base, tmp_path):
    folder = copy(tiny_base, tmp_path)
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(W2WError, match="its unet cannot be read") as caught:
        load_base(folder)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_opened(tiny_base, tmp_path):
    folder = copy(tiny_base, tmp_path)
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(W2WError, match="its unet cannot be read"):
        load_base(folder)


def test_another_prediction_type_is_refused(tiny_base, tmp_path):
    folder = copy(tiny_base, tmp_path)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "sample"}))
    with pytest.raises(W2WError, match="predicts 'sample'"):
        load_base(folder)


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    pipe = tiny.pipeline(tmp_path)
    pipe.unet = tiny.unet(cross_attention_dim=8)
    with pytest.raises(W2WError, match="text width 8, its partner gives 12"):
        Base.from_pipeline(pipe)


def test_random_state_is_left_alone(tiny_base, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_base(copy(tiny_base, tmp_path)).decode(torch.zeros(1, 4, 8, 8))
    assert torch.equal(torch.rand(3), expected)
    assert np.isfinite(expected.numpy()).all()
