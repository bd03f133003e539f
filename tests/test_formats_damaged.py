"""Damaged and hostile LoRA files: either one clear error, or exactly what the bytes say.

Two thousand files, each a whole LoRA with something done to it, are read. A file that is still
accepted is read a second time with the reference library and compared tensor by tensor, under the
names that it holds.
"""

import json
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from weights2weights.errors import W2WError
from weights2weights.formats import FORMATS, LoRAFile, load_lora, write_lora_file
from weights2weights.formats import _kohya_names as kohya
from weights2weights.layout import LoRAModule, WeightLayout, peft_key

MUTANTS = 2000
BLOCK = "mid_block.attentions.0.transformer_blocks.0"
LAYERS = ("attn1.to_q", "attn1.to_v", "attn2.to_q")
LAYOUT = WeightLayout(
    tuple(LoRAModule(f"{BLOCK}.{layer}", 6, 4) for layer in LAYERS),
    rank=2,
    alpha=27.0,
    base="people",
)  # fmt: skip

# A mutation takes the bytes of a safetensors file and a source of chance.
Mutation = Callable[[bytes, random.Random], bytes]


def split(data: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: object, rest: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + rest


def flip(data: bytes, chance: random.Random, start: int = 0, stop: int | None = None) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        changed[chance.randrange(start, stop or len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def flip_header(data: bytes, chance: random.Random) -> bytes:
    return flip(data, chance, 8, len(data) - len(split(data)[1]))


def flip_number(data: bytes, chance: random.Random) -> bytes:
    return flip(data, chance, len(data) - len(split(data)[1]))


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def lengthen(data: bytes, chance: random.Random) -> bytes:
    return data + chance.randbytes(chance.choice([1, 8, 1000]))


def lie_about_length(data: bytes, chance: random.Random) -> bytes:
    length = chance.choice([0, 1, len(data), 2**16, 2**26, 2**40, 2**63, 2**64 - 1])
    return struct.pack("<Q", max(0, min(length + chance.randrange(-9, 9), 2**64 - 1))) + data[8:]


def not_finite(data: bytes, chance: random.Random) -> bytes:
    header, rest = split(data)
    numbers, at = bytearray(rest), 4 * chance.randrange(len(rest) // 4)
    numbers[at : at + 4] = struct.pack(
        "<f", chance.choice([float("nan"), float("inf"), -float("inf")])
    )
    return join(header, bytes(numbers))


def swap_names(data: bytes, chance: random.Random) -> bytes:
    header, rest = split(data)
    one, two = chance.sample([key for key in header if key != "__metadata__"], 2)
    header[one], header[two] = header[two], header[one]
    return join(header, rest)


def swap_fields(data: bytes, chance: random.Random) -> bytes:
    header, rest = split(data)
    one, two = chance.sample([key for key in header if key != "__metadata__"], 2)
    field = chance.choice(["shape", "data_offsets"])
    header[one][field], header[two][field] = header[two][field], header[one][field]
    return join(header, rest)


def spoil_field(data: bytes, chance: random.Random) -> bytes:
    header, rest = split(data)
    entry = header[chance.choice([key for key in header if key != "__metadata__"])]
    field = chance.choice(["dtype", "shape", "data_offsets"])
    strange = [
        None,
        True,
        -1,
        2**63,
        1.0,
        "F32",
        "F64",
        "I32",
        "\ud800",
        [],
        [0, 0],
        [2, True],
        [1e999],
        {},
    ]
    entry[field] = chance.choice([*strange, [2**62, 4], [10**400], [1] * 5000])
    return join(header, rest)


def rename(data: bytes, chance: random.Random) -> bytes:
    header, rest = split(data)
    key = chance.choice([key for key in header if key != "__metadata__"])
    new = chance.choice(
        [
            "",
            "x",
            key.upper(),
            key * 40,
            key + "\n",
            key.replace("lora", "löra"),
            "\udcff",
            key[:-1],
            "__metadata__",
        ]
    )
    header = {new if name == key else name: entry for name, entry in header.items()}
    return join(header, rest)


def drop(data: bytes, chance: random.Random) -> bytes:
    header, rest = split(data)
    del header[chance.choice(list(header))]
    return join(header, rest)


def say_twice(data: bytes, chance: random.Random) -> bytes:
    header, rest = split(data)
    key = chance.choice(list(header))
    raw = json.dumps(header)[:-1] + f", {json.dumps(key)}: {json.dumps(header[key])}}}"
    return join(raw.encode(), rest)


def spoil_metadata(data: bytes, chance: random.Random) -> bytes:
    header, rest = split(data)
    metadata = header.setdefault("__metadata__", {})
    key = chance.choice([*metadata, "new"])
    value = str(metadata.get(key, "x"))
    middle = chance.randrange(len(value))
    strange = [
        value[:middle],
        value[:middle] + chance.choice('"}{1-\0') + value[middle:],
        1,
        None,
        "[" * 5000,
        "",
    ]
    metadata[key] = chance.choice(strange)
    return join(header, rest)


def nest(data: bytes, chance: random.Random) -> bytes:
    opening = chance.choice([b"[", b'{"a":'])
    return join(b'{"a":' + opening * chance.choice([500, 100_000]), split(data)[1])


def splice(data: bytes, chance: random.Random) -> bytes:
    start, end = sorted(chance.choices(range(len(data)), k=2))
    at = chance.randrange(len(data))
    return data[:at] + data[start:end] + data[at + chance.choice([0, end - start]) :]


MUTATIONS: list[Mutation] = [
    flip, flip_header, flip_number, cut, lengthen, lie_about_length, not_finite, swap_names,
    swap_fields, spoil_field, rename, drop, say_twice, spoil_metadata, nest, splice,
]  # fmt: skip


def weights_file(path: Path) -> Path:
    return path / "adapter_model.safetensors" if path.is_dir() else path


def require_what_the_bytes_say(got: LoRAFile, path: Path) -> None:
    """Compare with the reference library: all tensors, under their names, and every alpha."""
    tensors = safetensors.torch.load_file(weights_file(path))
    ours = got.layout.unflatten(got.weights)
    if got.format == "kohya":
        for key in [key for key in tensors if key.endswith(".alpha")]:
            assert tensors.pop(key).item() == torch.tensor(got.layout.alpha).item()
        renamed = {
            f"lora_unet_{module.name.replace('.', '_')}.lora_{word}.weight": ours[
                peft_key(module.name, part)
            ]
            for module in got.layout.modules
            for part, word in (("A", "down"), ("B", "up"))
        }
        renamed = {key if key in tensors else _ldm(key, tensors): t for key, t in renamed.items()}
    elif got.format == "diffusers":
        with safetensors.safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["lora_adapter_metadata"])
        assert config["unet.lora_alpha"] == got.layout.alpha
        renamed = {
            key.replace("base_model.model.", "unet."): tensor for key, tensor in ours.items()
        }
    else:
        config = json.loads((path / "adapter_config.json").read_text())
        assert config["lora_alpha"] == got.layout.alpha
        renamed = ours
    assert renamed.keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in renamed.items())


def _ldm(key: str, tensors: dict) -> str:
    """Find the key that only another spelling can explain."""
    (other,) = [
        k
        for k in tensors
        if kohya.dotted(k[10:].split(".")[0]) == kohya.dotted(key[10:].split(".")[0])
    ]
    return other


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    weights = torch.randn(LAYOUT.num_parameters, generator=torch.Generator().manual_seed(0))
    return {
        kind: weights_file(
            write_lora_file(folder / f"{kind}{ending}", weights, LAYOUT, kind)
        ).read_bytes()
        for kind, ending in (("peft", ""), ("diffusers", ".safetensors"), ("kohya", ".safetensors"))
    }


def test_mutants_are_refused_in_one_line_or_read_as_they_are(tmp_path, originals):
    paths = {
        kind: write_lora_file(
            tmp_path / ("peft" if kind == "peft" else f"{kind}.safetensors"),
            torch.ones(LAYOUT.num_parameters),
            LAYOUT,
            kind,
        )
        for kind in FORMATS
    }
    accepted = refused = 0
    for seed in range(MUTANTS):
        chance = random.Random(seed)
        kind, mutate = FORMATS[seed % 3], MUTATIONS[seed // 3 % len(MUTATIONS)]
        path = paths[kind]
        weights_file(path).unlink()  # some file systems flush a file that is overwritten
        weights_file(path).write_bytes(mutate(originals[kind], chance))
        try:
            got = load_lora(path)
        except W2WError as error:
            refused += 1
            message = str(error)
            assert message.startswith(f"{path}: "), (seed, mutate)
            assert message.isprintable() and len(message) < 1500, (seed, mutate)
        else:
            accepted += 1
            require_what_the_bytes_say(got, path)
    assert accepted + refused == MUTANTS
    assert accepted > MUTANTS // 20, "some mutations leave a LoRA, and they must be read"
    assert refused > MUTANTS // 2


def test_mutants_of_a_config_are_refused_or_read_as_they_are(tmp_path):
    path = write_lora_file(tmp_path / "adapter", torch.ones(LAYOUT.num_parameters), LAYOUT, "peft")
    config = path / "adapter_config.json"
    original = config.read_bytes()
    for seed in range(300):
        chance = random.Random(seed)
        config.unlink()
        config.write_bytes(chance.choice([flip, cut, splice])(original, chance))
        try:
            got = load_lora(path)
        except W2WError as error:
            assert str(error).isprintable() and len(str(error)) < 1500, seed
        else:
            assert json.loads(config.read_bytes())["lora_alpha"] == got.layout.alpha


PEAK = """
import resource, sys, torch
torch.isfinite(torch.aminmax(torch.ones(3))[0])  # code that torch loads at its first use

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""

HOSTILE = """
import struct
from pathlib import Path
from weights2weights.errors import W2WError
from weights2weights import _safetensors
from weights2weights.formats import load_lora

folder, room = Path(sys.argv[1]), _safetensors.MAX_HEADER
header = lambda unit, end: b'{"a":[' + unit * ((room - 20) // len(unit)) + end
hostile = {
    "lists": header(b"[],", b"0]}"),
    "objects": header(b'{"":0},', b"0]}"),
    "numbers": header(b"0.5,", b"0]}"),
    "integers": header(b"300,", b"0]}"),
    "names": b"{" + b",".join(b'"%x":{}' % i for i in range(room // 12)) + b"}",
    "text": b'{"__metadata__":{"a":"' + b"\\\\u0100" * (room // 7) + b'"}}',
    "wide": '{"__metadata__":{"a":"'.encode() + "\\U0001f600".encode() * (room // 5) + b'"}}',
}
for name, raw in hostile.items():
    assert len(raw) <= room, name
    (folder / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
(folder / "claims.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
before = peak()
for name in [*hostile, "claims"]:
    try:
        load_lora(folder / f"{name}.safetensors")
        raise SystemExit(f"{name} was accepted")
    except W2WError:
        pass
print(peak() - before)
"""

READ = """
from weights2weights.formats import load_lora

before = peak()
load_lora(sys.argv[1])
print(peak() - before)
"""


def peak_of(code: str, path: Path) -> int:
    """Run code in a process of its own and give the bytes by which its memory has grown."""
    command = [sys.executable, "-c", PEAK + code, str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
@pytest.mark.timeout(600)  # seven headers of 4 MB each, in a process of its own
def test_hostile_headers_take_less_than_200_mb(tmp_path):
    assert peak_of(HOSTILE, tmp_path) < 200e6


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_numbers_are_held_once_while_a_file_is_read(tmp_path):
    layout = WeightLayout((LoRAModule("mid_block.attentions.0.proj_in", 10**6, 10**6),), 8, 27.0)
    weights = torch.ones(layout.num_parameters, dtype=torch.float16)
    path = write_lora_file(tmp_path / "large.safetensors", weights, layout, "kohya")
    assert peak_of(READ, path) < path.stat().st_size + 20e6
    path.unlink()
