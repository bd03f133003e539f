"""Fixtures that all tests share: the tiny networks of `tiny.py`, built once per session."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny


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
