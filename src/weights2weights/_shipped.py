"""Where the package holds its embedded worlds, and when a word means one of them."""

from pathlib import Path

WORLDS = Path(__file__).parent / "worlds"


def shipped(world: str, part: str) -> Path:
    """Return the folder in which the package holds a world's "base", "scorer" or "space"."""
    return WORLDS / world / part


def means_world(place: str | Path, *takes: str) -> bool:
    """Say whether a place is the word of an embedded world, and no folder that takes the word.

    `w2w sample people --out people` leaves a folder of that name; only one that holds what is asked
    for is meant in place of the world.

    Args:
        place: as the user typed it.
        takes: names of files or folders, any of which shows that a folder is meant.
    """
    word = str(place)
    if not (word.isidentifier() and shipped(word, "base").is_dir()):
        return False
    return not any((Path(word) / name).exists() for name in takes)
