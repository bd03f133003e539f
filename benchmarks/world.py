"""Does the base of a world pass its gates? The figures, each beside what is asked of it.

    python benchmarks/world.py --out out/world

Everything is measured on subjects that neither base nor scorers have seen. Images for the eye
(attributes.png, grid.png) and figures.json go to --out. Exits with 1 if a gate is missed.
"""

import argparse
import operator
from pathlib import Path

from weights2weights.worlds import shipped
from weights2weights.worlds.check import check_world

# figure → (at least or at most, how much)
GATES = {
    "vae_psnr_db": (operator.ge, 28.0),
    "renders.verification_auc": (operator.ge, 0.99),
    "round_trips.verification_auc": (operator.ge, 0.98),
    "renders.mean_attribute_auc": (operator.ge, 0.97),
    "round_trips.mean_attribute_auc": (operator.ge, 0.95),
    "attribute_agreement.mean": (operator.ge, 0.90),
    "seconds_per_image": (operator.le, 0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="people")
    parser.add_argument("--base", type=Path, help="default: the shipped one")
    parser.add_argument("--scorer", type=Path, help="default: the shipped one")
    parser.add_argument("--seeds", type=int, default=15, help="images per attribute prompt")
    parser.add_argument("--out", type=Path, default=Path("out/world"))
    given = parser.parse_args()
    figures = check_world(
        given.world,
        given.base or shipped(given.world, "base"),
        given.scorer or shipped(given.world, "scorer"),
        given.out,
        seeds=given.seeds,
    )
    for name, shares in figures["attribute_agreement"]["attributes"].items():
        print(f"{name:<20} wanted {shares['wanted']:.2f}   opposite {shares['opposite']:.2f}")
    print(f"scenes followed {figures['scene_agreement']:.2f}\n")
    missed = []
    for name, (better, gate) in GATES.items():
        value = figures
        for key in name.split("."):
            value = value[key]
        passed = better(value, gate)
        missed += [] if passed else [name]
        print(f"{name:<32} {value:8.4f}   gate {gate:g}   {'passed' if passed else 'MISSED'}")
    if missed:
        raise SystemExit(f"{len(missed)} of {len(GATES)} gates missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
