"""Updates of anybody's LoRAs: inner products, sums and recompression."""

import math
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weights2weights.errors import InputError
from weights2weights.formats import write_lora_file
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.updates import compress, gram, products, read_updates, sum_updates, update_of

MODULES = (
    LoRAModule("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", 24, 20),
    LoRAModule("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v", 24, 20),
    LoRAModule("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v", 12, 20),
)


def strangers(count=9, seed=0, modules=MODULES, ranks=(1, 3, 8)):
    """LoRAs of mixed ranks and alphas; every fourth lacks a layer."""
    random = torch.Generator().manual_seed(seed)
    updates = []
    for number in range(count):
        rank, alpha = ranks[number % len(ranks)], (1.0, 27.0, 7.5)[number // 3 % 3]
        layers = modules[:-1] if number % 4 == 3 else modules
        layout = WeightLayout(layers, rank, alpha)
        weights = torch.randn(layout.num_parameters, generator=random)
        updates.append(update_of(layout, weights, f"lora-{number}"))
    return updates


def dense(update, modules=MODULES):
    """The update as one long float64 vector."""
    parts = []
    for module in modules:
        A, B = update.factors.get(
            module.name, (torch.zeros(1, module.in_features), torch.zeros(module.out_features, 1))
        )
        parts.append((update.layout.scale * B.double() @ A.double()).flatten())
    return torch.cat(parts)


def stack_dense(updates):
    return torch.stack([dense(update) for update in updates])


def relative(found, truth):
    """Largest error in units of the product of both norms."""
    size = truth.diagonal().sqrt()
    return float(((found - truth).abs() / size[:, None] / size).max())


def test_gram_is_that_of_the_dense_updates():
    updates = strangers()
    truth = stack_dense(updates)
    assert relative(gram(updates).products, truth @ truth.mT) < 1e-6
    others = strangers(4, seed=1)
    expected = stack_dense(others) @ truth.mT
    assert torch.allclose(products(others, updates), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("ranks", [(1,), (2, 5), (16, 20)])
def test_both_exact_ways_agree_with_the_truth(ranks):
    updates = strangers(8, ranks=ranks)  # rank 16 and more is cheaper by the dense way
    truth = stack_dense(updates)
    assert relative(gram(updates).products, truth @ truth.mT) < 1e-6


def test_small_blocks_change_nothing(monkeypatch):
    whole = gram(strangers()).products
    monkeypatch.setattr("weights2weights.updates._gram._BLOCK_VALUES", 16)
    assert relative(gram(strangers()).products, whole) < 1e-6


def test_the_gauge_does_not_matter():
    random = torch.Generator().manual_seed(3)
    updates = strangers()
    turned = []
    for update in updates:
        factors = {}
        for name, (A, B) in update.factors.items():
            M = torch.eye(len(A)) + 0.3 * torch.randn(len(A), len(A), generator=random)
            factors[name] = (torch.linalg.inv(M.double()) @ A.double()).float(), B @ M
        turned.append(type(update)(update.name, update.layout, factors))
    assert relative(gram(turned).products, gram(updates).products) < 1e-5


def test_order_only_permutes():
    updates = strangers()
    order = torch.randperm(len(updates), generator=torch.Generator().manual_seed(0))
    shuffled = gram([updates[i] for i in order]).products
    assert relative(shuffled, gram(updates).products[order][:, order]) < 1e-6


def test_sketches_stay_within_their_error_and_are_reported():
    modules = tuple(LoRAModule(f"blocks.{i}.to_q", 300, 200) for i in range(12))
    updates = strangers(30, modules=modules, ranks=(8, 40))
    exact = gram(updates)
    assert exact.sketch is None and exact.error == 0
    sketched = gram(updates, operations=exact.operations / 2)
    assert sketched.sketch is not None and sketched.operations < exact.operations
    off = ~torch.eye(30, dtype=torch.bool)
    errors = (sketched.cosines - exact.cosines)[off]
    assert 0 < float(errors.square().mean().sqrt()) < sketched.error < 0.1
    assert torch.equal(sketched.products.diagonal(), exact.products.diagonal())
    assert torch.equal(
        gram(updates, operations=1.0).products, gram(updates, operations=1.0).products
    )


@settings(max_examples=20)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(1, 12))
def test_compression_is_the_best_of_its_rank(into, out, R, rank):
    random = torch.Generator().manual_seed(into + 31 * out + 961 * R)
    A, B = (torch.randn(R, width, generator=random) for width in (into, out))
    near_A, near_B, kept, energy = compress(A, B, rank)
    assert near_A.shape == (rank, into) and near_B.shape == (out, rank)
    whole = B.mT.double() @ A.double()
    values = torch.linalg.svdvals(whole)
    assert math.isclose(energy, float(values.square().sum()), rel_tol=1e-4)
    assert math.isclose(kept, float(values[:rank].square().sum()), rel_tol=1e-4)
    lost = float((near_B.double() @ near_A.double() - whole).square().sum())
    assert lost <= float(values[rank:].square().sum()) + 1e-4 * energy


def test_wide_layers_are_compressed_by_subspace_iteration():
    random = torch.Generator().manual_seed(0)
    A, B = (torch.randn(200, width, generator=random) for width in (150, 120))
    A *= (0.97 ** torch.arange(200.0))[:, None]
    *_, kept, energy = compress(A, B, 8)
    best = torch.linalg.svdvals(B.mT.double() @ A.double())[:8].square().sum()
    assert math.isclose(kept, float(best), rel_tol=1e-3) and kept < energy


def test_sums_are_exact_at_full_rank_and_report_what_a_smaller_one_keeps():
    updates = strangers(4)
    factors = torch.tensor([[1.0, -0.5, 0.0, 2.0], [0.0, 0.0, 1.0, 0.0]])
    layout, weights, kept = sum_updates(updates, factors)
    truth = factors.double() @ stack_dense(updates)
    for row, expected, share in zip(weights, truth, kept, strict=True):
        found = dense(update_of(layout, row))
        assert float((found - expected).norm() / expected.norm()) < 1e-5 and abs(share - 1) < 1e-5
    small, rows, shares = sum_updates(updates, factors, 2)
    for row, expected, share in zip(rows, truth, shares, strict=True):
        found = dense(update_of(small, row))
        lost = float((found - expected).square().sum() / expected.square().sum())
        assert abs(1 - share - lost) < 1e-4 and small.rank == 2


def write_all(folder: Path, updates) -> None:
    for number, update in enumerate(updates):
        layout = update.layout
        tensors = [factor.flatten() for m in layout.modules for factor in update.factors[m.name]]
        kind = ("kohya", "diffusers", "peft")[number % 3]
        name = update.name + (".safetensors" if kind != "peft" else "")
        write_lora_file(folder / name, torch.cat(tensors), layout, kind)


def test_files_of_every_format_give_the_same_updates(tmp_path):
    updates = strangers()
    write_all(tmp_path, updates)
    found, refused = read_updates([tmp_path])
    assert not refused and [u.name for u in found] == [u.name for u in updates]
    assert relative(gram(found).products, gram(updates).products) < 1e-6


def test_rslora_scales_by_the_root_of_the_rank(tmp_path):
    layout = WeightLayout(MODULES, 4, 8.0)
    weights = torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(0))
    for name in ("plain", "rs"):
        write_lora_file(tmp_path / name, weights, layout, "peft")
    config = tmp_path / "rs" / "adapter_config.json"
    config.write_text(config.read_text().replace('"r"', '"use_rslora": true, "r"'))
    found, _ = read_updates([tmp_path])
    plain, rs = found
    assert rs.layout.scale == pytest.approx(8 / math.sqrt(4)) and plain.layout.scale == 2
    assert gram(found).cosines[0, 1] == pytest.approx(1)


def test_bad_files_are_refused_in_one_line_and_the_others_go_on(tmp_path):
    write_all(tmp_path, strangers(4))
    layout = WeightLayout(MODULES, 2, 2.0)
    zero = torch.zeros(layout.num_parameters)
    write_lora_file(tmp_path / "untrained.safetensors", zero, layout, "kohya")
    other = WeightLayout(
        tuple(LoRAModule(m.name, m.in_features + 8, m.out_features) for m in MODULES), 2, 2.0
    )
    write_lora_file(tmp_path / "sdxl.safetensors", torch.ones(other.num_parameters), other, "kohya")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    found, refused = read_updates([tmp_path])
    assert [update.name for update in found] == [f"lora-{i}" for i in range(4)]
    assert len(refused) == 3 and all("\n" not in why for why in refused.values())
    reasons = " ".join(refused.values())
    assert "never trained" in reasons and "another base" in reasons and "bytes" in reasons
    with pytest.raises(InputError, match="none of 1 files"):
        read_updates([tmp_path / "empty.safetensors"])


def test_the_benchmark_checks_its_products_and_merges():
    spec = spec_from_file_location("bench", Path(__file__).parents[1] / "benchmarks/updates.py")
    assert spec is not None and spec.loader is not None
    bench = module_from_spec(spec)
    spec.loader.exec_module(bench)
    layout = WeightLayout(tuple(LoRAModule(f"b.{i}.to_q", 96, 80) for i in range(3)), 16, 16.0)
    loras = bench.random_loras(8, layout)
    assert bench.measure_gram(loras, 1e9)["sketch"] is None
    assert bench.measure_merge(loras, 2)["largest_difference"] < 1e-3
