"""The shipped space of people: whole, small, of the shipped base, fit to sample and edit."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from experiments.held_out import HELD_OUT
from weights2weights import WeightSpace, find_direction, find_directions, load_base
from weights2weights.cli import main
from weights2weights.directions import edit
from weights2weights.evaluate.demo._stages import POPULATION
from weights2weights.generation import generate
from weights2weights.metrics.verification import verification_auc
from weights2weights.sampling import sample
from weights2weights.space import verify_space
from weights2weights.training import PRESETS
from weights2weights.training._loop import start_weights
from weights2weights.worlds import shipped
from weights2weights.worlds.scorers import Scorer

PEOPLE = PRESETS["people"]


@pytest.fixture(scope="module")
def space():
    return WeightSpace.from_pretrained("people")


def test_the_folder_is_whole_and_small():
    folder = shipped("people", "space")
    assert verify_space(folder) == []
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 20e6


def test_it_belongs_to_the_shipped_base_and_settings(space):
    base = load_base("people")
    assert space.base_hash == base.hash
    layout = base.layout(PEOPLE.rank, PEOPLE.alpha, PEOPLE.targets)
    space.layout.require_equal(layout, "the recipe")
    start = start_weights(base, layout, PEOPLE)
    # all models began there, so their mean is near it where a random A would not be
    of_A = torch.cat([torch.arange(A.start, A.stop) for _, A, _ in layout.slices()])
    assert torch.cosine_similarity(space.mean[of_A], start[of_A], dim=0) > 0.8


def test_held_out_subjects_are_not_in_it(space):
    populations = {int(name.split("-")[1]) for name in space.names}
    assert not any(population >= min(HELD_OUT, POPULATION) for population in populations)
    assert len(space.names) >= 1000


def test_info_describes_it():
    result = CliRunner().invoke(main, ["info", "people", "--json"])
    assert json.loads(result.stdout)["space"] == str(shipped("people", "space"))
    result = CliRunner().invoke(main, ["info", str(shipped("people", "space")), "--json"])
    facts = json.loads(result.stdout)
    assert facts["models"] >= 1000 and facts["numbers"] == 8224
    assert 0.5 < facts["captured_variance"] < 1


def test_its_directions_classify_held_out_models(space):
    some = ("Male", "Bald", "Dark_Skin", "Long_Hair", "Full_Beard", "Eyeglasses", "Wearing_Hat")
    found = find_directions(space, some)
    assert np.mean([direction.auc for direction in found.values()]) > 0.9


def test_sampled_people_are_distinct_and_editable(space):
    base, scorer = (
        load_base("people", dtype=torch.bfloat16),
        Scorer.load(shipped("people", "scorer")),
    )
    points = sample(space, 40, seed=1)  # with fewer, one person moves the AUC
    dark = find_direction(space, "Dark_Skin")
    edited = [edit(points[:8], {dark: strength}) for strength in (3.0, -3.0)]
    weights = space.to_weights(torch.cat([points, *edited]))
    drawn = generate(
        base,
        weights,
        layout=space.layout,
        prompts=PEOPLE.instance_prompt,
        seeds=[0, 1],
        steps=10,
    )
    flat = drawn.flatten(0, 2).numpy()
    seen = scorer.attributes(flat)[:, scorer.label_names.index("Dark_Skin")] > 0.5
    darker, lighter = seen[80:].float().split(16)
    assert darker.mean() >= 0.8
    assert lighter.mean() <= 0.2
    who = torch.arange(40).repeat_interleave(2)
    assert verification_auc(scorer.identity(flat[:80]), who) > 0.9
