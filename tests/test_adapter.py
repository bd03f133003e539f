"""A stack of LoRAs is what PEFT computes one by one, and leaves no trace of itself."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from weights2weights.adapter import Adapter, adapt
from weights2weights.errors import W2WError
from weights2weights.layout import LoRAModule, WeightLayout

K = 8


def random_weights(layout: WeightLayout, rows: int = K, seed: int = 1, size: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(rows, layout.num_parameters, generator=generator)


def run(unet: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    return unet(*inputs, return_dict=False)[0]


def sample(inputs: tuple[Tensor, ...], i: int) -> tuple[Tensor, ...]:
    return tuple(tensor[i : i + 1] for tensor in inputs)


def one_by_one(unet: Any, layout: WeightLayout, rows: Tensor, inputs: Any) -> Tensor:
    """The outputs of a batch whose sample i uses rows[i], each sample alone."""
    outputs = []
    for i, row in enumerate(rows):
        with adapt(unet, layout, row[None]):
            outputs.append(run(unet, sample(inputs, i)))
    return torch.cat(outputs)


def trace(network: nn.Module) -> dict[str, Any]:
    """Everything by which a network's modules could tell that something was done to them."""
    state = {}
    for name, module in network.named_modules():
        state[name, "type"] = type(module)
        for key, value in vars(module).items():
            inside = dict(value) if isinstance(value, dict) else value
            state[name, key] = inside
    for key, value in [*network.named_parameters(), *network.named_buffers()]:
        state[key, "version"] = value._version
        state[key, "bytes"] = value.detach().clone().numpy().tobytes()
    return state


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


@pytest.fixture
def layout(tiny_unet: Any) -> WeightLayout:
    return WeightLayout.from_denoiser(tiny_unet)


@pytest.mark.parametrize("rank", [1, 4])
def test_each_lora_of_a_stack_gives_pefts_own_output_and_gradients(tiny_unet: Any, rank: int):
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    layout = WeightLayout.from_denoiser(tiny_unet, rank=rank, alpha=27.0)
    weights = random_weights(layout).requires_grad_()
    inputs = tiny.unet_inputs(K)
    with adapt(tiny_unet, layout, weights):
        stacked = run(tiny_unet, inputs)
    pull = torch.randn(stacked.shape, generator=torch.Generator().manual_seed(2))
    (stacked * pull).sum().backward()
    assert weights.grad is not None

    peft_unet = copy.deepcopy(tiny_unet)
    config = LoraConfig(r=rank, lora_alpha=27.0, target_modules=list(layout.targets))
    inject_adapter_in_model(config, peft_unet)
    plain = run(tiny_unet, inputs)
    for k in range(K):
        tensors = layout.unflatten(weights.detach()[k])
        keys = {key.removeprefix("base_model.model."): value for key, value in tensors.items()}
        result = set_peft_model_state_dict(peft_unet, keys)
        assert not result.unexpected_keys
        peft_unet.zero_grad()
        alone = run(peft_unet, sample(inputs, k))
        (alone * pull[k : k + 1]).sum().backward()
        gradients = layout.flatten(
            {
                "base_model.model." + name.replace(".default.", "."): parameter.grad
                for name, parameter in peft_unet.named_parameters()
                if "lora_" in name
            }
        )
        assert difference(stacked[k], alone[0]) <= 1e-5
        assert difference(weights.grad[k], gradients) <= 1e-5 * max(1, gradients.abs().max().item())
        assert difference(alone[0], plain[k]) > 1e-2  # these LoRAs do something


INDICES = {
    "in order": [0, 1, 2, 3, 4, 5, 6, 7],
    "equal groups": [0, 0, 1, 1, 2, 2, 3, 3],
    "groups out of order": [5, 5, 5, 5, 2, 2, 2, 2],
    "uneven groups": [0, 0, 0, 4, 4, 7, 7, 7],
    "scattered": [3, 1, 3, 0, 7, 7, 1, 2],
    "one for all": [6, 6, 6, 6, 6, 6, 6, 6],
}


@pytest.mark.parametrize("rows", INDICES.values(), ids=INDICES.keys())
@pytest.mark.parametrize("rank", [1, 3])
def test_every_sample_runs_through_the_lora_that_the_index_says(rank: int, rows: list[int]):
    """On a layer of its own; values and gradients; also when the batch is twice the index."""
    layer = nn.ModuleDict({"to_q": nn.Linear(6, 5)})
    layout = WeightLayout.from_denoiser(layer, targets=["to_q"], rank=rank, alpha=2.0)
    weights = random_weights(layout).requires_grad_()
    x = torch.randn(2 * len(rows), 3, 6, generator=torch.Generator().manual_seed(3))
    for repeats in (1, 2):
        batch = x[: repeats * len(rows)]
        tensors = layout.unflatten(weights[torch.tensor(rows * repeats)])
        A, B = tensors.values()
        expected = layer["to_q"](batch) + 2.0 / rank * batch @ A.mT @ B.mT
        with adapt(layer, layout, weights, torch.tensor(rows)):
            y = layer["to_q"](batch)
        torch.testing.assert_close(y, expected)
        pull = torch.arange(y.numel()).view_as(y) / y.numel()
        gradient, due = (torch.autograd.grad((o * pull).sum(), weights)[0] for o in (y, expected))
        torch.testing.assert_close(gradient, due)


def test_without_index_the_batch_is_k_equal_consecutive_groups(tiny_unet: Any, layout: Any):
    weights, inputs = random_weights(layout, rows=2), tiny.unet_inputs(4)
    with adapt(tiny_unet, layout, weights):
        groups = run(tiny_unet, inputs)
    with adapt(tiny_unet, layout, weights, torch.tensor([0, 0, 1, 1], dtype=torch.int32)):
        torch.testing.assert_close(run(tiny_unet, inputs), groups, rtol=0, atol=0)
    alone = one_by_one(tiny_unet, layout, weights[[0, 0, 1, 1]], inputs)
    assert difference(groups, alone) <= 1e-5


def test_guidance_repeats_the_index(tiny_pipeline: Any):
    """A pipeline's guided image of each sample in a batch is the one it draws alone."""
    unet = tiny_pipeline.unet
    layout = WeightLayout.from_denoiser(unet)
    weights = random_weights(layout, rows=3)
    latents = tiny.unet_inputs(3)[0]

    def draw(latents: Tensor) -> Tensor:
        return tiny_pipeline(
            ["sks person"] * len(latents),
            latents=latents,
            num_inference_steps=2,
            guidance_scale=3.0,
            output_type="pt",
        ).images

    with adapt(unet, layout, weights, torch.arange(3)):
        together = draw(latents)
    for k in range(3):
        with adapt(unet, layout, weights[k : k + 1]):
            assert difference(together[k], draw(latents[k : k + 1])[0]) <= 1e-5
    assert difference(together, draw(latents)) > 1e-2


def test_nothing_is_left_behind(tiny_unet: Any, layout: Any):
    inputs = tiny.unet_inputs(K)
    tiny_unet.enable_gradient_checkpointing()
    plain, before = run(tiny_unet, inputs), trace(tiny_unet)
    names = [name for name, _ in tiny_unet.named_modules()]
    keys = list(tiny_unet.state_dict())

    with adapt(tiny_unet, layout, random_weights(layout)):
        assert not torch.equal(run(tiny_unet, inputs), plain)
        assert [name for name, _ in tiny_unet.named_modules()] == names
        assert list(tiny_unet.state_dict()) == keys
    assert trace(tiny_unet) == before
    assert torch.equal(run(tiny_unet, inputs), plain)

    with pytest.raises(KeyboardInterrupt), adapt(tiny_unet, layout, random_weights(layout)):
        raise KeyboardInterrupt
    assert trace(tiny_unet) == before
    assert torch.equal(run(tiny_unet, inputs), plain)


def test_an_exception_while_entering_leaves_nothing_behind(
    tiny_unet: Any, layout: Any, monkeypatch: pytest.MonkeyPatch
):
    from weights2weights import adapter

    before, calls = trace(tiny_unet), []

    def fail_at_the_third(cls: type) -> type:
        calls.append(cls)
        if len(calls) == 3:
            raise MemoryError
        return original(cls)

    original = adapter._adapted
    monkeypatch.setattr(adapter, "_adapted", fail_at_the_third)
    with pytest.raises(MemoryError), adapt(tiny_unet, layout, random_weights(layout)):
        pass
    assert trace(tiny_unet) == before


def test_weights_are_replaced_without_touching_the_base(tiny_unet: Any, layout: Any):
    inputs = tiny.unet_inputs(4)
    first, second = random_weights(layout, 4, seed=1), random_weights(layout, 2, seed=2)
    base = {key: value.clone() for key, value in tiny_unet.state_dict().items()}
    expected = one_by_one(tiny_unet, layout, second[[0, 0, 1, 1]], inputs)
    with adapt(tiny_unet, layout, first) as adapter:
        run(tiny_unet, inputs)
        adapter.weights = second
        assert adapter.weights is second
        assert difference(run(tiny_unet, inputs), expected) <= 1e-5
        adapter.index = torch.tensor([1, 1, 0, 0])
        flipped = run(tiny_unet, tuple(tensor.flip(0) for tensor in inputs))
        assert difference(flipped.flip(0), expected) <= 1e-5
        adapter.index = None
        assert adapter.index is None
        assert difference(run(tiny_unet, inputs), expected) <= 1e-5
    assert all(torch.equal(base[key], value) for key, value in tiny_unet.state_dict().items())


def test_switched_off_is_the_plain_base(tiny_unet: Any, layout: Any):
    inputs = tiny.unet_inputs(3)
    plain = run(tiny_unet, inputs)
    with adapt(tiny_unet, layout, random_weights(layout, 3)) as adapter:
        on = run(tiny_unet, inputs)
        adapter.enabled = False
        assert not adapter.enabled
        assert torch.equal(run(tiny_unet, inputs), plain)
        run(tiny_unet, sample(inputs, 0))  # any batch will do while it is off
        adapter.enabled = True
        assert torch.equal(run(tiny_unet, inputs), on)


def test_a_leaf_learns_by_steps_in_place(tiny_unet: Any, layout: Any):
    """Several losses per step, an optimiser that writes in place, entry under no_grad."""
    inputs = tiny.unet_inputs(4)
    weights = random_weights(layout, 2).requires_grad_()
    optimizer = torch.optim.SGD([weights], lr=1e-2)
    with torch.no_grad():
        block = adapt(tiny_unet, layout, weights)
        block.__enter__()
    for _ in range(2):
        for _ in range(2):
            run(tiny_unet, inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = run(tiny_unet, inputs)
    block.__exit__(None, None, None)
    assert difference(weights.detach(), random_weights(layout, 2)) > 1e-4
    with adapt(tiny_unet, layout, weights.detach().clone()):
        assert torch.equal(run(tiny_unet, inputs), after)


def test_second_derivatives_of_rank_one_are_refused(tiny_unet: Any, layout: Any):
    """Rather than wrong: what the backward pass keeps is no part of the graph."""
    weights = random_weights(layout, 2).requires_grad_()
    with adapt(tiny_unet, layout, weights):
        loss = run(tiny_unet, tiny.unet_inputs(2)).square().sum()
        (gradient,) = torch.autograd.grad(loss, weights, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_weights_computed_from_coefficients_carry_gradients(tiny_unet: Any, layout: Any):
    components = random_weights(layout, 5, seed=4)
    coefficients = torch.randn(2, 5, generator=torch.Generator().manual_seed(5)).requires_grad_()
    inputs = tiny.unet_inputs(2)
    leaf = (coefficients @ components).detach().requires_grad_()
    with adapt(tiny_unet, layout, leaf):
        run(tiny_unet, inputs).square().sum().backward()
    with adapt(tiny_unet, layout, leaf.detach()) as adapter:
        for _ in range(2):
            coefficients.grad = None
            adapter.weights = coefficients @ components
            run(tiny_unet, inputs).square().sum().backward()
    torch.testing.assert_close(coefficients.grad, leaf.grad @ components.T)


def test_autocast_computes_in_half_precision_and_learns_in_full(tiny_unet: Any, layout: Any):
    inputs = tiny.unet_inputs(4)
    weights = random_weights(layout, 4).requires_grad_()
    with adapt(tiny_unet, layout, weights):
        exact = run(tiny_unet, inputs)
        exact_gradient = torch.autograd.grad(exact.square().sum(), weights)[0]
        with torch.autocast("cpu", torch.bfloat16):
            half = run(tiny_unet, inputs)
        (gradient,) = torch.autograd.grad(half.float().square().sum(), weights)
    plain = run(tiny_unet, inputs)
    assert gradient.dtype == torch.float32
    assert difference(half.float(), exact) < 0.1 * difference(plain, exact)
    assert torch.cosine_similarity(gradient, exact_gradient).min() > 0.99


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_layers_compute_in_their_own_dtype(dtype: torch.dtype):
    unet = tiny.unet().to(dtype)
    layout = WeightLayout.from_denoiser(unet)
    inputs = tuple(t.to(dtype) if t.is_floating_point() else t for t in tiny.unet_inputs(2))
    weights = random_weights(layout, 2)
    with adapt(unet, layout, weights):
        full = run(unet, inputs)
    with adapt(unet, layout, weights.bfloat16()):
        rounded = run(unet, inputs)
    assert full.dtype == rounded.dtype == dtype
    assert difference(full, rounded) < 0.05


@pytest.mark.parametrize("when", ["inside", "replaced", "switched off", "outside", "another on"])
def test_checkpointed_parts_are_recomputed_with_the_weights_they_saw(layout: Any, when: str):
    unet, inputs = tiny.unet(), tiny.unet_inputs(4)
    weights = random_weights(layout, 2).requires_grad_()
    with adapt(unet, layout, weights):
        (expected,) = torch.autograd.grad(run(unet, inputs).square().sum(), weights)

    unet.enable_gradient_checkpointing()
    before = trace(unet)
    other = random_weights(layout, 2, seed=9)
    with adapt(unet, layout, weights) as adapter:
        loss = run(unet, inputs).square().sum()
        if when == "replaced":
            adapter.weights = other
        if when == "switched off":
            adapter.enabled = False
        if when in ("inside", "replaced", "switched off"):
            loss.backward()
        if when == "replaced":
            assert adapter.weights is other
    if when == "outside":
        loss.backward()
    if when == "another on":
        with adapt(unet, layout, other):
            changed = run(unet, inputs)
            loss.backward()
            assert torch.equal(run(unet, inputs), changed)
    torch.testing.assert_close(weights.grad, expected)
    assert trace(unet) == before


class Toy(nn.Module):
    """Two target layers."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_v = nn.Linear(6, 5, bias=False), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_q(x).tanh() + self.to_v(x)


@pytest.mark.gpu
@pytest.mark.parametrize("rank", [1, 4])
def test_an_accelerator_gives_what_the_cpu_gives(tiny_unet: Any, rank: int):
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        pytest.skip("no accelerator")
    layout = WeightLayout.from_denoiser(tiny_unet, rank=rank)
    weights, inputs = random_weights(layout, 4), tiny.unet_inputs(8)
    index = torch.tensor([3, 0, 1, 1])
    with adapt(tiny_unet, layout, weights, index):
        expected = run(tiny_unet, inputs)
        tiny_unet.to(accelerator)  # the weights, on the CPU still, follow
        moved = run(tiny_unet, tuple(tensor.to(accelerator) for tensor in inputs))
    assert difference(moved.cpu(), expected) < 1e-3


def test_disjoint_stacks_on_one_denoiser_do_not_meet(tiny_unet: Any):
    queries, keys = (WeightLayout.from_denoiser(tiny_unet, targets=[t]) for t in ("to_q", "to_k"))
    both = WeightLayout.from_denoiser(tiny_unet, targets=["to_q", "to_k"])
    inputs, before = tiny.unet_inputs(2), trace(tiny_unet)
    first, second = random_weights(queries, 2), random_weights(keys, 2, seed=2)
    together = both.flatten(queries.unflatten(first) | keys.unflatten(second))
    with adapt(tiny_unet, both, together):
        expected = run(tiny_unet, inputs)
    with adapt(tiny_unet, queries, first), adapt(tiny_unet, keys, second):
        assert torch.equal(run(tiny_unet, inputs), expected)
    assert trace(tiny_unet) == before


def enter(denoiser: nn.Module, layout: WeightLayout, *arguments: Any) -> Adapter:
    with adapt(denoiser, layout, *arguments) as adapter:
        return adapter


def test_a_second_stack_on_the_same_layers_is_refused(tiny_unet: Any, layout: Any):
    weights, inputs = random_weights(layout, 2), tiny.unet_inputs(2)
    with adapt(tiny_unet, layout, weights):
        expected = run(tiny_unet, inputs)
        with pytest.raises(W2WError, match=r"already adapted.*leave the first"):
            enter(tiny_unet, layout, weights)
        assert torch.equal(run(tiny_unet, inputs), expected)


def test_layers_that_cannot_be_adapted_are_told(tiny_unet: Any, layout: Any):
    from peft import LoraConfig, inject_adapter_in_model

    name = layout.modules[0].name
    parent = tiny_unet.get_submodule(name.rpartition(".")[0])
    weights, linear = random_weights(layout), parent.to_q
    before = trace(tiny_unet)

    with pytest.raises(W2WError, match=r"Toy lacks 28 of the 28 layers.*such as down_blocks\.0"):
        enter(Toy(), layout, weights)

    parent.to_q = nn.Conv2d(8, 8, 1)
    with pytest.raises(W2WError, match=f"{name} is a Conv2d: expected nn.Linear of 8 to 8"):
        enter(tiny_unet, layout, weights)
    parent.to_q = nn.Linear(8, 4)
    with pytest.raises(
        W2WError, match=f"{name} is a Linear of 8 to 4: expected nn.Linear of 8 to 8"
    ):
        enter(tiny_unet, layout, weights)
    parent.to_q = linear

    linear.forward = lambda x: x
    with pytest.raises(W2WError, match=r"to_q has a forward that was replaced by another library"):
        enter(tiny_unet, layout, weights)
    del linear.forward

    parent.fused_projections = True
    with pytest.raises(W2WError, match=r"unfuse_qkv_projections"):
        enter(tiny_unet, layout, weights)
    parent.fused_projections = False
    assert trace(tiny_unet) == before

    inject_adapter_in_model(LoraConfig(r=1, target_modules=["to_q"]), tiny_unet)
    with pytest.raises(W2WError, match=r"already carries a LoRA of PEFT.*unload_lora_weights"):
        enter(tiny_unet, layout, weights)


def test_weights_and_indices_that_do_not_fit_are_told():
    toy = Toy()
    layout = WeightLayout.from_denoiser(toy)
    weights, d = random_weights(layout, 3), layout.num_parameters
    x = torch.zeros(4, 6)
    with pytest.raises(W2WError, match=rf"shape \(3, {d - 1}\): expected \(K, {d}\)"):
        enter(toy, layout, weights[:, 1:])
    with pytest.raises(W2WError, match=r"shape \(0, "):
        enter(toy, layout, weights[:0])
    with pytest.raises(W2WError, match="from 0 to 3 for 3 LoRAs: expected rows from 0 to 2"):
        enter(toy, layout, weights, torch.tensor([0, 3]))
    with pytest.raises(W2WError, match="from -1 to 0"):
        enter(toy, layout, weights, torch.tensor([0, -1]))
    with pytest.raises(W2WError, match="index of shape"):
        enter(toy, layout, weights, torch.tensor([], dtype=torch.int64))
    with adapt(toy, layout, weights) as adapter:
        with pytest.raises(W2WError, match="batch of 4 for 3 LoRAs: expected a multiple of 3"):
            toy(x)
        adapter.index = torch.tensor([0, 1, 2, 2])
        expected = toy(x)
        with pytest.raises(W2WError, match="batch of 3 for 4 index entries"):
            toy(x[:3])
        with pytest.raises(W2WError, match="for 2 LoRAs"):
            adapter.weights = weights[:2]
        with pytest.raises(W2WError, match="expected rows from 0 to 2"):
            adapter.index = torch.tensor([3])
        assert torch.equal(toy(x), expected)  # a refused value changes nothing


def test_every_error_is_one_line():
    toy = Toy()
    with pytest.raises(W2WError) as raised:
        enter(toy, WeightLayout((LoRAModule("to_k", 1, 1),), 1, 1.0, "sd"), torch.zeros(1, 2))
    assert "\n" not in str(raised.value)
    assert "the layout's base, sd" in str(raised.value)


def test_a_subclass_of_linear_keeps_what_it_computes():
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    layers = nn.ModuleDict({"to_q": Doubled(3, 2, bias=False)})
    layout = WeightLayout.from_denoiser(layers, targets=["to_q"], alpha=1.0)
    x = torch.eye(3)
    with adapt(layers, layout, torch.ones(1, 5)):
        y = layers["to_q"](x)
    torch.testing.assert_close(y, layers["to_q"](x) + 1)
    assert type(layers["to_q"]) is Doubled
