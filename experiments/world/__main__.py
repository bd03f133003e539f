"""Train the base and the scorers of the embedded world, or measure them.

    python -m experiments.world train --out out/world --minutes 170
    python -m experiments.world check --out out/check

`train` continues where an earlier call stopped and measures what it made. `check` measures the
shipped base, or that of `--work`. Both exit with 1 if a target is missed.
"""

import argparse
import operator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from weights2weights.worlds import shipped
from weights2weights.worlds.people import PEOPLE

from .check import check_world
from .kinds import KINDS
from .recipe import CPU, GPU, train_world
from .training import TimeIsUp

# figure: (at least or at most, target)
TARGETS = {
    "vae_psnr_db": (operator.ge, 28.0),
    "renders.verification_auc": (operator.ge, 0.99),
    "round_trips.verification_auc": (operator.ge, 0.98),
    "renders.mean_attribute_auc": (operator.ge, 0.97),
    "round_trips.mean_attribute_auc": (operator.ge, 0.95),
    "attribute_agreement.mean": (operator.ge, 0.90),
    "seconds_per_image": (operator.le, 0.5),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the two commands."""
    given = _parser().parse_args(arguments)
    if given.command == "train":
        _train(given)
    else:
        _check(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.world",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train base and scorers, then measure them")
    train.add_argument(
        "--out", type=Path, required=True, help="checkpoints, logs, base/, scorers, checks"
    )
    train.add_argument("--recipe", choices=["cpu", "gpu"], default="cpu", help="amount of training")
    train.add_argument("--start-from", metavar="BASE", help="continue from a base, such as people")
    train.add_argument("--device", default="cpu", help="cpu or cuda")
    train.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop with a checkpoint after this time"
    )
    check = commands.add_parser("check", help="measure a base and its scorers")
    check.add_argument("--out", type=Path, required=True, help="figures.json and sheets of images")
    check.add_argument("--work", type=Path, help="--out of train; default: the shipped parts")
    check.add_argument("--kind", choices=KINDS, default="people", help="what --work is asked for")
    check.add_argument("--seeds", type=int, default=15, help="images per attribute prompt")
    return parser


def _train(given: argparse.Namespace) -> None:
    try:
        train_world(
            given.out,
            CPU if given.recipe == "cpu" else GPU,
            start=given.start_from,
            device=given.device,
            minutes=given.minutes,
        )
    except TimeIsUp:
        print(f"stopped after {given.minutes:g} minutes; run the same command to continue")
        return
    for name, kind in KINDS.items():
        parts = given.out / "base", given.out / f"scorer-{name}", given.out / f"check-{name}"
        _report(check_world(*parts, kind))


def _check(given: argparse.Namespace) -> None:
    if given.work:
        kind = KINDS[given.kind]
        base, scorer = given.work / "base", given.work / f"scorer-{given.kind}"
    else:  # the shipped base knows people, and captions without articles
        kind = replace(KINDS["people"], attribute_prompts=PEOPLE.attribute_prompts)
        base, scorer = shipped("people", "base"), shipped("people", "scorer")
    _report(check_world(base, scorer, given.out, kind, seeds=given.seeds))


def _report(figures: dict[str, Any]) -> None:
    """Print every figure next to its target.

    Raises:
        SystemExit: a target is missed.
    """
    for name, fractions in figures["attribute_agreement"]["attributes"].items():
        print(f"{name:<20} wanted {fractions['wanted']:.2f}   opposite {fractions['opposite']:.2f}")
    print(f"scenes followed {figures['scene_agreement']:.2f}\n")
    missed = []
    for name, (better, target) in TARGETS.items():
        value: Any = figures
        for key in name.split("."):
            value = value[key]
        passed = better(value, target)
        missed += [] if passed else [name]
        print(f"{name:<32} {value:8.4f}   target {target:g}   {'met' if passed else 'MISSED'}")
    if missed:
        raise SystemExit(f"{len(missed)} of {len(TARGETS)} targets missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
