"""Who is in a photo: face detection by YuNet and recognition by SFace, through OpenCV.

OpenCV's extra is `faces`; `download_face_models` fetches the networks (0.2 MB, MIT licence, and
39 MB, Apache-2.0). Many places require consent for recognising people by their faces. Scores are
not comparable with the paper's, which were measured with MTCNN and FaceNet.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from .._files import checksum
from ..errors import InputError, ResourceError

DETECTOR = "face_detection_yunet_2023mar.onnx"
RECOGNISER = "face_recognition_sface_2021dec.onnx"

_EMBEDDING = 128
# YuNet is trained on faces of 10 to 300 px; larger images are reduced to this size for detection.
_LONGEST_SIDE = 320

_SOURCES = {  # hub repository, SHA-256
    DETECTOR: (
        "opencv/face_detection_yunet",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
    RECOGNISER: (
        "opencv/face_recognition_sface",
        "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
    ),
}


class FaceScorer:
    """An `IdentityScorer` for photos of people.

    Attributes:
        detector: with `setInputSize` and `detect`, as `cv2.FaceDetectorYN`.
        recogniser: with `alignCrop` and `feature`, as `cv2.FaceRecognizerSF`.
    """

    def __init__(self, detector: Any, recogniser: Any):
        self.detector, self.recogniser = detector, recogniser

    @classmethod
    def load(cls, folder: str | Path, *, threshold: float = 0.7) -> "FaceScorer":
        """Load the two networks.

        Args:
            folder: of `download_face_models`.
            threshold: detection score, from 0 to 1, above which something counts as a face.

        Raises:
            InputError: OpenCV or a file is missing, or OpenCV cannot read it.
        """
        try:
            import cv2  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError(
                "face recognition needs OpenCV: pip install 'weights2weights[faces]'"
            ) from error
        paths = [Path(folder) / name for name in (DETECTOR, RECOGNISER)]
        if missing := [path for path in paths if not path.is_file()]:
            raise InputError(f"{missing[0]} is missing; fetch it with download_face_models")
        size = (_LONGEST_SIDE, _LONGEST_SIDE)
        try:
            detector = cv2.FaceDetectorYN.create(str(paths[0]), "", size, score_threshold=threshold)
            return cls(detector, cv2.FaceRecognizerSF.create(str(paths[1]), ""))
        except cv2.error as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"OpenCV cannot read the networks in {folder} ({reason})") from error

    def identity(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n e"]:
        """Return unit-length embeddings of the largest face in each image, NaN if there is none.

        Measures of such rows are NaN; `confidence.mean_interval` leaves them out and counts them.
        """
        rows = torch.full((len(images), _EMBEDDING), torch.nan)
        for row, image in zip(rows, images, strict=True):
            bgr = np.ascontiguousarray(image[..., ::-1])  # OpenCV's order of colours
            faces = self.faces(bgr)
            if len(faces):
                largest = faces[np.argmax(faces[:, 2] * faces[:, 3])]
                aligned = self.recogniser.alignCrop(bgr, largest)
                row.copy_(torch.from_numpy(np.array(self.recogniser.feature(aligned))).flatten())
        return F.normalize(rows, dim=-1)

    def faces(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "faces 15"]:
        """Return all faces of an image (blue, green, red): box, five landmarks, score.

        The first 14 values are pixels: left, top, width, height, then x and y of right eye, left
        eye, nose tip, right and left corner of the mouth.
        """
        height, width = image.shape[:2]
        scale = min(1.0, _LONGEST_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        reduced = np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        self.detector.setInputSize(size)
        found = self.detector.detect(reduced)[1]
        found = np.zeros((0, 15), np.float32) if found is None else np.array(found, np.float32)
        found[:, :14:2] *= width / size[0]
        found[:, 1:14:2] *= height / size[1]
        return found


def download_face_models(folder: str | Path) -> Path:
    """Download the two ONNX files from OpenCV's repositories on the Hugging Face hub.

    Files that are already there and intact are kept.

    Returns:
        the folder, for `FaceScorer.load`.

    Raises:
        ResourceError: a file cannot be downloaded.
        InputError: a file does not have the expected checksum.
    """
    from huggingface_hub import hf_hub_download

    folder = Path(folder)
    for name, (repository, digest) in _SOURCES.items():
        path = folder / name
        if path.is_file() and checksum(path) == digest:
            continue
        try:
            path = Path(hf_hub_download(repository, name, local_dir=folder))
        except OSError as error:
            raise ResourceError(
                f"cannot download {name} from huggingface.co/{repository} ({error}); put it into"
                f" {folder} by hand"
            ) from error
        if (found := checksum(path)) != digest:
            raise InputError(
                f"{path} has SHA-256 {found}, expected {digest}; delete it and download it again"
            )
    return folder
