"""As many LoRAs train at once as memory holds, and running out of it is one line."""

import pytest
import torch

from weights2weights import _memory
from weights2weights._memory import loras_that_fit, out_of_memory_explained
from weights2weights.bases import load_base
from weights2weights.errors import ResourceError


def test_batches_are_as_large_as_memory_allows_and_gain_from(tiny_base, monkeypatch):
    base, free = load_base(tiny_base), {"bytes": 2**40}
    monkeypatch.setattr(_memory, "free_memory", lambda _: free["bytes"])
    assert loras_that_fit(base, base.layout(), 1) == 64
    assert loras_that_fit(base, base.layout(), 2) == 32
    fitting = []
    for free["bytes"] in (2**20, 2**24, 2**26):
        fitting.append(loras_that_fit(base, base.layout(), 2))
    assert fitting[0] == 1
    assert fitting == sorted(fitting)
    assert fitting[-1] > fitting[0]


def test_free_memory_is_less_than_all():
    import psutil

    free = _memory.free_memory(torch.device("cpu"))
    assert 2**20 < free < psutil.virtual_memory().total


def test_running_out_of_memory_is_the_machines_failure(tiny_base):
    base = load_base(tiny_base)
    with pytest.raises(ResourceError, match="3 dogs at once do not fit"):  # noqa: SIM117
        with out_of_memory_explained(base, "3 dogs"):
            raise torch.OutOfMemoryError("no")
