"""Where spaces come from and go to: folders, the embedded worlds, the Hugging Face hub.

Not `huggingface_hub.ModelHubMixin`, which triples the import time and writes its own `config.json`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._shipped import means_world, shipped
from ..errors import InputError, ResourceError

FILES = CONFIG, TENSORS, MODELS, UPDATES, LABELS, CARD = (
    "config.json",
    "space.safetensors",
    "models.safetensors",
    "updates.safetensors",
    "models.parquet",
    "README.md",
)


def find_space(source: str | Path, **download: Any) -> Path:
    """Return the folder of a space: a local one, an embedded world's, or one from the hub.

    Raises:
        InputError: nothing of that name.
        ResourceError: the hub cannot be reached.
    """
    folder = Path(os.path.expanduser(source))
    if means_world(source, CONFIG):
        folder = shipped(str(source), "space")
        if not folder.is_dir():
            raise InputError(
                f"the embedded world {str(source)!r} has no space in this installation; pass a"
                " folder that w2w fit made, or a hub id (--space FOLDER)"
            )
    if folder.is_dir():
        return folder
    by_path = not isinstance(source, str) or source.startswith((".", "~", "/"))
    if by_path or str(source).count("/") != 1 or folder.exists():
        raise InputError(
            f"space {str(source)!r}: expected an existing folder, a hub id such as someone/space,"
            " or the name of an embedded world that has one (people)"
        )
    from huggingface_hub import snapshot_download

    with _hub_errors(f"space {source!r} is not a folder and cannot be downloaded"):
        return Path(snapshot_download(str(source), allow_patterns=list(FILES), **download))


def upload_space(folder: str, repo_id: str, private: bool | None, token: Any, message: str) -> str:
    """Upload a folder to the hub, creating the repository if absent; return the commit's URL."""
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    with _hub_errors(f"cannot upload to {repo_id!r}"):
        repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
        return str(commit)


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    from huggingface_hub import errors

    http_error: Any = errors.HfHubHTTPError.__bases__[0]  # that of whichever client the hub uses
    try:
        yield
    except (http_error, errors.HFValidationError, OSError) as error:
        wrong = isinstance(error, errors.HFValidationError | errors.RepositoryNotFoundError)
        kind, advice = type(error).__name__, "check the name, the network and `hf auth login`"
        raise (InputError if wrong else ResourceError)(f"{what} ({kind}); {advice}") from error
