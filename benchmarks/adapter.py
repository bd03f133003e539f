"""What one UNet for K personalised models costs, and what it saves.

    python benchmarks/adapter.py --threads 1 --out benchmarks/results/adapter.json

1. Eight images of eight models, guided, in one batch through the stack, against the way without
   it: eight times `pipe.load_lora_weights` and one image. The images must agree.
2. A forward pass with K LoRAs against the same batch through the plain base.
3. A training step, forward and backward to K LoRAs, against PEFT with one LoRA at a time.

Rivals take turns within each round; a figure is the median over the rounds, a ratio the median of
the rounds' ratios. Wall and processor seconds are both given: on a machine that has other work,
with `--threads 1`, the latter are the ones to trust. The JSON goes to stdout, the table to stderr.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import peft
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from weights2weights.adapter import Adapter, adapt
from weights2weights.formats import write_lora_file
from weights2weights.layout import WeightLayout
from weights2weights.worlds import shipped

GUIDANCE = 3.0
STACKS = (1, 8, 32)
TEXT = (48, 128)  # tokens and width of the stand-in for a prompt's embedding


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, help="diffusers folder; default: random weights")
    parser.add_argument("--models", type=int, default=8, help="in the batch of images")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rank", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    # At every load diffusers tells, as a warning, that the LoRA has no keys for the text encoder.
    diffusers.logging.set_verbosity_error()

    pipe = open_base(given.base).to(given.device)
    layout = WeightLayout.from_denoiser(pipe.unet, rank=given.rank)
    report = {
        "base": str(given.base.name) if given.base else "random weights, size of the people world",
        "machine": describe_machine(given.device),
        "numbers": layout.num_parameters,
        "rank": given.rank,
        "seed": given.seed,
        "rounds": given.rounds,
        "images": measure_images(pipe, layout, given.models, given.steps, given.rounds),
    }
    # Plain attention: on CPUs the fused kernel's backward pass is the slower one, for all rivals.
    pipe.unet.set_attn_processor(AttnProcessor())
    for key, half in (("float32", False), ("bfloat16 autocast", True)):
        report[f"forward, {key}"] = measure_forward(pipe.unet, layout, half, given.rounds)
        report[f"training, {key}"] = measure_training(pipe.unet, layout, half, given.rounds)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(report, indent=2) + "\n")
    print_table(report)
    print(json.dumps(report))


def open_base(folder: Path | None) -> Any:
    """Open a diffusers folder, or make a base like that of the people world, untrained."""
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if folder:
        pipe = StableDiffusionPipeline.from_pretrained(folder, **parts)
    else:
        unet, vae = (
            network.from_config(network.load_config(shipped("people", "base") / part))
            for network, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"))
        )
        pipe = StableDiffusionPipeline(
            unet=unet.eval(),
            vae=vae.eval(),
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                prediction_type="v_prediction",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            text_encoder=None,
            tokenizer=None,
            image_encoder=None,
            **parts,
        )
    for part in (pipe.unet, pipe.vae):
        part.requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def embed(pipe: Any, prompt: str) -> Tensor:
    """Return a prompt's embedding "1 t c"; noise of that shape if there is no text encoder."""
    if pipe.text_encoder is None:
        generator = torch.Generator().manual_seed(len(prompt))
        return torch.randn(1, *TEXT, generator=generator).to(pipe.device)
    with torch.no_grad():
        return pipe.encode_prompt(prompt, pipe.device, 1, False)[0]


def random_weights(layout: WeightLayout, rows: int, device: Any) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return (0.05 * torch.randn(rows, layout.num_parameters, generator=generator)).to(device)


def measure_images(
    pipe: Any, layout: WeightLayout, models: int, steps: int, rounds: int
) -> dict[str, Any]:
    """Draw one image per model: all at once, and one model after the other."""
    weights = random_weights(layout, models, pipe.device)
    prompt, empty = embed(pipe, "a photo of sks person"), embed(pipe, "")
    size = pipe.unet.config.sample_size
    latents = torch.randn(models, 4, size, size, device=pipe.device)

    def draw(latents: Tensor) -> Tensor:
        n = len(latents)
        return pipe(
            prompt_embeds=prompt.expand(n, -1, -1),
            negative_prompt_embeds=empty.expand(n, -1, -1),
            latents=latents,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            output_type="pt",
        ).images

    def stack() -> Tensor:
        with adapt(pipe.unet, layout, weights, torch.arange(models)):
            return draw(latents)

    def load_each() -> Tensor:
        images = []
        for file, start in zip(files, latents.split(1), strict=True):
            pipe.load_lora_weights(file)
            images.append(draw(start))
            pipe.unload_lora_weights()
        return torch.cat(images)

    def hotswap() -> Tensor:
        images = []
        for i, (file, start) in enumerate(zip(files, latents.split(1), strict=True)):
            pipe.load_lora_weights(file, adapter_name="one", hotswap=i > 0)
            images.append(draw(start))
        pipe.unload_lora_weights()
        return torch.cat(images)

    with TemporaryDirectory() as folder:
        files = [
            write_lora_file(Path(folder) / f"{i}.safetensors", row, layout, "diffusers")
            for i, row in enumerate(weights)
        ]
        expected, plain = load_each(), draw(latents)
        errors = {
            name: (way() - expected).abs().max().item()
            for name, way in (("stack", stack), ("hotswap", hotswap))
        }
        effect = (plain - expected).abs().max().item()
        if max(errors.values()) > 1e-3 or effect < 10 * max(errors.values()):
            raise SystemExit(f"images disagree by {errors}; the LoRAs change them by {effect}")
        rivals = {"stack": stack, "load each": load_each, "hotswap": hotswap}
        times = take_turns(rivals | {"plain base": lambda: draw(latents)}, rounds)
    return {
        "models": models,
        "steps": steps,
        "guidance": GUIDANCE,
        "largest difference to load each": errors,
        "largest effect of the LoRAs": effect,
        **summarise(times, "stack"),
    }


def inputs(unet: Any, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    size, device = unet.config.sample_size, unet.device
    return (
        torch.randn(batch, 4, size, size, device=device),
        torch.randint(0, 1000, (batch,), device=device),
        torch.randn(batch, TEXT[0], unet.config.cross_attention_dim, device=device),
    )


def measure_forward(unet: Any, layout: WeightLayout, half: bool, rounds: int) -> dict[str, Any]:
    """One sample per LoRA: in order, in the order of an index, and without LoRAs."""
    figures = {}
    for K in STACKS:
        batch, weights = inputs(unet, K), random_weights(layout, K, unet.device)
        with adapt(unet, layout, weights) as adapter:

            def forward(
                index: Tensor | None,
                enabled: bool = True,
                adapter: Adapter = adapter,
                batch: tuple[Tensor, ...] = batch,
            ) -> None:
                adapter.index, adapter.enabled = index, enabled
                with torch.no_grad(), autocast(unet, half):
                    unet(*batch)

            rivals = {
                "stack": partial(forward, None),
                "gathered": partial(forward, torch.arange(K).flip(0)),
                "plain base": partial(forward, None, enabled=False),
            }
            times = take_turns(rivals, rounds * max(3, 32 // K))
        figures[f"K={K}"] = summarise(times, "plain base")
    return figures


def measure_training(unet: Any, layout: WeightLayout, half: bool, rounds: int) -> dict[str, Any]:
    """A step for one subject by PEFT, for K subjects by the stack; one sample per subject."""
    alone = copy.deepcopy(unet)
    config = peft.LoraConfig(
        r=layout.rank, lora_alpha=layout.alpha, target_modules=list(layout.targets)
    )
    peft.inject_adapter_in_model(config, alone)
    learned = [p for name, p in alone.named_parameters() if "lora_" in name]

    def step(network: Any, batch: Any, leaves: list[Tensor]) -> None:
        with autocast(network, half):
            predicted = network(*batch).sample
        torch.autograd.grad(predicted.float().square().sum(), leaves)

    figures = {}
    for K in STACKS:
        batch, single = inputs(unet, K), inputs(unet, 1)
        weights = random_weights(layout, K, unet.device).requires_grad_()

        def stack(batch: Any = batch, weights: Tensor = weights) -> None:
            with adapt(unet, layout, weights):
                step(unet, batch, [weights])

        def by_peft(single: Any = single) -> None:
            step(alone, single, learned)

        times = take_turns({"stack": stack, "PEFT, one": by_peft}, rounds * max(1, 8 // K))
        per_subject = {
            "stack": [tuple(t / K for t in pair) for pair in times["stack"]],
            "PEFT, one": times["PEFT, one"],
        }
        figures[f"K={K}, per subject"] = summarise(per_subject, "stack")
    return figures


def autocast(network: Any, half: bool) -> torch.autocast:
    return torch.autocast(network.device.type, torch.bfloat16, enabled=half)


Times = dict[str, list[tuple[float, float]]]


def take_turns(rivals: dict[str, Callable[[], Any]], rounds: int) -> Times:
    """Time all rivals in every round, after one that does not count: (wall, processor) seconds."""
    times: Times = {name: [] for name in rivals}
    for counted in [False] + [True] * rounds:
        for name, rival in rivals.items():
            synchronise()
            start = time.perf_counter(), time.process_time()
            rival()
            synchronise()
            end = time.perf_counter(), time.process_time()
            if counted:
                times[name].append((end[0] - start[0], end[1] - start[1]))
    return times


def synchronise() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def summarise(times: Times, reference: str) -> dict[str, Any]:
    """Medians with quartiles in seconds, and every rival's ratio to the reference."""
    summary: dict[str, Any] = {"seconds": {}, f"times {reference}": {}}
    for clock, name in enumerate(("wall", "processor")):
        for rival, pairs in times.items():
            values = [pair[clock] for pair in pairs]
            references = [pair[clock] for pair in times[reference]]
            ratios = [value / r for value, r in zip(values, references, strict=True)]
            low, middle, high = quartiles(values)
            entry = summary["seconds"].setdefault(rival, {})
            entry[name] = {"median": middle, "quartiles": [low, high]}
            summary[f"times {reference}"].setdefault(rival, {})[name] = statistics.median(ratios)
    return summary


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4) if len(values) > 1 else values * 3


def describe_machine(device: str) -> dict[str, Any]:
    """What the figures depend on; no name of the machine or path on it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return {
        "processor": ", ".join(sorted(names)) or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "accelerator": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "peft": peft.__version__,
    }


def print_table(report: dict[str, Any]) -> None:
    def tell(title: str, part: dict[str, Any]) -> None:
        (ratios,) = (value for key, value in part.items() if key.startswith("times "))
        (reference,) = (key for key in part if key.startswith("times "))
        for rival, clocks in part["seconds"].items():
            wall, processor = (1e3 * clocks[c]["median"] for c in ("wall", "processor"))
            times = " ".join(f"{ratios[rival][c]:8.3f}" for c in ("wall", "processor"))
            print(
                f"{title:<44} {rival:<12} {wall:10.1f} {processor:10.1f}  {times}  {reference}",
                file=sys.stderr,
            )

    print(json.dumps(report["machine"]), file=sys.stderr)
    print(f"{'':<57} {'wall ms':>10} {'cpu ms':>10}  {'ratio':>8} {'cpu':>8}", file=sys.stderr)
    images = report["images"]
    tell(f"{images['models']} images, {images['steps']} steps", images)
    for name, parts in report.items():
        if name.startswith(("forward", "training")):
            for key, part in parts.items():
                tell(f"{name}, {key}", part)


if __name__ == "__main__":
    main()
