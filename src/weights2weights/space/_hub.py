"""Where spaces come from and go to: folders, the embedded worlds, the Hugging Face hub.

`huggingface_hub.ModelHubMixin` is not used: it must be imported to define a class, which takes
longer than the rest of the package, and it writes a `config.json` of its own.
"""

from pathlib import Path
from typing import Any

from .._shipped import means_world, shipped
from ..errors import InputError, ResourceError, W2WError
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
    import huggingface_hub

    wanted = [CONFIG, TENSORS, MODELS, LABELS, CARD]
    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=wanted, **download))
    except Exception as error:
        raise _failure(
            error, f"space {source!r} is not a folder and cannot be downloaded"
        ) from error


def upload_space(
    folder: str | Path, repo_id: str, *, private: bool | None, token: Any, commit_message: str
) -> str:
    """Upload a folder to the hub, creating the repository if absent; return the commit's URL.

    Raises:
        InputError: the hub knows no such name.
        ResourceError: the hub cannot be reached or refuses.
    """
    import huggingface_hub

    hub = huggingface_hub.HfApi(token=token)
    try:
        repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        return str(
            hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
        )
    except Exception as error:
        raise _failure(error, f"cannot upload to {repo_id!r}") from error


def _failure(error: Exception, what: str) -> W2WError:
    """Return the error to raise for one of the hub's; re-raise what is not the hub's."""
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError | errors.RepositoryNotFoundError):
        return InputError(f"{what} ({type(error).__name__}); check the name and `hf auth login`")
    if isinstance(error, errors.HfHubHTTPError | errors.LocalEntryNotFoundError | OSError):
        return ResourceError(
            f"{what} ({type(error).__name__}); check the name, the network and `hf auth login`"
        )
    raise error
