"""`w2w info` and `w2w verify`: what a file or folder holds, and whether it is sound."""

from typing import Any

from click import argument

from ._output import Outcome, verb


@verb("info")
@argument("path")
def info_command(path: str) -> Outcome:
    """Report what a file or folder holds.

    PATH is a LoRA (PEFT folder, diffusers or kohya file), a dataset, a space, a model, or the name
    of an embedded world.

    \b
    Example: w2w info somebody.safetensors
    """
    from ..inspection import info

    facts = info(path)
    return Outcome(facts, _brief(facts))


def _brief(value: Any) -> Any:
    """Shorten texts to 100 letters; headers are written by strangers."""
    if isinstance(value, dict):
        return {_brief(name): _brief(item) for name, item in value.items()}
    return value[:99] + "…" if isinstance(value, str) and len(value) > 100 else value


@verb("verify")
@argument("path")
def verify_command(path: str) -> Outcome:
    """Check every checksum, shape and value of a file or folder.

    PATH is what w2w info takes. Prints one line per problem on stderr and exits with 1 if there is
    any.

    \b
    Example: w2w verify somebody.safetensors
    """
    from ..inspection import verify

    problems = verify(path)
    facts = {"path": path, "sound": not problems, "problems": problems}
    lines = [f"Error: {problem}" for problem in problems]
    return Outcome(facts, "" if problems else f"{path}: sound", lines)
