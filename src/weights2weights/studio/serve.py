"""The server: settings that keep one visitor's things from all others, and the API."""

import base64
import os
from pathlib import Path
from typing import Any

from ..bases import Base
from ..space import WeightSpace
from . import texts
from .page import CSS, Page, reported
from .state import to_recipe
from .studio import MOST_BYTES, Session, Studio


def serve(
    base: Base,
    space: WeightSpace,
    *,
    space_name: str = "people",
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: tuple[str, str] | None = None,
    wait: bool = True,
) -> tuple[Studio, Any]:
    """Serve the studio.

    Args:
        base: draws the images.
        space: of the people.
        space_name: how the lines that repeat a state name the space.
        host: address to listen on; the default answers this machine only.
        port: to listen on; 0 takes a free one.
        auth: user and password that visitors need.
        wait: return only when the server ends.

    Returns:
        the studio and the page; close both.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    studio = Studio(base, space, space_name)
    os.environ["GRADIO_TEMP_DIR"] = str(studio.root / "uploads")
    import gradio
    from gradio import themes

    gradio.set_static_paths(studio.root)  # served as they are; the names are unguessable
    page = Page(studio).build()
    with page:
        add_api(studio)
    page.queue(max_size=1000, default_concurrency_limit=None)
    fonts = ["system-ui", "sans-serif"]
    theme = themes.Soft(primary_hue="rose", font=fonts, font_mono=["monospace"])
    page.launch(
        server_name=host, server_port=port or None, auth=auth, share=False, theme=theme, css=CSS,
        run_history=False, enable_monitoring=False, max_file_size=MOST_BYTES, ssr_mode=False,
        footer_links=["api"], prevent_thread_lock=True, quiet=True, allowed_paths=[],
    )  # fmt: skip
    if wait:
        print(f"{texts.TITLE}: {page.local_url}", flush=True)
        try:
            page.block_thread()
        finally:
            page.close()
            studio.close()
    return studio, page


def add_api(studio: Studio) -> None:
    """Add the documented endpoints; each works on the caller's own session."""
    from gradio import Request
    from gradio.events import api

    async def answer(session: Session) -> dict:
        frames = [picture async for picture, final in studio.frames(session)]
        recipe = to_recipe(session.history.state, studio.models)
        return {"image": _packed(frames[-1]), "recipe": recipe.decode()}

    async def sample(request: Request, seed: int = 0) -> dict:
        """Sample a new person. Returns the image (base64 of a PNG) and the recipe."""
        session = studio.open(request.session_hash)
        session.change(person=studio.sampled(int(seed) % 2**32), other=None, share=0.0)
        return await answer(session)

    async def change(request: Request, changes: dict) -> dict:
        """Change any fields of the recipe: set, keep, prompt, seed, steps, guidance, share."""
        session = studio.open(request.session_hash)
        session.history = session.history.add(studio.changed(session.history.state, changes))
        return await answer(session)

    async def restore(request: Request, recipe: str) -> dict:
        """Restore a recipe. Returns the image and the recipe."""
        session = studio.open(request.session_hash)
        session.history = session.history.add(studio.restore(recipe.encode()))
        return await answer(session)

    async def undo(request: Request) -> dict:
        """Return to the state before. Returns its image and recipe."""
        session = studio.open(request.session_hash)
        session.history = session.history.undo()
        return await answer(session)

    async def invert(request: Request, photo: str) -> dict:
        """Find the person on a photo (base64 of a PNG or JPEG). Only with their consent."""
        session = studio.open(request.session_hash)
        async for _ in studio.find(session, studio.photo(photo), None):
            pass
        return await answer(session)

    async def export(request: Request, format: str = "kohya") -> dict:
        """Export the state. Returns file names to base64 of their bytes, and the lines."""
        session = studio.open(request.session_hash)
        commands, python = studio.lines(session.history.state)
        files = {path.name: _packed(path) for path in studio.take_home(session, format)}
        return {"files": files, "commands": commands, "python": python}

    for endpoint in (sample, change, restore, undo, invert, export):
        api(told(endpoint), api_name=endpoint.__name__, concurrency_limit=None)


def told(endpoint: Any) -> Any:
    """Return an endpoint whose expected failures reach the caller as one line."""
    from functools import wraps

    @wraps(endpoint)
    async def run(*values: Any, **named: Any) -> Any:
        import gradio

        with reported(gradio):
            return await endpoint(*values, **named)
        raise gradio.Error("a newer request came", print_exception=False)

    return run


def _packed(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
