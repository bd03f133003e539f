"""Where spaces come from and go to: folders, the embedded worlds, the Hugging Face hub.

`huggingface_hub.ModelHubMixin` is not used: it has to be imported to define the class, which takes
twice as long as all other imports of this package, and it writes a `config.json` of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._shipped import means_world, shipped
from ..errors import InputError, ResourceError
from ._store import CARD, CONFIG, LABELS, MODELS, TENSORS


def find_space(source: str | Path, **download: Any) -> Path:
    """Return the folder of a space: a local one, an embedded world's, or one from the hub.

    Raises:
        InputError: nothing of that name.
        ResourceError: the hub cannot be reached.
    """
    folder = Path(source)
    if means_world(source, CONFIG):
        if not shipped(str(source), "space").is_dir():
            raise InputError(
                f"the embedded world {str(source)!r} has no space in this installation; pass a"
                " folder that w2w fit made, or a hub id (--space FOLDER)"
            )
        return shipped(str(source), "space")
    if folder.is_dir():
        return folder
    if not isinstance(source, str) or source.count("/") != 1 or folder.exists():
        raise InputError(
            f"space {str(source)!r}: expected an existing folder, a hub id such as someone/space,"
            " or the name of an embedded world that has one (people)"
        )
    from huggingface_hub import snapshot_download

    wanted = [CONFIG, TENSORS, MODELS, LABELS, CARD]
    with _hub_errors(f"space {source!r} is not a folder and cannot be downloaded"):
        return Path(snapshot_download(source, allow_patterns=wanted, **download))


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
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    http_error: Any = HfHubHTTPError.__bases__[0]  # that of whichever HTTP client the hub uses
    try:
        yield
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise InputError(
            f"{what} ({type(error).__name__}); check the name and `hf auth login`"
        ) from error
    except (http_error, OSError) as error:
        raise ResourceError(
            f"{what} ({type(error).__name__}); check the name, the network and `hf auth login`"
        ) from error
