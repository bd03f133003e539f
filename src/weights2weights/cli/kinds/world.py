"""An embedded world: the base, scorers and space that ship inside the package."""

from typing import Any

_OTHERS = (  # what the other pages know a folder by, and a base
    "manifest.json",
    "config.json",
    "adapter_config.json",
    "pytorch_lora_weights.safetensors",
    "unet",
)


def recognise(place: str) -> bool:
    """Say whether a place is the name of an embedded world, and nothing else of that name."""
    from pathlib import Path

    from ..._shipped import means_world

    return means_world(place, *_OTHERS) and not Path(place).is_file()


def describe(place: str) -> dict[str, Any]:
    """Return the folders of a world's parts, the side of its images in pixels and its labels."""
    from ...bases import load_base
    from ...worlds import load_world, shipped

    base, space = load_base(place), shipped(place, "space")
    return {
        "world": place,
        "folder": shipped(place, "base"),
        "base": base.hash,
        "size": base.size,
        "scorer": shipped(place, "scorer"),
        "space": space if space.is_dir() else None,
        "labels": list(load_world(place).label_names),
    }


def verify(place: str) -> list[str]:
    """Load the base, the scorers and the space, and tell of numbers that are not finite."""
    from ...bases import load_base
    from ...space import verify_space
    from ...worlds import shipped
    from ...worlds.scorers import Scorer

    base, scorer = load_base(place), Scorer.load(shipped(place, "scorer"))
    networks = {
        "unet": base.unet,
        "vae": base.vae,
        "text_encoder": base.text_encoder,
        "scorer": scorer.network,
    }
    space = shipped(place, "space")
    wrong = verify_space(space) if space.is_dir() else []
    return wrong + [
        f"{part}: {name} holds numbers that are not finite; install the package again"
        for part, network in networks.items()
        for name, values in network.state_dict().items()
        if not values.isfinite().all()
    ]
