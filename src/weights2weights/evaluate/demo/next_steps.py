"""Commands to continue from the demo, on the same base and in the same space."""

import shlex
from pathlib import Path

from ..page import words
from ._stage import Demo


def next_steps(run: Demo) -> dict[str, list[str]]:
    """Return commands that continue from the demo: what they do → the commands."""
    setting = run.setting
    label = "Eyeglasses" if "Eyeglasses" in run.attributes else run.attributes[-1]
    photo, changed = run.out / "models" / "photo.safetensors", run.out / "models/edited.safetensors"
    base = ["--base", setting.base.id] if setting.base.id != setting.world.name else []
    space = ["--space", setting.space_name] if setting.space_name != setting.world.name else []
    prompt = f"{setting.recipe.instance_prompt}, in a forest"
    return {
        f"Edit the person of the photo (“{words(label)}”) and generate an image in another scene": [
            _command("edit", photo, "--set", f"{label}=3", *space, "--out", changed),
            _command("generate", changed, "--prompt", prompt, *base, *space, "--out", "forest.png"),
        ],
        "Train models of your own subjects, from one folder of images each": [
            _command("train", "SUBJECTS", *base, "--out", "loras")
        ],
        "Measure the space": [_command("evaluate", "samples", *space)],
    }


def _command(*words: str | Path) -> str:
    """Return a command with every word quoted for the shell."""
    texts = (word.as_posix() if isinstance(word, Path) else word for word in words)
    return shlex.join(["w2w", *texts])
