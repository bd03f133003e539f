"""The studio's engine: images per second of several users, and how long one of them waits.

    python benchmarks/studio.py --threads 2 --out benchmarks/results/studio.json

Every user asks for one image after the other, each a new person. Two ways: `one by one`, `generate`
behind a lock, as a page without shared batches draws; `shared`, the engine. They take turns within
each round; a figure is the median over rounds. Latency is that of a single user: a draft of 5
steps, and the image of 20 steps that follows.

The images of both ways must agree within one grey level, and those of the engine must have the same
bits alone and in company. The JSON goes to stdout.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from adapter import describe_machine

from weights2weights.bases import load_base
from weights2weights.generation import generate
from weights2weights.space import WeightSpace
from weights2weights.studio import Drawing, Engine
from weights2weights.studio.studio import DRAFT


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--images", type=int, default=3, help="of each user and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latencies", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    base, space = load_base("people"), WeightSpace.from_pretrained("people")
    points = space.sample(given.users * given.images, seed=0)
    prompt = "a photo of sks person"
    asked = [Drawing(row, prompt, seed) for seed, row in enumerate(space.to_weights(points))]
    lock = threading.Lock()

    def alone(one: Drawing) -> np.ndarray:
        options = {"layout": space.layout, "prompts": one.prompt, "seeds": one.seed}
        with lock:
            return generate(base, one.weights, **options)[0, 0, 0].numpy()

    with Engine(base, space) as engine:

        def shared(one: Drawing) -> np.ndarray:
            return engine.draw([one])[0].result()

        ways = {"one by one": alone, "shared": shared}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        found: dict[str, list[np.ndarray]] = {}
        for _ in range(given.rounds):
            for name, way in ways.items():
                began = time.perf_counter()
                found[name] = work(way, asked, given.users)
                rates[name].append(len(asked) / (time.perf_counter() - began))
        check(found, [shared(one) for one in asked[:4]])
        waits = [latency(shared, asked[i % len(asked)]) for i in range(given.latencies)]
    report = {
        "machine": describe_machine("cpu"),
        "threads": given.threads,
        "users": given.users,
        "images per second": {name: statistics.median(values) for name, values in rates.items()},
        "times one by one": statistics.median(
            shared / alone for alone, shared in zip(*rates.values(), strict=True)
        ),
        "draft, median seconds": statistics.median(draft for draft, _ in waits),
        "image, median seconds": statistics.median(image for _, image in waits),
    }
    text = json.dumps(report, indent=2)
    if given.out:
        given.out.write_text(text + "\n")
    print(text)


def work(
    way: Callable[[Drawing], np.ndarray], asked: list[Drawing], users: int
) -> list[np.ndarray]:
    """Let users draw their images at the same time, each one after the other."""
    found: list[np.ndarray | None] = [None] * len(asked)

    def draw(user: int) -> None:
        for number in range(user, len(asked), users):
            found[number] = way(asked[number])

    threads = [threading.Thread(target=draw, args=(user,)) for user in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [image for image in found if image is not None]


def latency(way: Callable[[Drawing], np.ndarray], one: Drawing) -> tuple[float, float]:
    """Return the seconds from a release to the draft, and to the image."""
    began = time.perf_counter()
    way(replace(one, steps=DRAFT))
    draft = time.perf_counter() - began
    way(one)
    return draft, time.perf_counter() - began


def check(found: dict[str, list[np.ndarray]], again: list[np.ndarray]) -> None:
    """Raise SystemExit unless the images are right."""
    one, other = (np.stack(images).astype(int) for images in found.values())
    if np.abs(one - other).max() > 1:
        raise SystemExit("the engine's images are not those of generate")
    if any(not np.array_equal(a, b) for a, b in zip(again, found["shared"], strict=False)):
        raise SystemExit("an image alone has other bits than in company")


if __name__ == "__main__":
    main()
