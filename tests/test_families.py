"""SDXL, SD 3 and FLUX.1: every verb does what diffusers and PEFT do, one subject at a time."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import tiny
import weights2weights as w2w
from weights2weights._noise import initial_weights
from weights2weights.adapter import adapt
from weights2weights.bases import Base
from weights2weights.errors import InputError
from weights2weights.formats import map_lora
from weights2weights.generation import initial_noise
from weights2weights.subjects import find_subjects, read_images
from weights2weights.training._batches import image_order, step_noise

SIZE = 16
PROMPT = "a photo of sks person"
FAMILIES = list(tiny.FAMILIES)


@cache
def folder_of(family: str) -> Path:
    folder = Path(mkdtemp(prefix=f"w2w-{family}-"))
    tiny.family_pipeline(family, folder).save_pretrained(folder / "base")
    return folder / "base"


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def pipe(family, tmp_path):
    return tiny.family_pipeline(family, tmp_path)


@pytest.fixture
def base(family) -> Base:
    return w2w.load_base(folder_of(family), size=SIZE)


def random_loras(base: Base, count: int = 2, scale: float = 0.05):
    layout = base.layout(rank=2, alpha=4.0)
    generator = torch.Generator().manual_seed(1)
    return layout, scale * torch.randn(count, layout.num_parameters, generator=generator)


def network(pipe):
    return getattr(pipe, "transformer", None) or pipe.unet


def drawn(pipe, prompts, base, seeds, **options) -> np.ndarray:
    latents = torch.cat([initial_noise(base, seed) for seed in seeds])
    if "Flux" in type(pipe).__name__:
        latents = pipe._pack_latents(latents, *latents.shape)
    options |= {"height": SIZE, "width": SIZE, "latents": latents, "output_type": "np"}
    return (pipe(prompts, **options).images * 255).round()


def test_a_folder_and_a_pipeline_are_one_base(base, pipe):
    again = Base.from_pipeline(pipe, size=SIZE)
    assert again.hash == base.hash
    assert again.latent_shape == base.latent_shape == (4, 8, 8)


@pytest.mark.parametrize("steps", [1, 5])
def test_images_are_those_of_the_pipeline(base, pipe, family, steps):
    seeds, prompts = [3, 4], ["sks person", "a red hat"]
    scale = {"schnell": 0.0}.get(family, 4.0)
    ours = w2w.generate(base, prompts=prompts, seeds=seeds, steps=steps, guidance=scale)
    for p, prompt in enumerate(prompts):
        theirs = drawn(
            pipe,
            [prompt] * 2,
            base,
            seeds,
            num_inference_steps=steps,
            guidance_scale=scale,
        )
        assert np.abs(ours[0, p].numpy() - theirs).max() <= 1
    assert not torch.equal(ours[0, 0], ours[0, 1])


def test_a_negative_prompt_is_the_pipelines_or_refused(base, pipe, family):
    options = {"steps": 2, "guidance": 4.0, "negative_prompt": "blue"}
    if family in ("flux", "schnell"):
        with pytest.raises(InputError, match="has no negative prompt"):
            w2w.generate(base, prompts=PROMPT, seeds=0, **options)
        return
    ours = w2w.generate(base, prompts=PROMPT, seeds=0, **options)
    theirs = drawn(
        pipe,
        PROMPT,
        base,
        [0],
        num_inference_steps=2,
        guidance_scale=4.0,
        negative_prompt="blue",
    )
    assert np.abs(ours[0, 0, 0].numpy() - theirs[0]).max() <= 1


def script_loss(pipe, denoiser, family, latents, noise, timesteps, text):
    """The loss of diffusers' examples/dreambooth scripts at indices of the noise schedule."""
    scheduler = pipe.scheduler
    if family == "sdxl":
        noisy = scheduler.add_noise(latents, noise, timesteps)
        time_ids = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]]).float().repeat(len(noisy), 1)
        added = {"text_embeds": text["text_embeds"], "time_ids": time_ids}
        hidden = text["encoder_hidden_states"]
        predicted = denoiser(noisy, timesteps, hidden, added_cond_kwargs=added).sample
        return (predicted - noise).square().mean((1, 2, 3))
    indices = scheduler.config.num_train_timesteps - 1 - timesteps  # theirs begin at pure noise
    times, sigmas = scheduler.timesteps[indices], scheduler.sigmas[indices].view(-1, 1, 1, 1)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    if family == "sd3":
        predicted = denoiser(hidden_states=noisy, timestep=times, **text).sample
        clean = predicted * (-sigmas) + noisy
        return (clean - latents).square().mean((1, 2, 3))
    guided = family == "flux"
    n, channels, height, width = noisy.shape
    predicted = denoiser(
        hidden_states=pipe._pack_latents(noisy, n, channels, height, width),
        timestep=times / 1000,
        guidance=torch.tensor([3.5]).expand(n) if guided else None,
        txt_ids=torch.zeros(text["encoder_hidden_states"].shape[1], 3),
        img_ids=pipe._prepare_latent_image_ids(n, height // 2, width // 2, "cpu", torch.float32),
        **text,
    ).sample
    predicted = pipe._unpack_latents(predicted, SIZE, SIZE, pipe.vae_scale_factor)
    return (predicted - (noise - latents)).square().mean((1, 2, 3))


def test_the_loss_is_that_of_diffusers_scripts(base, pipe, family):
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, *base.latent_shape, generator=generator)
    timesteps = torch.tensor([0, 250, 700, 999])
    prompts = base.encode_prompts(["sks person", "", "a hat", "a"])
    losses = base.denoising_loss(latents, noise, timesteps, prompts)
    expected = script_loss(
        pipe, network(pipe), family, latents, noise, timesteps, dict(prompts.tensors)
    )
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)


def test_timesteps_come_in_the_density_of_the_scripts(base, family):
    positions = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    drawn = base.process.quantile(positions)
    expected = positions
    if family == "sd3":
        normal = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
        expected = normal.sigmoid().double().quantile(positions[::40])
        drawn = drawn[::40]
    torch.testing.assert_close(drawn, expected, atol=0.01, rtol=0)


def test_four_subjects_together_equal_four_loops_of_peft(base, pipe, family, tmp_path):
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    recipe = w2w.DreamBoothConfig(
        instance_prompt=PROMPT,
        rank=2,
        alpha=4.0,
        steps=4,
        learning_rate=1e-3,
        prior_loss_weight=0.0,
        latents="mean",
        targets=w2w.training.default_config(base).targets,
    )
    for number, name in enumerate("abcd"):
        (tmp_path / "subjects" / name).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "subjects" / name / "0.png")
    subjects = find_subjects(tmp_path / "subjects")
    ours = w2w.train(base, subjects, tmp_path / "out", recipe, subjects_per_batch=4)
    start = initial_weights(ours.layout, recipe.seed)
    text = dict(base.encode_prompts([PROMPT]).tensors)
    for subject in subjects:
        denoiser = get_peft_model(
            network(tiny.family_pipeline(family, tmp_path)),
            LoraConfig(r=2, lora_alpha=4, target_modules=[m.name for m in ours.layout.modules]),
        )
        for key, value in ours.layout.unflatten(start).items():
            denoiser.state_dict()[key.replace(".weight", ".default.weight")].copy_(value)
        learned = [p for p in denoiser.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(learned, lr=1e-3, weight_decay=recipe.weight_decay)
        latents = base.encode_images(read_images(subject, SIZE).pixels)
        order = image_order(recipe, "subject", len(latents))
        for step in range(recipe.steps):
            noise = step_noise(base, recipe, "subject", step)
            loss = script_loss(
                pipe, denoiser, family, latents[order[step]], noise.noise, noise.timesteps, text
            )
            loss.mean().backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimiser.step()
            optimiser.zero_grad()
        theirs = ours.layout.flatten(get_peft_model_state_dict(denoiser))
        change = (theirs - start).norm()
        assert change > 1e-3
        assert (ours[subject.name] - theirs).norm() <= 1e-4 * change


def test_an_export_loads_into_stock_diffusers(base, pipe, family, tmp_path):
    layout, weights = random_loras(base, scale=0.5)
    latents, times = initial_noise(base, 0), torch.tensor([500])
    text = base.encode_prompts([PROMPT])
    inputs = (latents, 0 * latents, times, dict(text.tensors))
    plain = script_loss(pipe, network(pipe), family, *inputs)
    path = w2w.save_lora(tmp_path / "lora.safetensors", weights[1], layout=layout)
    with adapt(base.denoiser, layout, weights[1:]):
        ours = base.denoising_loss(latents, 0 * latents, times, text)
    pipe.load_lora_weights(tmp_path, weight_name=path.name)
    theirs = script_loss(pipe, network(pipe), family, *inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (theirs - plain).abs() > 1e-3
    again = w2w.load_lora(path)
    if family == "sdxl":
        assert again.layout == layout and torch.equal(again.weights, weights[1])
        return
    assert again.layout.scale == 1  # folded into B
    with adapt(base.denoiser, again.layout, again.weights[None]):
        folded = base.denoising_loss(latents, 0 * latents, times, text)
    torch.testing.assert_close(folded, ours, atol=1e-6, rtol=1e-5)
    second = w2w.save_lora(tmp_path / "second.safetensors", again)
    assert second.read_bytes() == path.read_bytes()


def test_a_transformer_has_no_kohya_file(base, family, tmp_path):
    layout, weights = random_loras(base, 1)
    path = tmp_path / "lora.safetensors"
    if family == "sdxl":
        w2w.save_lora(path, weights[0], layout=layout, format="kohya")
        assert torch.equal(w2w.load_lora(path).weights, weights[0])
        return
    with pytest.raises(InputError, match="export it as peft or diffusers"):
        w2w.save_lora(path, weights[0], layout=layout, format="kohya")


def kohya_flux(rank: int, sparse: bool, alpha: float) -> dict[str, torch.Tensor]:
    """Two layers of a kohya file of FLUX.1 at true widths, with fused projections."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    fused = {
        "lora_unet_double_blocks_0_img_attn_qkv": [3072] * 3,
        "lora_unet_single_blocks_1_linear1": [3072, 3072, 3072, 12288],
    }
    for name, widths in fused.items():
        r = rank * len(widths) if sparse else rank
        up = torch.randn(sum(widths), r, generator=generator)
        if sparse:
            blocks = [torch.ones(width, rank) for width in widths]
            up = up * torch.block_diag(*blocks)
        tensors[f"{name}.lora_down.weight"] = torch.randn(r, 3072, generator=generator)
        tensors[f"{name}.lora_up.weight"] = up
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


@pytest.mark.parametrize("sparse", [False, True], ids=["full", "split"])
def test_a_kohya_file_of_flux_with_fused_projections_converts_exactly(tmp_path, sparse):
    tensors = kohya_flux(2, sparse, alpha=3.0)
    if sparse:  # and a layer of another rank
        generator = torch.Generator().manual_seed(1)
        proj = "lora_unet_double_blocks_0_img_attn_proj"
        tensors[f"{proj}.lora_down.weight"] = torch.randn(5, 3072, generator=generator)
        tensors[f"{proj}.lora_up.weight"] = torch.randn(3072, 5, generator=generator)
    path = tmp_path / "flux.safetensors"
    save_file(tensors, path)
    lora = w2w.load_lora(path)
    parts = lora.layout.unflatten(lora.weights)

    def update(module: str) -> torch.Tensor:
        A, B = (parts[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        return lora.layout.scale * B @ A

    places = {
        "lora_unet_double_blocks_0_img_attn_qkv": (
            "transformer_blocks.0.attn",
            ["to_q", "to_k", "to_v"],
        ),
        "lora_unet_single_blocks_1_linear1": (
            "single_transformer_blocks.1",
            ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
        ),
    }
    for name, (block, layers) in places.items():
        down, up = (tensors[f"{name}.lora_{x}.weight"] for x in ("down", "up"))
        whole = 3.0 / len(down) * up @ down
        converted = torch.cat([update(f"{block}.{layer}") for layer in layers])
        torch.testing.assert_close(converted, whole, rtol=1e-5, atol=1e-5)
    for module, (A, B) in map_lora(path).factors.items():  # the same, for spaces of updates
        assert torch.equal(A, parts[f"base_model.model.{module}.lora_A.weight"])
        assert torch.equal(B, parts[f"base_model.model.{module}.lora_B.weight"])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv.dora_scale", "belongs to a DoRA"),
        ("lora_unet_double_blocks_0_img_attn_qkv.hada_w1_a", "belongs to a LoHa"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lokr_w1", "belongs to a LoKr"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "a text encoder"),
        ("lora_unet_double_blocks_0_unheard_of.lora_down.weight", "diffusers cannot convert"),
    ],
)
def test_what_is_no_plain_lora_of_a_transformer_is_refused_by_name(tmp_path, key, message):
    path = tmp_path / "flux.safetensors"
    save_file(kohya_flux(1, False, 1.0) | {key: torch.ones(1, 3072)}, path)
    with pytest.raises(InputError, match=message) as caught:
        w2w.load_lora(path)
    assert "\n" not in str(caught.value)


def test_alphas_beside_diffusers_names_are_folded_in(tmp_path):
    name = "transformer.single_transformer_blocks.0.attn.to_q"
    A, B = torch.ones(2, 4), torch.ones(4, 2)
    tensors = {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
    save_file(tensors | {f"{name}.alpha": torch.tensor(6.0)}, tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "b.safetensors")
    with_alpha, without = (w2w.load_lora(tmp_path / f"{x}.safetensors") for x in "ab")
    assert with_alpha.layout.scale == without.layout.scale == 1
    assert torch.equal(with_alpha.weights[8:], 3 * B.flatten())
    assert torch.equal(without.weights, torch.ones(16))


def test_invert_edit_generate_and_delayed_injection(base, tmp_path):
    layout = base.layout()
    generator = torch.Generator().manual_seed(0)
    rows = 0.05 * torch.randn(6, layout.num_parameters, generator=generator)
    dataset = w2w.WeightDataset.create(tmp_path / "set", layout, base_hash=base.hash)
    for number, row in enumerate(rows):
        dataset.write(f"m{number}", row)
    space = w2w.WeightSpace.fit(dataset, components=4)
    photo = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    before = base.denoiser.state_dict()
    found = w2w.invert(
        base, space, photo, steps=6, eval_every=3, gradient_checkpointing=True, learning_rate=5.0
    )
    assert found.points.any() and found.loss[0] <= found.start_loss[0]
    assert base.denoiser.state_dict().keys() == before.keys()
    options = {"space": space, "prompts": PROMPT, "seeds": 0, "steps": 4}
    always = w2w.generate(base, 30 * found.points, **options)
    never = w2w.generate(base, 30 * found.points, inject_at=0, **options)
    plain = w2w.generate(base, prompts=PROMPT, seeds=0, steps=4)
    assert torch.equal(never, plain) and not torch.equal(always, plain)
    merged = w2w.merge(w2w.Model(layout, weights=rows[0]), w2w.Model(layout, weights=rows[1]))
    assert merged.layout.rank == 2
    edited = w2w.generate(base, merged, prompts=PROMPT, seeds=0, steps=2)
    assert edited.shape == (1, 1, 1, SIZE, SIZE, 3)


def test_checkpointing_and_reduced_precision_change_little(base, family):
    latents = initial_noise(base, 0)
    prompts, times = base.encode_prompts([PROMPT]), torch.tensor([500])
    layout, weights = random_loras(base, 1)
    gradients = []
    for enabled in (False, True):
        leaf = weights.clone().requires_grad_()
        with base.gradient_checkpointing(enabled), adapt(base.denoiser, layout, leaf):
            loss = base.denoising_loss(latents, 0 * latents, times, prompts)
            gradients.append(torch.autograd.grad(loss.sum(), leaf)[0])
    torch.testing.assert_close(*gradients)
    half = w2w.load_base(folder_of(family), dtype="bfloat16", size=SIZE)
    assert half.hash == base.hash and half.denoiser.dtype == torch.bfloat16
    reduced = half.denoising_loss(latents, 0 * latents, times, half.encode_prompts([PROMPT]))
    torch.testing.assert_close(
        reduced, base.denoising_loss(latents, 0 * latents, times, prompts), rtol=0.1, atol=0
    )


def test_offloaded_encoders_work_and_prompts_are_read_from_disk(family, base, monkeypatch):
    kept = w2w.load_base(folder_of(family), size=SIZE, offload=True)
    prompt = f"{family} offloaded"
    first = kept.encode_prompts([prompt])
    kept._prompts.clear()
    monkeypatch.setattr(type(kept.family), "encode", None)
    again = kept.encode_prompts([prompt])
    for name, tensor in base_prompts(base, prompt, monkeypatch).items():
        assert torch.equal(first.tensors[name], again.tensors[name])
        assert torch.equal(first.tensors[name], tensor)


def base_prompts(base, prompt, monkeypatch):
    monkeypatch.undo()
    return base.encode_prompts([prompt]).tensors


def test_a_size_that_the_denoiser_cannot_have_is_refused(family, base):
    with pytest.raises(InputError, match="size 15: expected a multiple of"):
        w2w.load_base(folder_of(family), size=15)


def test_a_lora_of_another_family_is_one_line(base, family, tmp_path):
    other = "sd3" if family != "sd3" else "sdxl"
    layout, weights = random_loras(w2w.load_base(folder_of(other), size=SIZE))
    with pytest.raises(InputError, match=r"lacks \d+ of the \d+ layers") as caught:
        w2w.generate(base, weights, layout=layout, prompts=PROMPT, seeds=0)
    assert "\n" not in str(caught.value)


WIDTHS = {
    "sdxl": ("UNet2DConditionModel", 725_760),
    "sd3": ("SD3Transformer2DModel", 147_456),
    "flux": ("FluxTransformer2DModel", 700_416),
}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
}
SD3 = {"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 192}


@pytest.mark.parametrize("name", WIDTHS)
def test_true_widths(name):
    import diffusers

    kind, expected = WIDTHS[name]
    with torch.device("meta"):
        denoiser = getattr(diffusers, kind)(**{"sdxl": SDXL, "sd3": SD3}.get(name, {}))
    assert w2w.WeightLayout.from_denoiser(denoiser).num_parameters == expected
