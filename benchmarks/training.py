"""Subjects per minute: DreamBooth one subject after another, and K of them in one batch.

    python benchmarks/training.py --batches 64 96 --steps 30 --out benchmarks/results/training.json
    python benchmarks/training.py --base random-sd15 --device cuda --batches 8 16 32

1. plain: PEFT adapter, batch 1 (and 1 of the class), VAE and text encoder run in every step, one
   subject after another, as in the example scripts.
2. ours at K = 1 and at every K of --batches: `weights2weights.training`.

All do the same steps of the same recipe on the same images, in the same precision, and take turns
within each round. Subjects per minute counts the whole recipe: all its steps and, for ours, reading
and encoding the images once. Class images are drawn before the clock starts. FLOPs are counted
by PyTorch as the step runs, the limit is the rate of a large matrix product in the same precision.
The JSON goes to stdout, the table to stderr.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import peft
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from weights2weights._cache import Cache
from weights2weights.bases import Base, load_base
from weights2weights.subjects import Subject, find_subjects, read_images
from weights2weights.training import PRESETS, DreamBoothConfig
from weights2weights.training._latents import Latents, class_latents, subject_latents
from weights2weights.training._loop import train_batch
from weights2weights.training._progress import ProgressLog

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="people", help="or random-people, random-sd15, a folder")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="default: that of the base")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--images", type=int, default=10, help="of each subject")
    parser.add_argument("--num-class-images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="timed for each rival and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    with TemporaryDirectory() as folder:
        report = measure(given, Path(folder))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(report, indent=2) + "\n")
    print_table(report)
    print(json.dumps(report))


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    dtype = getattr(torch, given.dtype)
    base = open_base(given.base, given.device, dtype, folder)
    small = base.size <= 128
    recipe = PRESETS[given.preset or ("people" if small else "paper")]
    if given.base.startswith("random-"):
        recipe = replace(recipe, start="random")  # such a base brings no other
    timed = replace(recipe, steps=given.steps, num_class_images=given.num_class_images)
    subjects = draw_subjects(folder / "subjects", max(given.batches), given.images, base.size)
    prior = None
    if recipe.prior_loss_weight:
        prior = class_latents(base, timed, Cache(folder / "cache"), progress=True)
    begun = time.perf_counter()
    cold = Cache(folder / "cold")
    latents = [subject_latents(base, timed, subject, cold) for subject in subjects]
    encoding = (time.perf_counter() - begun) / len(subjects)

    plain = PlainRecipe(base, timed, subjects[0])

    def ours(K: int) -> Callable[[int], None]:
        return lambda steps: train_ours(base, replace(timed, steps=steps), latents[:K], prior)

    rivals: dict[str, tuple[int, Callable[[int], None]]] = {"plain": (1, plain.run)}
    rivals |= {f"ours, K={K}": (K, ours(K)) for K in (1, *given.batches)}
    seconds = take_turns({name: run for name, (_, run) in rivals.items()}, timed, given.rounds)
    limit = matmul_rate(given.device, dtype)
    rows = {}
    for name, (K, run) in rivals.items():
        flops = count_flops(run) / K
        rows[name] = figures(seconds[name], K, timed.steps, flops, limit)
        rows[name]["encoding_seconds"] = 0.0 if name == "plain" else encoding
        whole = recipe.steps * rows[name]["seconds_per_subject_step"]
        rows[name]["subjects_per_minute"] = 60 / (whole + rows[name]["encoding_seconds"])
    best = max((name for name in rows if name != "plain"), key=lambda n: rate(rows[n]))
    return {
        "base": given.base,
        "size": base.size,
        "dtype": given.dtype,
        "machine": describe_machine(given.device),
        "recipe": asdict(recipe),
        "steps_timed": given.steps,
        "rounds": given.rounds,
        "matmul_flops_per_second": limit,
        "rivals": rows,
        "best": best,
        "best_times_plain": rate(rows[best]) / rate(rows["plain"]),
        "best_times_plain_by_processor": processor(rows["plain"]) / processor(rows[best]),
        "peak_bytes": peak_bytes(given.device),
    }


class PlainRecipe:
    """DreamBooth of one subject as example scripts do it: everything anew in every step."""

    def __init__(self, base: Base, recipe: DreamBoothConfig, subject: Subject):
        self.base, self.recipe = base, recipe
        self.pixels = read_images(subject, base.size).pixels
        config = peft.LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,  # pyright: ignore[reportArgumentType]
            target_modules=list(recipe.targets),
        )
        unet = copy.deepcopy(base.denoiser)
        unet.set_attn_processor(AttnProcessor())
        self.unet = peft.inject_adapter_in_model(config, unet)
        self.learned = [p for name, p in self.unet.named_parameters() if "lora_" in name]
        for parameter in self.learned:
            parameter.data = parameter.data.float()
        self.generator = torch.Generator().manual_seed(0)

    def run(self, steps: int) -> None:
        """Train for some steps; what was learned before is kept."""
        recipe = self.recipe
        optimiser = torch.optim.AdamW(
            self.learned, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        for _ in range(steps):
            loss = self._loss()
            loss.backward()
            if recipe.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.learned, recipe.max_grad_norm)
            optimiser.step()
            optimiser.zero_grad()

    def _loss(self) -> Tensor:
        base, recipe, generator = self.base, self.recipe, self.generator
        prompts = [recipe.instance_prompt] + (
            [recipe.class_prompt] if recipe.prior_loss_weight else []
        )
        chosen = torch.randint(len(self.pixels), (len(prompts),), generator=generator)
        base._prompts.clear()  # the text encoder runs in every step
        text = base.encode_prompts(prompts)
        with base.autocast():
            latents = base.encode_images(self.pixels[chosen]).float()
        noise = torch.randn(latents.shape, generator=generator).to(base.device)
        timesteps = torch.randint(1000, (len(prompts),), generator=generator).to(base.device)
        noisy, target = (
            f(latents, noise, timesteps) for f in (base.process.noisy, base.process.target)
        )
        with base.autocast():
            predicted = self.unet(noisy, timesteps, **text.tensors).sample
        losses = [F.mse_loss(p.float(), t) for p, t in zip(predicted, target, strict=True)]
        return losses[0] + (recipe.prior_loss_weight * losses[1] if len(losses) > 1 else 0)


def train_ours(
    base: Base, recipe: DreamBoothConfig, latents: Sequence[Latents], prior: Latents | None
) -> None:
    layout = base.layout(recipe.rank, recipe.alpha, recipe.targets)
    subjects = {str(i): one for i, one in enumerate(latents)}
    with TemporaryDirectory() as folder, ProgressLog(None, 1, False) as log:
        train_batch(base, layout, recipe, subjects, prior, Cache(folder), log)


def draw_subjects(folder: Path, subjects: int, images: int, size: int) -> list[Subject]:
    generator = np.random.default_rng(0)
    for i in range(subjects):
        (folder / f"{i:03d}").mkdir(parents=True)
        for j in range(images):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
            image.save(folder / f"{i:03d}" / f"{j}.png")
    return find_subjects(folder)


def open_base(name: str, device: str, dtype: torch.dtype, folder: Path) -> Base:
    """Open a base, or make one of random weights in the size of the people world or of SD 1.5."""
    if not name.startswith("random-"):
        return load_base(name, device, dtype)
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    from weights2weights.worlds import shipped

    torch.manual_seed(0)
    if name == "random-sd15":
        width, layers, length = 768, 12, 77
        unet = diffusers.UNet2DConditionModel(
            sample_size=64, cross_attention_dim=width, attention_head_dim=8
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=512,
        )
    else:
        width, layers, length = 128, 2, 48
        unet, vae = (
            network.from_config(network.load_config(shipped("people", "base") / part))
            for network, part in (
                (diffusers.UNet2DConditionModel, "unet"),
                (diffusers.AutoencoderKL, "vae"),
            )
        )
    tokenizer = spelling_tokenizer(folder, length)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=max(2, width // 64),
            max_position_embeddings=length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    pipe = diffusers.StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return Base.from_pipeline(pipe, name, device, dtype)


def spelling_tokenizer(folder: Path, length: int) -> Any:
    """A CLIP tokenizer that spells: what words are made of does not matter for time."""
    from transformers import CLIPTokenizer

    pieces = [c + end for end in ("", "</w>") for c in LETTERS]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=length)


def take_turns(
    rivals: dict[str, Callable[[int], None]], recipe: DreamBoothConfig, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of every rival in every round, after one that does not count.

    Two clocks: wall and processor. With --threads 1 on a machine that has other work, the latter is
    the one to trust.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for counted in [False] + [True] * rounds:
        for name, run in rivals.items():
            steps = recipe.steps if counted else 2
            synchronise()
            wall, processor = time.perf_counter(), time.process_time()
            run(steps)
            synchronise()
            if counted:
                ends = time.perf_counter() - wall, time.process_time() - processor
                seconds[name].append(ends)
    return seconds


def figures(
    seconds: list[tuple[float, float]], K: int, steps: int, flops: float, limit: float
) -> dict[str, Any]:
    per_step = [wall / steps / K for wall, _ in seconds]
    low, middle, high = quartiles(per_step)
    return {
        "K": K,
        "seconds_per_subject_step": middle,
        "quartiles": [low, high],
        "processor_seconds_per_subject_step": statistics.median(p / steps / K for _, p in seconds),
        "flops_per_subject_step": flops,
        "flops_per_second": flops / middle,
        "fraction_of_matmul": flops / middle / limit,
    }


def rate(row: dict[str, Any]) -> float:
    return row["subjects_per_minute"]


def processor(row: dict[str, Any]) -> float:
    return row["processor_seconds_per_subject_step"]


def count_flops(run: Callable[[int], None]) -> float:
    """Count the FLOPs of one step, forth and back: of two steps minus those of one."""
    totals = []
    for steps in (1, 2):
        with FlopCounterMode(display=False) as counter:
            run(steps)
        totals.append(counter.get_total_flops())
    return totals[1] - totals[0]


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Return the FLOPs per second of a large matrix product: the limit of this machine today."""
    n = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(5):
        synchronise()
        start = time.perf_counter()
        a @ b
        synchronise()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


def synchronise() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def peak_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
        "peft": peft.__version__,
    }


def print_table(report: dict[str, Any]) -> None:
    print(json.dumps(report["machine"]), file=sys.stderr)
    head = f"{'':<14}{'subjects/min':>14}{'ms/subject-step':>17}{'cpu ms':>9}"
    head += f"{'GFLOP':>9}{'of matmul':>11}"
    print(head, file=sys.stderr)
    for name, row in report["rivals"].items():
        print(
            f"{name:<14}{row['subjects_per_minute']:14.3f}"
            f"{1e3 * row['seconds_per_subject_step']:17.2f}{1e3 * processor(row):9.2f}"
            f"{row['flops_per_subject_step'] / 1e9:9.2f}{row['fraction_of_matmul']:11.1%}",
            file=sys.stderr,
        )
    print(f"{report['best']}: {report['best_times_plain']:.1f} × plain", end="", file=sys.stderr)
    print(f" ({report['best_times_plain_by_processor']:.1f} × by processor)", file=sys.stderr)


if __name__ == "__main__":
    main()
