"""The engine: shared batches that nobody notices, except by their speed."""

import threading
from concurrent.futures import wait
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from weights2weights.bases import load_base
from weights2weights.errors import InputError, ResourceError
from weights2weights.generation import generate, generate_each
from weights2weights.space import WeightSpace
from weights2weights.studio import Drawing, Engine, Photo, Superseded
from weights2weights.studio import engine as rooms


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(tiny_base)


@pytest.fixture(scope="module")
def space(base):
    generator = torch.Generator().manual_seed(0)
    layout = base.layout(alpha=27.0)
    components, _ = torch.linalg.qr(torch.randn(layout.num_parameters, 4, generator=generator))
    mean = 0.1 * torch.randn(layout.num_parameters, generator=generator)
    bare = WeightSpace(layout, mean, torch.ones(len(mean)), components.T, base_hash=base.hash)
    points = torch.randn(6, 4, generator=generator)
    return bare.with_models(points, [f"m{i}" for i in range(6)])


@pytest.fixture(scope="module")
def drawings(space):
    rows = space.to_weights(space.coefficients)
    words = ["a photo", "a forest", "a photo", "", "a beach", "a photo"]
    return [Drawing(row, words[i], seed=i, steps=3) for i, row in enumerate(rows)]


@pytest.fixture
def engine(base, space):
    with Engine(base, space) as engine:
        yield engine


def results(futures):
    assert not wait(futures, 60).not_done
    return [future.result() for future in futures]


class Gate:
    """A `run` for `Batches` that notes its batches and waits to be opened."""

    def __init__(self):
        self.open, self.entered, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, items):
        self.batches.append(items)
        self.entered.set()
        assert self.open.wait(60)
        if "bad" in items:
            raise InputError("a bad one")
        return [f"done {item}" for item in items]

    def busy(self, batches):
        """Return a job that keeps the thread busy until the gate opens."""
        (job,) = batches.submit(["first"], ["x"], [1], None, "")
        assert self.entered.wait(60)
        return job


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def batches(gate):
    batches = rooms.Batches(gate, 3)
    yield batches
    gate.open.set()
    batches.close()


def test_an_image_has_the_same_bits_alone_and_in_company(engine, drawings):
    alone = [results(engine.draw([one]))[0] for one in drawings]
    for order in ([0, 1, 2, 3, 4, 5], [5, 0, 3, 1, 4, 2]):
        for i, image in zip(order, results(engine.draw([drawings[i] for i in order])), strict=True):
            assert np.array_equal(image, alone[i])
    assert len({image.tobytes() for image in alone}) == len(alone)


def test_images_are_those_of_generate(engine, base, space, drawings):
    scene = replace(drawings[1], inject_at=400, original=drawings[0].weights, guidance=2.0)
    plain = replace(drawings[2], inject_at=400, original=None)
    for one in (drawings[0], scene, plain):
        before = None if one.original is None else one.original[None]
        expected = generate(
            base,
            one.weights[None],
            layout=space.layout,
            prompts=one.prompt,
            seeds=one.seed,
            steps=one.steps,
            guidance=one.guidance,
            inject_at=one.inject_at,
            original=before,
        )[0, 0, 0].numpy()
        (image,) = results(engine.draw([one]))
        assert np.abs(image.astype(int) - expected).max() <= 1


def test_each_model_gets_its_own_prompt_and_seed(base, space):
    kinds = {"prompts": ["a photo", "a beach"], "seeds": [3, 4], "space": space, "steps": 2}
    product = generate(base, space.coefficients[:2], **kinds)
    each = generate_each(base, space.coefficients[:2], **kinds)
    for i in range(2):
        assert (each[i].int() - product[i, i, i].int()).abs().max() <= 1
    with pytest.raises(InputError, match="2 prompts, 2 seeds, 3 models"):
        generate_each(base, space.coefficients[:3], **kinds)


def test_requests_of_one_kind_share_a_batch(gate, batches):
    first = gate.busy(batches)
    jobs = [
        *batches.submit(["a1", "b1"], ["a", "b"], [1, 1], "ann", "image"),
        *batches.submit(["a2"], ["a"], [1], "bob", "image"),
        *batches.submit(["a3", "a4"], ["a", "a"], [1, 1], "eve", "strip"),
    ]
    gate.open.set()
    assert results([first, *jobs])[1:] == [f"done {x}" for x in ("a1", "b1", "a2", "a3", "a4")]
    assert gate.batches == [["first"], ["a1", "a2", "a3"], ["b1"], ["a4"]]


def test_the_newest_request_of_a_slot_replaces_older_ones(gate, batches):
    gate.busy(batches)
    old = batches.submit(["old", "old too"], ["a", "b"], [1, 1], "ann", "image")
    kept = batches.submit(["strip"], ["a"], [1], "ann", "strip")
    other = batches.submit(["other"], ["a"], [1], "bob", "image")
    new = batches.submit(["new"], ["a"], [1], "ann", "image")
    gate.open.set()
    assert results([*kept, *other, *new]) == ["done strip", "done other", "done new"]
    for job in old:
        with pytest.raises(Superseded):
            job.result(0)
    assert not any("old" in batch for batch in gate.batches)


def test_what_runs_is_superseded_too(gate, batches):
    gate.busy(batches)
    batches.submit(["warm"], ["a"], [1], None, "")
    gate.open.set()
    gate.entered.clear()
    (running,) = batches.submit(["running"], ["a"], [1], "ann", "image")
    batches.forget("ann")
    with pytest.raises(Superseded):
        running.result(60)


def test_one_bad_request_spoils_no_other(gate, batches):
    gate.busy(batches)
    good, bad, fine = batches.submit(["good", "bad", "fine"], ["a"] * 3, [1] * 3, None, "")
    gate.open.set()
    assert results([good, fine]) == ["done good", "done fine"]
    with pytest.raises(InputError, match="a bad one"):
        bad.result(60)


def test_queues_are_bounded_and_say_how_long(gate, batches, monkeypatch):
    monkeypatch.setattr(rooms, "MOST_WAITING", 40)
    assert batches.seconds_left() == 0
    gate.busy(batches)
    most = rooms.MOST_OF_ONE
    batches.submit(["x"] * most, ["a"] * most, [1] * most, "ann", "strip")
    with pytest.raises(ResourceError, match="too many requests are waiting"):
        batches.submit(["y"], ["a"], [1], "ann", "image")
    with pytest.raises(ResourceError, match="try again"):
        batches.submit(["z"] * 9, ["a"] * 9, [1] * 9, "bob", "strip")
    last = batches.submit(["z"] * 8, ["a"] * 8, [1] * 8, "bob", "strip")
    gate.open.set()
    results(last)
    gate.open.clear()
    gate.entered.clear()
    gate.busy(batches)
    assert batches.seconds_left() > 0


def test_closing_refuses_what_waits(gate):
    batches = rooms.Batches(gate, 3)
    gate.busy(batches)
    (job,) = batches.submit(["x"], ["a"], [1], None, "")
    threading.Timer(0.1, gate.open.set).start()
    batches.close()
    with pytest.raises(Superseded):
        job.result(0)
    with pytest.raises(ResourceError, match="closing"):
        batches.submit(["y"], ["a"], [1], None, "")


def test_photos_are_inverted_while_images_are_drawn(engine, base, drawings):
    seen: list[float] = []
    photo = Image.fromarray(results(engine.draw([drawings[0]]))[0])
    found = engine.invert(Photo(photo, watch=lambda share, point: seen.append(share)), "ann")
    images = results(engine.draw(drawings * 2))
    (point,) = results([found])
    assert point.shape == (4,) and point.abs().max() > 0
    assert seen == sorted(seen) and seen[-1] <= 1
    for image, again in zip(images, results(engine.draw(drawings)), strict=False):
        assert np.array_equal(image, again)
