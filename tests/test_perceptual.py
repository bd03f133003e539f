"""Distances between deep features: that of the world's scorer, and LPIPS."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from weights2weights.errors import W2WError
from weights2weights.metrics.perceptual import Lpips, ScorerDistance
from weights2weights.metrics.protocols import AttributeReader, FeatureNetwork, IdentityScorer
from weights2weights.worlds import load_world, shipped
from weights2weights.worlds.scorers import Scorer


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load(shipped("people", "scorer"))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Four persons, two images of each."""
    world = load_world("people")
    return np.stack(
        [
            [world.draw(world.subject(77, i), world.image(77, i, n), 64) for n in range(2)]
            for i in range(4)
        ]
    )


class Maps:
    """A feature network whose features are given: image number i has features i of each layer."""

    def __init__(self, *layers: torch.Tensor) -> None:
        self.layers = layers

    def features(self, images: np.ndarray) -> tuple[torch.Tensor, ...]:
        return tuple(layer[images[:, 0, 0, 0].astype(int)] for layer in self.layers)


def numbered(*indices: int) -> np.ndarray:
    return np.array(indices, np.uint8)[:, None, None, None].repeat(3, axis=3)


def test_scorer_distance_is_one_minus_the_mean_cosine():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(4, c, s, s, generator=generator) for c, s in ((4, 8), (6, 4))]
    cosines = [
        torch.nn.functional.cosine_similarity(layer[:2], layer[2:], dim=1).mean((1, 2))
        for layer in layers
    ]
    found = ScorerDistance(Maps(*layers)).distance(numbered(0, 1), numbered(2, 3))
    torch.testing.assert_close(found, 1 - sum(cosines) / 2)


def test_equal_and_empty_features_have_no_distance():
    judge = ScorerDistance(Maps(torch.zeros(2, 3, 4, 4)))
    assert judge.distance(numbered(0), numbered(1)).tolist() == [0]


def test_lpips_equals_that_of_torchmetrics(monkeypatch):
    """With its learned weights, over a random classifier of AlexNet's shape."""
    lpips = pytest.importorskip("torchmetrics.functional.image.lpips", reason="needs torchmetrics")

    def alexnet(*_: object, **__: object) -> nn.Sequential:
        shrink = nn.MaxPool2d(3, 2)
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), shrink]
        layers += [nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), shrink]
        for before, after in ((192, 384), (384, 256), (256, 256)):
            layers += [nn.Conv2d(before, after, 3, 1, 1), nn.ReLU()]
        return nn.Sequential(*layers, shrink)

    monkeypatch.setattr(lpips, "_get_tv_model_features", alexnet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = lpips._LPIPS(net="alex", pnet_rand=True).eval()
        signals = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        expected = network(*signals).view(-1)
    judge = Lpips.__new__(Lpips)
    judge._network, judge._device = network, "cpu"
    images = ((signals + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).numpy()
    found = judge.distance(images[0], images[1])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0.02)


def test_the_shipped_scorer_fits_the_protocols(scorer):
    for protocol in (IdentityScorer, AttributeReader, FeatureNetwork):
        assert isinstance(scorer, protocol)


def test_features_are_those_of_the_scorer(scorer, images):
    images = images[:, 0]
    features = scorer.features(images)
    assert [tuple(f.shape[1:]) for f in features] == [
        (32, 32, 32),
        (64, 16, 16),
        (128, 8, 8),
        (192, 4, 4),
    ]
    logits = scorer.network.attributes(features[-1].flatten(1))
    torch.testing.assert_close(logits.sigmoid(), scorer.attributes(images))


def test_scorer_distance_grows_with_the_difference(scorer, images):
    distance = ScorerDistance(scorer)
    first, second = images[:, 0], images[:, 1]
    same = distance.distance(first, first)
    dark = distance.distance(first, (first * 0.9).astype(np.uint8))
    other = distance.distance(first, np.roll(first, 1, axis=0))
    assert same.abs().max() < 1e-6
    assert (dark > 0).all() and (dark < other).all() and (other < 2).all()
    torch.testing.assert_close(distance.distance(first, second), distance.distance(second, first))


def test_no_images_are_an_error(scorer, images):
    with pytest.raises(W2WError, match="at least one pair"):
        ScorerDistance(scorer).distance(images[:0, 0], images[:0, 0])


def test_lpips_without_its_packages_says_how_to_get_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(W2WError, match=r"pip install 'weights2weights\[lpips\]'"):
        Lpips()
