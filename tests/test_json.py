"""JSON: values are cleaned in one way and spelled in one way."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from weights2weights._json import canonical_json, plain
from weights2weights.errors import W2WError


@dataclass(frozen=True)
class Config:
    path: Path
    betas: tuple[float, float]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (np.float64("inf"), None),
        (torch.tensor([1.0, torch.nan]), [1.0, None]),
        (np.int64(3), 3),
        (np.bool_(True), True),
        ({"b", "a"}, ["a", "b"]),
        (range(2), [0, 1]),
        ({1: Path("a/b")}, {"1": "a/b"}),
        ([Config(Path("x"), (0.5, 1.0))], [{"path": "x", "betas": [0.5, 1.0]}]),
    ],
)
def test_plain_values(value, expected):
    assert plain(value) == expected
    json.loads(canonical_json(plain(value)))


def test_other_kinds_of_values_are_refused():
    with pytest.raises(W2WError, match="cannot write a bytes as JSON"):
        plain({"a": [b"bytes"]})


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", {"path": Path("x")}, "\udcff"])
def test_what_json_cannot_hold(value):
    with pytest.raises(W2WError, match="JSON cannot hold"):
        canonical_json(value)


def test_json_has_one_spelling():
    value = {"b": [1, 2.5, None], "a": {"é": True}}
    text = canonical_json(value)
    assert text == canonical_json({"a": {"é": True}, "b": [1, 2.5, None]})
    assert text.decode().startswith('{\n "a": {\n  "é": true')
    assert text.endswith(b"}\n")
