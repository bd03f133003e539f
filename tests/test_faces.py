"""Faces in photos: the largest counts, in the coordinates of the image; NaN without one.

The networks are replaced by stand-ins with OpenCV's interface, since no file of theirs is shipped.
"""

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from weights2weights.errors import ResourceError, W2WError
from weights2weights.metrics import faces
from weights2weights.metrics.confidence import mean_interval
from weights2weights.metrics.faces import FaceScorer, download_face_models
from weights2weights.metrics.protocols import IdentityScorer
from weights2weights.metrics.verification import id_score


class Spots:
    """Detects spots of one bright colour as faces, in OpenCV's format."""

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = size

    def detect(self, image: np.ndarray) -> tuple[int, np.ndarray | None]:
        assert image.shape[:2] == self.size[::-1] and image.flags.c_contiguous
        rows = []
        for channel in range(3):
            y, x = np.nonzero(image[..., channel] > 128)
            if len(y):
                left, top = x.min(), y.min()
                box = [left, top, x.max() + 1 - left, y.max() + 1 - top]
                rows.append([*box, *([left, top] * 5), 0.9])
        return 1, np.array(rows, np.float32) if rows else None


class Middle:
    """Recognises a face by the colour in the middle of its box."""

    def alignCrop(self, image: np.ndarray, face: np.ndarray) -> np.ndarray:
        x, y, w, h = face[:4]
        return image[int(y + h / 2), int(x + w / 2)]

    def feature(self, aligned: np.ndarray) -> np.ndarray:
        return np.resize(aligned.astype(np.float32), (1, 128))


def image(*spots: tuple[int, int, int, int], side: int = 100) -> np.ndarray:
    """Black, with a square (channel, left, top, width) for each face."""
    image = np.zeros((side, side, 3), np.uint8)
    for channel, left, top, width in spots:
        image[top : top + width, left : left + width, channel] = 255
    return image


@pytest.fixture
def scorer() -> FaceScorer:
    return FaceScorer(Spots(), Middle())


def test_the_largest_face_counts(scorer):
    assert isinstance(scorer, IdentityScorer)
    alone = image((0, 10, 10, 40))
    in_company = image((0, 50, 50, 40), (1, 5, 5, 20))
    somebody_else = image((0, 50, 50, 20), (1, 5, 5, 40))
    embeddings = scorer.identity(np.stack([alone, in_company, somebody_else]))
    assert embeddings.shape == (3, 128)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert float(embeddings[0] @ embeddings[1]) == pytest.approx(1)
    assert float(embeddings[0] @ embeddings[2]) == pytest.approx(0, abs=1e-6)


def test_images_without_a_face_are_nan_and_counted(scorer):
    images = np.stack([image((0, 10, 10, 40)), image()])
    embeddings = scorer.identity(images)
    assert embeddings[1].isnan().all() and not embeddings[0].isnan().any()
    interval = mean_interval(id_score(embeddings, embeddings))
    assert (interval.mean, interval.missing) == (pytest.approx(1), 1)


def test_large_images_are_reduced_and_boxes_scaled_back(scorer):
    found = scorer.faces(image((2, 400, 100, 200), side=960))
    assert scorer.detector.size == (320, 320)
    np.testing.assert_allclose(found[0, :4], [400, 100, 200, 200], atol=6)
    np.testing.assert_allclose(found[0, 4:14], [400, 100] * 5, atol=6)
    assert found[0, 14] == pytest.approx(0.9)


def test_colours_reach_the_networks_in_opencvs_order(scorer):
    red = image((0, 10, 10, 40))
    expected = torch.tensor([0.0, 0.0, 1.0]) / (128 // 3) ** 0.5
    torch.testing.assert_close(scorer.identity(red[None])[0, :3], expected)


def test_missing_packages_and_files_are_errors(monkeypatch, tmp_path):
    fake = SimpleNamespace(error=RuntimeError)
    monkeypatch.setitem(sys.modules, "cv2", fake)
    with pytest.raises(W2WError, match=r"yunet.*is missing; fetch it with download_face_models"):
        FaceScorer.load(tmp_path)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(W2WError, match=r"pip install 'weights2weights\[faces\]'"):
        FaceScorer.load(tmp_path)


def test_files_that_opencv_cannot_read_are_errors(tmp_path):
    pytest.importorskip("cv2", reason="needs the extra `faces`")
    for name in (faces.DETECTOR, faces.RECOGNISER):
        (tmp_path / name).write_bytes(b"no network")
    with pytest.raises(W2WError, match="OpenCV cannot read the networks"):
        FaceScorer.load(tmp_path)


def test_downloads_are_checked(monkeypatch, tmp_path):
    import huggingface_hub

    def fetch(repository: str, name: str, local_dir: Path) -> str:
        asked.append(repository)
        (local_dir / name).write_bytes(name.encode())
        return str(local_dir / name)

    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with pytest.raises(W2WError, match="expected 8f2383e4"):
        download_face_models(tmp_path)
    sums = {
        name: (repository, hashlib.sha256(name.encode()).hexdigest())
        for name, (repository, _) in faces._SOURCES.items()
    }
    monkeypatch.setattr(faces, "_SOURCES", sums)
    assert download_face_models(tmp_path) == tmp_path
    assert asked == ["opencv/face_detection_yunet", "opencv/face_recognition_sface"]


def test_no_connection_is_an_error(tmp_path):
    with pytest.raises(ResourceError, match="cannot download"):
        download_face_models(tmp_path)
