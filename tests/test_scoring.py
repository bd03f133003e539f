"""Images along a direction, and scores of models from their images."""

import numpy as np
import pytest
import torch

from weights2weights.bases import load_base
from weights2weights.directions import Direction, edit
from weights2weights.errors import W2WError
from weights2weights.generation import generate
from weights2weights.scoring import score_models, traverse
from weights2weights.sheets import image_grid
from weights2weights.space import WeightSpace

OPTIONS = {"steps": 2, "guidance": 1.0}


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(tiny_base)


@pytest.fixture(scope="module")
def space(base) -> WeightSpace:
    layout = base.layout()
    d = layout.num_parameters
    return WeightSpace(layout, torch.zeros(d), torch.ones(d), 0.1 * torch.eye(d)[:3])


def test_a_traversal_shows_models_before_and_after_an_edit(base, space):
    found = Direction("first", torch.tensor([1.0, 0.0]), std=2.0)
    points = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    sheet = traverse(base, space, found, points=points, strengths=(-1, 3), prompt="a", **OPTIONS)
    cells = torch.stack([edit(points, {found: -1}), edit(points, {found: 3})], 1).flatten(0, 1)
    images = generate(base, cells, space=space, prompts="a", seeds=0, **OPTIONS)
    expected = image_grid(images.view(2, 2, *images.shape[-3:]), columns=["-1 σ", "+3 σ"])
    assert np.array_equal(np.asarray(sheet), np.asarray(expected))


def test_scores_are_means_over_all_prompts_and_seeds(base, space):
    drawn = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))

    def red(images):
        assert isinstance(images, np.ndarray)
        assert images.shape == (4, 16, 16, 3)
        return images[..., 0].mean((1, 2))

    scores = score_models(base, space, drawn, red, ["a", "b"], [0, 1], **OPTIONS)
    images = generate(base, drawn, space=space, prompts=["a", "b"], seeds=[0, 1], **OPTIONS)
    expected = images[..., 0].double().flatten(1).mean(1)
    torch.testing.assert_close(scores, expected, rtol=0, atol=0.1)
    with pytest.raises(W2WError, match=r"scores of shape \[\] for 4 images"):
        score_models(base, space, drawn, lambda images: 1.0, ["a", "b"], [0, 1], **OPTIONS)
