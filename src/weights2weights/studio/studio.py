"""The studio without its page: sessions, what visitors do, and the files that they get.

Everything of a visitor lies in one folder with an unguessable name and is deleted with the session.
File names are ours, never the visitors'.
"""

import asyncio
import base64
import hashlib
import io
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .._files import make_folder, write_atomic
from .._shipped import means_world
from ..bases import Base
from ..errors import InputError
from ..exports import save_lora
from ..formats import FORMATS
from ..images import decode_image
from ..models import save_model
from ..opening import one_model
from ..space import WeightSpace
from ..training import default_config
from . import map as maps
from .engine import Drawing, Engine, Photo
from .history import History
from .state import Models, Person, State, command_lines, from_recipe, python_lines, to_recipe

DRAFT = 5
"""Steps of a draft."""

MOST_SESSIONS = 500
IDLE = 3600.0
"""Seconds without a request after which a session is deleted."""

MOST_BYTES = 10 << 20
"""Of an upload."""

_CHUNK = "weights2weights"


@dataclass(eq=False)
class Session:
    """One visitor: a private folder, the history, and its images."""

    key: str
    folder: Path
    history: History
    pictures: dict[int, Path] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)

    def change(self, **changes: Any) -> None:
        """Add the state with these changes to the history, unless nothing changes."""
        state = replace(self.history.state, **changes)
        if state != self.history.state:
            self.history = self.history.add(state)


class Studio:
    """What visitors do, for any number of them; close it to delete all that is theirs.

    Args:
        base: draws the images.
        space: of the people.
        space_name: how the lines that repeat a state name the space.
    """

    def __init__(self, base: Base, space: WeightSpace, space_name: str = "people"):
        self.base, self.space, self.space_name = base, space, space_name
        self.models, self.engine = Models(space), Engine(base, space)
        self.root = Path(tempfile.mkdtemp(prefix="w2w-studio-"))
        self.sessions: dict[str, Session] = {}
        shares = space.metadata.get("share_models") is True or means_world(
            space_name, "config.json"
        )
        self.shows_models = bool(space.names) and shares
        person = self.sampled(0)
        prompt = default_config(base).instance_prompt
        usual = {"steps": base.family.steps, "guidance": float(base.family.guidance)}
        self.begin = State(person, prompt, **usual)
        (image,) = self.engine.draw([self.models.drawing(self.begin)])
        self._first = image.result()

    def sampled(self, seed: int) -> Person:
        """Return the person of a seed; of a space without training models always the mean."""
        if len(self.space.names) > 1:
            return Person.sampled(self.space, seed)
        return Person(
            self.space.model(self.space.mean.new_zeros(len(self.space)), {"verb": "mean"})
        )

    def open(self, key: str | None) -> Session:
        """Return the session of a visitor, made on the first visit."""
        key, now = key or "", time.monotonic()
        for old in [s for s in self.sessions.values() if now - s.used > IDLE]:
            self.leave(old.key)
        if key not in self.sessions:
            if len(self.sessions) >= MOST_SESSIONS:
                self.leave(min(self.sessions.values(), key=lambda one: one.used).key)
            folder = self.root / secrets.token_urlsafe(24)
            make_folder(folder)
            session = Session(key, folder, History.begin(self.begin))
            session.pictures[0] = self.save_image(session, self._first, self.begin)
            self.sessions[key] = session
        self.sessions[key].used = now
        return self.sessions[key]

    def leave(self, key: str | None) -> None:
        """Delete everything of a visitor."""
        if session := self.sessions.pop(key or "", None):
            self.engine.drawing.forget(session.key)
            self.engine.inverting.forget(session.key)
            shutil.rmtree(session.folder, ignore_errors=True)

    def close(self) -> None:
        """Delete everything of everybody and end the engine."""
        for key in [*self.sessions]:
            self.leave(key)
        self.engine.close()
        shutil.rmtree(self.root, ignore_errors=True)

    async def draw(
        self, session: Session, drawings: Sequence[Drawing], slot: str
    ) -> list[np.ndarray]:
        """Draw images, in place of what this slot of the session asked for before."""
        futures = self.engine.draw(drawings, session.key, slot)
        return [await asyncio.wrap_future(future) for future in futures]

    async def draw_states(
        self, session: Session, states: Sequence[State], slot: str
    ) -> list[np.ndarray]:
        """Draw the images of states."""
        rows = await asyncio.to_thread(lambda: [self.models.drawing(state) for state in states])
        return await self.draw(session, rows, slot)

    async def frames(self, session: Session) -> AsyncIterator[tuple[Path, bool]]:
        """Yield a draft of the session's state and then its image; (path, whether it is final)."""
        number, state = session.history.at, session.history.state
        if number not in session.pictures:
            whole = await asyncio.to_thread(self.models.drawing, state)
            if state.steps > DRAFT:
                (image,) = await self.draw(session, [replace(whole, steps=DRAFT)], "picture")
                yield self.save_image(session, image), False
            (image,) = await self.draw(session, [whole], "picture")
            session.pictures[number] = self.save_image(session, image, state)
        yield session.pictures[number], True

    async def find(
        self, session: Session, image: Any, mask: Any
    ) -> AsyncIterator[tuple[Path, float]]:
        """Find the person on a photo; yield drafts and the seconds left, then add the state."""
        news: asyncio.Queue[Any] = asyncio.Queue()
        loop, began = asyncio.get_running_loop(), time.monotonic()

        def watch(share: float, point: Any) -> None:
            loop.call_soon_threadsafe(news.put_nowait, (share, point))

        future = asyncio.wrap_future(self.engine.invert(Photo(image, mask, watch), session.key))
        future.add_done_callback(lambda done: news.put_nowait(None))
        while (step := await news.get()) is not None:
            share, point = step
            draft = Person(self.space.model(point, {"verb": "invert"}))
            state = replace(session.history.state, person=draft, strengths={}, other=None)
            drawing = await asyncio.to_thread(self.models.drawing, state, DRAFT)
            (picture,) = await self.draw(session, [drawing], "photo")
            left = (time.monotonic() - began) * (1 - share) / share
            yield self.save_image(session, picture), left
        found = Person(self.space.model(await future, {"verb": "invert"}))
        session.change(person=found, strengths={}, other=None, share=0.0)

    def take_lora(self, path: Path) -> Person:
        """Return the person of an uploaded LoRA file, and delete the file.

        Raises:
            InputError: not one LoRA of this space's layout and base.
        """
        try:
            if path.suffix != ".safetensors" or path.stat().st_size > MOST_BYTES:
                raise InputError("expected a .safetensors file of at most 10 MB")
            model = replace(one_model(path), origin={"verb": "upload"}, name="")
            self.space.coefficients_of(model)
            return Person(model)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "the file")) from error
        finally:
            path.unlink(missing_ok=True)

    def restore(self, data: bytes) -> State:
        """Return the state of a recipe, or of an image that carries one.

        Raises:
            InputError: there is none.
        """
        if data.startswith(b"\x89PNG"):
            from PIL import Image

            decode_image(data, "the image")
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                data = str(image.info.get(_CHUNK, "")).encode()
        return from_recipe(data, self.models)

    def save_image(self, session: Session, image: Any, state: State | None = None) -> Path:
        """Write a PNG file, with the recipe of its state; its name is the hash of its bytes."""
        from PIL import Image, PngImagePlugin

        info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
        if state is not None:
            info.add_itxt(_CHUNK, to_recipe(state, self.models).decode(), zip=True)
        picture = image if hasattr(image, "save") else Image.fromarray(image)
        picture.save(buffer, "PNG", pnginfo=info)
        return self._write(session, buffer.getvalue(), ".png")

    def take_home(self, session: Session, format: str) -> list[Path]:
        """Write the files of the session's state: LoRA, model, image, recipe and people."""
        if format not in FORMATS:
            raise InputError(f"expected one of {', '.join(FORMATS)}")
        state, folder = session.history.state, session.folder / secrets.token_urlsafe(9)
        model = self.models.edited(state)
        suffix = "" if format == "peft" else ".safetensors"
        lora = save_lora(folder / f"lora-{format}{suffix}", model, space=self.space, format=format)
        files = sorted(lora.iterdir()) if lora.is_dir() else [lora]
        files.append(save_model(folder / "model.safetensors", model))
        for name, person in (("person", state.person), ("other", state.other)):
            if person is not None and person.seed is None:
                files.append(save_model(folder / f"{name}.safetensors", person.model))
        write_atomic(folder / "recipe.json", [to_recipe(state, self.models)], flush=False)
        if picture := session.pictures.get(session.history.at):
            write_atomic(folder / "image.png", [picture.read_bytes()], flush=False)
            files.append(folder / "image.png")
        return [*files, folder / "recipe.json"]

    def people_with(self, having: Sequence[str], count: int = 8) -> list[int]:
        """Return training models that have all labels, the surest first."""
        chosen = self.space.labels[[x for x in having if x in self.models.labels]]
        fits = (chosen.astype("Float64").fillna(0).to_numpy(float) > 0).all(axis=1)
        return np.flatnonzero(fits)[:count].tolist() if self.shows_models else []

    def trained(self, row: int) -> Person:
        """Return the person of a training model, where the space allows it."""
        if not self.shows_models or not 0 <= row < len(self.space.names):
            raise InputError("this space does not show its training models")
        point = self.space.coefficients[row].float()
        return Person(self.space.model(point, {"verb": "train"}))

    def changed(self, state: State, changes: Mapping[str, Any]) -> State:
        """Return a state with fields of its recipe changed.

        Raises:
            InputError: a value outside its range.
        """
        facts = json.loads(to_recipe(state, self.models)) | dict(changes)
        return from_recipe(json.dumps(facts).encode(), self.models)

    def photo(self, text: str) -> Any:
        """Return the photo of a base64 text.

        Raises:
            InputError: not an image, or too large.
        """
        try:
            data = base64.b64decode(text[: 2 * MOST_BYTES], validate=True)
        except ValueError as error:
            raise InputError("expected a photo in base64") from error
        if len(data) > MOST_BYTES:
            raise InputError("expected a photo of at most 10 MB")
        return decode_image(data, "the photo")

    def map_of(self, state: State, names: Sequence[str]) -> Any:
        """Return the map along two axes with the person of a state."""
        axes = (maps.axis(self.models, names[0]), maps.axis(self.models, names[1]))
        here = self.space.coefficients_of(self.models.edited(state)).cpu()[None]
        dots = maps.places(self.space, self.space.coefficients.float(), axes)
        return maps.draw_map(dots, maps.places(self.space, here, axes)[0], (names[0], names[1]))

    def on_map(self, state: State, names: Sequence[str], pixel: Any) -> Person:
        """Return the person of a state moved so that its image lies at a pixel of the map."""
        axes = (maps.axis(self.models, names[0]), maps.axis(self.models, names[1]))
        here = self.space.coefficients_of(self.models.edited(state)).cpu()[None]
        start, goal = maps.places(self.space, here, axes)[0], maps.from_pixels(*pixel[:2])
        moved = maps.moved(self.space, self.models.person(state), start, goal, axes)
        return Person(moved)

    def lines(self, state: State) -> tuple[str, str]:
        """Return the commands and the Python program that repeat a state."""
        names = self.space_name, self.base.id
        return command_lines(state, *names), python_lines(state, *names)

    def _write(self, session: Session, data: bytes, suffix: str) -> Path:
        path = session.folder / f"{hashlib.sha256(data).hexdigest()[:32]}{suffix}"
        if not path.exists():
            write_atomic(path, [data], flush=False)
        return path
