"""The study of strangers' LoRAs: its measures, on what is known."""

import pytest
import torch

from experiments.updates import disguise, entries_kernel, held_out_auc, labels_of, same_person
from test_updates import strangers
from weights2weights.formats import load_lora, write_lora_file
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.updates import gram, read_updates


def test_held_out_auc_finds_what_is_there_and_nothing_else():
    import pandas

    random = torch.Generator().manual_seed(0)
    rows = torch.randn(80, 6, generator=random, dtype=torch.float64)
    noise = torch.randn(80, generator=random) > 0
    labels = pandas.DataFrame({"there": (rows[:, 0] > 0).numpy()})
    assert held_out_auc(rows @ rows.mT, labels, 0.1) > 0.95
    assert 0.3 < held_out_auc(rows @ rows.mT, pandas.DataFrame({"no": noise.numpy()}), 0.1) < 0.7


def test_disguise_changes_the_file_and_not_the_update(tmp_path):
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn"
    names = [f"{path}{i}.to_{part}" for i in (1, 2) for part in "kqv"]
    layout = WeightLayout(tuple(LoRAModule(name, 8, 6) for name in names), 4, 27.0)
    weights = torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(0))
    for number in (2, 3, 17):
        name = f"people-17-{number:05d}.safetensors"
        write_lora_file(tmp_path / name, weights, layout, "diffusers")
        disguise(tmp_path / name, tmp_path / "loras" / name)
    found, _ = read_updates([tmp_path / "loras"])
    assert [
        load_lora(tmp_path / "loras" / f"people-17-{n:05d}.safetensors").format for n in (2, 3, 17)
    ] == ["diffusers", "kohya", "kohya"]
    assert len(found[2].factors) == 2 and found[1].layout.alpha == 5.0
    assert float(gram(found).cosines[0, 1]) == pytest.approx(1, abs=1e-6)


def test_numbers_of_one_layout_have_a_kernel():
    kernel = entries_kernel(strangers(6, ranks=(3,))[:3])
    assert kernel.shape == (3, 3) and float(kernel.sum()) == pytest.approx(0, abs=1e-2)


def test_one_person_is_told_from_another():
    who = torch.nn.functional.one_hot(torch.arange(3), 4).float()[:, None].repeat(1, 2, 1)
    assert same_person(who) == {"verification_auc": 1, "within": 1, "between": 0}
    assert labels_of(["people-17-00000"])["Male"].dtype == bool
