"""The checks of a base, on stand-ins known to be perfect or useless."""

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from experiments.world import __main__ as command
from experiments.world import check
from weights2weights.bases import Base
from weights2weights.worlds.people import PEOPLE
from weights2weights.worlds.scorers import Scorer, ScorerNetwork


def test_scenes_are_recognised_by_their_borders(monkeypatch):
    asked = {prompt: scene for scene, prompt in PEOPLE.scene_prompts.items()}

    def perfect(base, *, prompts, seeds):
        people = [PEOPLE.subject(5, seed) for seed in seeds]
        rows = []
        for prompt in prompts:
            images = [PEOPLE.image(5, seed, 0) for seed in seeds]
            placed = [_at(image, asked[prompt]) for image in images]
            drawn = [PEOPLE.draw(a, b, 64) for a, b in zip(people, placed, strict=True)]
            rows.append(np.stack(drawn))
        return torch.from_numpy(np.stack(rows))[None]

    monkeypatch.setattr(check, "generate", perfect)
    assert check.scene_agreement(Mock(spec=Base, size=64)) >= 0.95

    def shuffled(*arguments, **options):
        return perfect(*arguments, **options).roll(1, dims=1)

    monkeypatch.setattr(check, "generate", shuffled)
    assert check.scene_agreement(Mock(spec=Base, size=64)) <= 0.1


def _at(image, scene):
    return replace(image, scene=scene)


def test_the_command_prints_every_figure_and_fails_if_a_target_is_missed(monkeypatch, capsys):
    good = {"verification_auc": 1.0, "mean_attribute_auc": 0.99}
    figures = {
        "vae_psnr_db": 32.4,
        "renders": good,
        "round_trips": good,
        "attribute_agreement": {
            "mean": 0.918,
            "attributes": {"Bald": {"wanted": 1.0, "opposite": 0.9}},
        },
        "scene_agreement": 1.0,
        "seconds_per_image": 0.17,
    }
    monkeypatch.setattr(command, "check_world", lambda *_, **__: figures)
    command.main(["check", "--out", "unused"])
    assert capsys.readouterr().out.count(" met\n") == len(command.TARGETS)
    figures["seconds_per_image"] = 0.6
    with pytest.raises(SystemExit, match="1 of 7 targets missed: seconds_per_image"):
        command.main(["check", "--out", "unused"])


@pytest.fixture
def reader_of_redness():
    """A scorer whose every attribute is "the upper left pixel is red"."""

    class Red(ScorerNetwork):
        def forward(self, signal):
            logits = 50 * (signal[:, :1, 0, 0] - signal[:, 1:2, 0, 0])
            return signal.mean((2, 3)), logits.expand(-1, len(PEOPLE.label_names))

    return Scorer(Red(len(PEOPLE.label_names)), PEOPLE.label_names)


def test_agreement_counts_wanted_and_opposite_separately(monkeypatch, reader_of_redness):
    def half_right(base, *, prompts, seeds):
        images = torch.zeros(1, 2, len(seeds), 64, 64, 3, dtype=torch.uint8)
        images[0, 0, ::2, ..., 0] = 255  # every second image is as wanted, no opposite one is
        return images + torch.tensor([0, 1, 0], dtype=torch.uint8)

    monkeypatch.setattr(check, "generate", half_right)
    figures, sheet = check.attribute_agreement(
        Mock(spec=Base, size=64), reader_of_redness, list(range(6)), PEOPLE.attribute_prompts
    )
    assert figures["attributes"]["Bald"] == {"wanted": 0.5, "opposite": 1.0}
    assert figures["mean"] == pytest.approx(0.75)
    assert sheet.height >= 64 * len(PEOPLE.label_names)
