"""What all tests share: no network, no deadlines, and the tiny networks of `tiny.py`."""

import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from tqdm import tqdm

import tiny

# Some tests fork, and a child hangs in OpenMP if its parent has computed on several threads.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the programs that tests start
# All processes share tqdm's own lock: a child that is killed with it would hang the others.
tqdm.set_lock(threading.RLock())

# A test that forgets to bring its model fails at once instead of asking a hub for it.
os.environ["HF_HUB_OFFLINE"] = "1"

# What tests cache stays out of the user's own folder.
os.environ["W2W_CACHE"] = tempfile.mkdtemp(prefix="w2w-tests-")
atexit.register(shutil.rmtree, os.environ["W2W_CACHE"], ignore_errors=True)

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def tiny_unet() -> Any:
    """A fresh random UNet with real block names."""
    return tiny.unet()


@pytest.fixture
def tiny_pipeline(tmp_path: Path) -> Any:
    """A fresh random `StableDiffusionPipeline`."""
    return tiny.pipeline(tmp_path)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A diffusers folder of the random pipeline; read only."""
    yield tiny.base_folder(tmp_path_factory.mktemp("tiny_base"))
