"""Where the package keeps its embedded worlds, and when a name refers to one."""

from pathlib import Path

WORLDS = Path(__file__).parent / "worlds"


def shipped(world: str, part: str) -> Path:
    """Return the folder of a world's "base", "scorer" or "space" in the package."""
    return WORLDS / world / part


def means_world(place: str | Path, *takes: str) -> bool:
    """Return whether a place is the name of an embedded world and not a folder of that name.

    `w2w sample people --out people` creates such a folder; it hides the world only where it holds
    what is asked for.

    Args:
        place: as typed by the user.
        takes: files or folders, any of which marks a folder as the one that is meant.
    """
    word = str(place)
    if not (word.isidentifier() and shipped(word, "base").is_dir()):
        return False
    return not any((Path(word) / name).exists() for name in takes)
