"""The page: panels, and which action of `Studio` each control calls. No logic, no texts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, W2WError
from ..formats import FORMATS
from ..sheets import image_grid
from . import map as maps
from . import texts as t
from .engine import Superseded
from .state import MOST_LETTERS, MOST_STEPS, Person, from_link, to_link, to_recipe
from .studio import DRAFT, Session, Studio

CSS = """
footer {opacity: .7}
#picture img, #compare img {width: 100%; height: 100%; object-fit: contain}
@media (min-width: 800px) {#left {position: sticky; top: 12px; align-self: flex-start}}
#strip .grid-wrap {max-height: 190px}
.attribute {align-items: start; gap: 4px; flex-wrap: nowrap}
.attribute .keep {flex: 0 0 74px; min-width: 74px !important}
.bars div {display: grid; grid-template-columns: 9em 1fr 3em; gap: 8px; align-items: center}
.bars i {display: block; height: 10px; border-radius: 5px; background: var(--color-accent)}
.bars i.less {background: var(--body-text-color-subdued)}
@media (max-width: 600px) {.gradio-container {padding: 8px !important}}
"""

FILTER = """(query) => {
  const word = query.toLowerCase();
  for (const row of document.querySelectorAll('.attribute')) {
    row.style.display = row.textContent.toLowerCase().includes(word) ? '' : 'none';
  }
}"""
"""Searching needs no server: rows of other attributes are hidden."""

# Without Gradio's button that would share an image with others.
_SHOWN: dict[str, Any] = {
    "interactive": False,
    "format": "png",
    "buttons": ["download", "fullscreen"],
}


class Page:
    """All components of the page of a studio, and their events."""

    def __init__(self, studio: Studio):
        import gradio

        self.gr, self.studio = gradio, studio
        self.labels = sorted(studio.models.labels, key=t.rank_of)
        self.sliders: dict[str, Any] = {}
        self.locks: dict[str, Any] = {}

    def build(self) -> Any:
        """Return the page, as `gradio.Blocks`."""
        gr = self.gr
        with gr.Blocks(title=t.TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
            gr.Markdown(f"# {t.TITLE}\n{t.INTRO}")
            with gr.Accordion(t.TOUR, open=False) as self.tour:
                gr.Markdown(t.TOUR_STEPS)
            self.visited = gr.BrowserState(False, storage_key="w2w-visited", secret="w2w")
            with gr.Row():
                with gr.Column(scale=2, min_width=320, elem_id="left"):
                    self._picture()
                with gr.Column(scale=3, min_width=320), gr.Tabs():
                    panels = (self._attributes, self._scene, self._person, self._compare)
                    for panel in (*panels, self._map, self._take_home):
                        panel()
            self._wire_page(page)
            self._wire_people()
            self._wire_panels()
        return page

    # Panels.

    def _picture(self) -> None:
        gr = self.gr
        self.picture = gr.Image(label=t.PICTURE, elem_id="picture", height=400, **_SHOWN)
        self.status = gr.Markdown(elem_id="status")
        with gr.Row():
            self.new = gr.Button(t.NEW, variant="primary", min_width=110)
            self.undo = gr.Button(t.UNDO, min_width=70)
            self.redo = gr.Button(t.REDO, min_width=70)
        with gr.Row():
            self.person_seed = gr.Number(1, label=t.SEED_PERSON, precision=0, minimum=0)
            self.lock_seed = gr.Checkbox(False, label=t.LOCK_PERSON)
        self.strip = gr.Gallery(
            label=t.STRIP, elem_id="strip", columns=6, allow_preview=False, height=210, buttons=[]
        )
        with gr.Row():
            self.name = gr.Textbox(label=t.NAME, max_length=60, min_width=150)
            self.branch = gr.Button(t.BRANCH, min_width=120)

    def _attributes(self) -> None:
        gr, models = self.gr, self.studio.models
        with gr.Tab(t.ATTRIBUTES):
            with gr.Row():
                self.search = gr.Textbox(label=t.SEARCH, elem_id="search", scale=3)
                self.reset = gr.Button(t.RESET, min_width=120)
                self.randomise = gr.Button(t.RANDOMISE, min_width=110)
            self.moves = gr.HTML(t.MOVES_EMPTY, container=True)
            for group in dict.fromkeys(map(t.group_of, self.labels)):
                with gr.Accordion(group, open=True):
                    for label in (x for x in self.labels if t.group_of(x) == group):
                        self._slider(label, models.labels[label])

    def _slider(self, label: str, direction: Any) -> None:
        gr, (low, high) = self.gr, direction.range
        score, text = (direction.auc, t.RELIABLE)
        if score is None:
            score, text = direction.r2 or 0.0, t.NUMBERS
        with gr.Row(elem_classes="attribute"):
            self.sliders[label] = gr.Slider(
                round(low - 0.5), round(high + 0.5), 0, step=0.1, buttons=["reset"], scale=8,
                label=label.replace("_", " "), info=text.format(score, low, high),
            )  # fmt: skip
            name = f"{t.KEEP}"
            self.locks[label] = gr.Checkbox(label=name, elem_classes="keep", scale=1)

    def _scene(self) -> None:
        gr = self.gr
        with gr.Tab(t.SCENE):
            self.prompt = gr.Textbox(
                self.studio.begin.prompt, label=t.PROMPT, max_length=MOST_LETTERS, elem_id="prompt"
            )
            self.scenes = gr.Dropdown(list(t.SCENE_PROMPTS), value=None, label=t.SCENES)
            self.seed = gr.Number(0, label=t.SEED, precision=0, minimum=0)
            self.scene = gr.Slider(0, 0.9, 0, step=0.1, label=t.KEEP_SCENE, info=t.KEEP_SCENE_INFO)
            with gr.Accordion(t.ADVANCED, open=False):
                self.steps = gr.Slider(1, MOST_STEPS, 20, step=1, label=t.STEPS)
                self.guidance = gr.Slider(1, 10, 3, step=0.5, label=t.GUIDANCE)

    def _person(self) -> None:
        gr, studio = self.gr, self.studio
        with gr.Tab(t.PERSON):
            with gr.Accordion(t.PHOTO):
                gr.Markdown(t.PHOTO_INFO)
                self.photo = self._editor()
                self.consent = gr.Checkbox(False, label=t.CONSENT)
                self.find = gr.Button(t.FIND)
            self.lora = gr.UploadButton(t.LORA, file_types=[".safetensors"])
            with gr.Accordion(t.GALLERY, open=False, visible=studio.shows_models):
                self.having = gr.Dropdown(self.labels, multiselect=True, label=t.HAVING)
                self.show = gr.Button(t.SHOW)
                self.gallery = gr.Gallery(
                    label=t.GALLERY, columns=4, allow_preview=False, buttons=[]
                )
                self.shown = gr.State([])
            with gr.Accordion(t.MIX, open=False):
                self.second = gr.Button(t.SECOND)
                self.share = gr.Slider(0, 1, 0, step=0.05, label=t.SHARE)

    def _editor(self) -> Any:
        gr = self.gr

        brush = gr.Brush(colors=["#e11d48"], color_mode="fixed", default_size=24)
        options = {"sources": ("upload", "clipboard"), "transforms": ("crop",), "brush": brush}
        layers = gr.LayerOptions(allow_additional_layers=False)
        editor = gr.ImageEditor(type="pil", label=t.PHOTO, layers=layers, height=380, **options)
        convert: Any = editor.convert_and_format_image

        def checked(file: Any, **how: Any) -> Any:  # before anything decodes the file
            if file is not None:
                check_upload(file if isinstance(file, bytes) else Path(file.path).read_bytes())
            return convert(file, **how)

        editor.convert_and_format_image = checked
        return editor

    def _compare(self) -> None:
        gr = self.gr
        with gr.Tab(t.COMPARE):
            with gr.Row():
                self.before_after = gr.Button(t.BEFORE_AFTER, min_width=130)
                self.seeds = gr.Button(t.SEEDS, min_width=100)
                self.grid = gr.Button(t.GRID, min_width=120)
            self.compared = gr.ImageSlider(label=t.BEFORE_AFTER, elem_id="compare", height=400)
            scenes = "\n".join(t.SCENE_PROMPTS[:3])
            self.prompts = gr.Textbox(scenes, label=t.OTHER_PROMPTS, lines=3)
            self.sheet = gr.Image(label=t.COMPARE, **_SHOWN)

    def _map(self) -> None:
        gr, names = self.gr, [*maps.COMPONENTS, *self.labels]
        with gr.Tab(t.MAP, visible=len(self.studio.space.names) > 1):
            gr.Markdown(t.MAP_INFO)
            with gr.Row():
                self.across = gr.Dropdown(names, value=names[0], label=t.ACROSS)
                self.up = gr.Dropdown(names, value=names[1], label=t.UP)
                self.show_map = gr.Button(t.SHOW_MAP, min_width=120)
            self.map = gr.Image(label=t.MAP, elem_id="map", **_SHOWN)

    def _take_home(self) -> None:
        gr = self.gr
        with gr.Tab(t.TAKE):
            with gr.Row():
                self.format = gr.Dropdown([*FORMATS], value="kohya", label=t.FORMAT)
                self.make = gr.Button(t.MAKE, variant="primary")
            self.files = gr.File(label=t.FILES, file_count="multiple", interactive=False)
            self.link = gr.Textbox(
                label=t.LINK, interactive=False, buttons=["copy"], elem_id="link"
            )
            self.commands = gr.Code(label=t.COMMANDS, language="shell", interactive=False)
            self.python = gr.Code(label=t.PYTHON, language="python", interactive=False)
            self.recipe = gr.UploadButton(t.RESTORE, file_types=[".json", ".png"])

    # What the page shows of a session.

    def _outputs(self, controls: bool) -> list[Any]:
        shown = [self.picture, self.status, self.strip, self.moves]
        if not controls:
            return shown
        own = [self.prompt, self.seed, self.scene, self.steps, self.guidance, self.share, self.name]
        return [*shown, *own, *self.sliders.values(), *self.locks.values()]

    def _view(self, session: Session, picture: Path, final: bool, controls: bool) -> list[Any]:
        state, history = session.history.state, session.history
        wait = self.studio.engine.drawing.seconds_left()
        note = f"**{state.name or t.PICTURE}** · seed {state.seed}"
        if not final:
            note = f"{note} · {t.DRAFT}" + (f" · {t.BUSY.format(wait)}" if wait > 3 else "")
        strip = [
            (
                str(path),
                ("● " if number == history.at else "")
                + (history.states[number].name or f"{number}"),
            )
            for number, path in session.pictures.items()
            if number in history.states
        ]
        shown = [str(picture), escape(note, quote=False), strip, self._moves(session)]
        if not controls:
            return shown
        keep = 0 if state.inject_at is None else round(1 - state.inject_at / 1000, 1)
        own = [state.prompt, state.seed, keep, state.steps, state.guidance, state.share, state.name]
        amounts = [state.strengths.get(label, 0) for label in self.sliders]
        return [*shown, *own, *amounts, *[label in state.keep for label in self.locks]]

    def _moves(self, session: Session) -> str:
        """Return the bar list of what the last moved attribute moves too."""
        history = session.history
        before = history.states.get(history.parents[history.at] or 0, history.state).strengths
        now = history.state.strengths
        changed = [x for x in now if now[x] and now[x] != before.get(x, 0)] or [
            x for x in now if now[x]
        ]
        if not changed:
            return t.MOVES_EMPTY
        rows = "".join(
            f"<div><span>{escape(name.replace('_', ' '))}</span>"
            f"<i class='{'less' if cosine < 0 else 'more'}' style='width:{abs(cosine):.0%}'></i>"
            f"<span>{cosine:+.2f}</span></div>"
            for name, cosine in self.studio.models.also_moves(
                changed[-1], history.state.keep
            ).items()
        )
        label = escape(changed[-1].replace("_", " "))
        return f"{t.MOVES} <b>{label}</b><div class='bars'>{rows}</div>"

    # Events.

    def _on(self, triggers: Any, handler: Any, inputs: Sequence[Any], outputs: Any) -> None:
        self.gr.on(
            triggers, handler, list(inputs), outputs, show_progress="hidden",
            trigger_mode="multiple", concurrency_limit=None, api_visibility="private",
        )  # fmt: skip

    def _act(
        self,
        triggers: Any,
        change: Callable[..., Any],
        inputs: Sequence[Any] = (),
        controls: bool = True,
    ) -> None:
        """Let triggers change the session's state, then show a draft and the image."""
        from gradio import Request

        gr = self.gr

        async def handler(request: Request, *values: Any) -> Any:
            session = self.studio.open(request.session_hash)
            with reported(gr):
                change(session, *values)
                async for picture, final in self.studio.frames(session):
                    yield self._view(session, picture, final, controls)
                return
            yield gr.skip()

        self._on(triggers, handler, inputs, self._outputs(controls))

    def _show(
        self, triggers: Any, make: Callable[..., Any], inputs: Sequence[Any], outputs: Any
    ) -> None:
        """Let triggers show what an asynchronous function of the session returns."""
        from gradio import Request

        gr = self.gr

        async def handler(request: Request, *values: Any) -> Any:
            with reported(gr):
                return await make(self.studio.open(request.session_hash), *values)
            return gr.skip()

        self._on(triggers, handler, inputs, outputs)

    def _wire_page(self, page: Any) -> None:
        from gradio import Request

        gr, studio = self.gr, self.studio

        async def load(request: Request, visited: bool) -> Any:
            session = studio.open(request.session_hash)
            with reported(gr):
                if link := request.query_params.get("recipe"):
                    state = studio.restore(from_link(link))
                    session.history = session.history.add(state)
            async for picture, final in studio.frames(session):
                view = self._view(session, picture, final, True)
                yield [True, gr.Accordion(open=not visited), *view]

        outputs = [self.visited, self.tour, *self._outputs(True)]
        self._on(page.load, load, [self.visited], outputs)

        def leave(request: Request) -> None:
            studio.leave(request.session_hash)

        page.unload(leave)
        self.search.input(None, [self.search], None, js=FILTER)

    def _wire_people(self) -> None:
        from gradio import Request

        gr, studio = self.gr, self.studio

        def new(session: Session, seed: int) -> None:
            session.change(person=studio.sampled(int(seed)), other=None, share=0.0)

        self._act([self.new.click, self.person_seed.submit], new, [self.person_seed])
        self.new.click(
            None, [self.person_seed, self.lock_seed], [self.person_seed],
            js="(seed, locked) => locked ? seed : seed + 1",
        )  # fmt: skip

        async def find(request: Request, value: Any, consent: bool) -> Any:
            session = studio.open(request.session_hash)
            with reported(gr):
                image, mask = painted(value)
                if not consent:
                    raise InputError(t.NEED_CONSENT)
                async for picture, left in studio.find(session, image, mask):
                    view = self._view(session, picture, False, True)
                    yield [view[0], t.SEARCHING.format(left), *view[2:]]
                async for picture, final in studio.frames(session):
                    yield self._view(session, picture, final, True)
                return
            yield gr.skip()

        self._on(self.find.click, find, [self.photo, self.consent], self._outputs(True))

        def lora(session: Session, path: str) -> None:
            person = studio.take_lora(Path(path))
            session.change(person=person, strengths={}, other=None, share=0.0)

        self._act(self.lora.upload, lora, [self.lora])
        self._act(
            self.second.click,
            lambda session: session.change(
                other=Person(studio.models.edited(session.history.state)), share=0.0
            ),
        )
        self._act(
            self.share.release,
            lambda session, share: session.change(share=float(share)),
            [self.share],
        )
        self._wire_gallery()

    def _wire_gallery(self) -> None:
        from gradio import Request, SelectData

        gr, studio = self.gr, self.studio

        async def show(session: Session, having: list[str]) -> Any:
            rows = studio.people_with(having)
            people = [studio.trained(row) for row in rows]
            states = [replace(studio.begin, person=one, steps=DRAFT + 3) for one in people]
            images = await studio.draw_states(session, states, "gallery")
            return [[str(studio.save_image(session, image)) for image in images], rows]

        self._show(self.show.click, show, [self.having], [self.gallery, self.shown])

        async def choose(request: Request, event: SelectData, rows: list[int]) -> Any:
            session = studio.open(request.session_hash)
            with reported(gr):
                person = studio.trained(rows[event.index])
                session.change(person=person, strengths={}, other=None, share=0.0)
                async for picture, final in studio.frames(session):
                    yield self._view(session, picture, final, True)
                return
            yield gr.skip()

        self._on(self.gallery.select, choose, [self.shown], self._outputs(True))

    def _wire_panels(self) -> None:
        labels = list(self.sliders)

        def drag(session: Session, *values: Any) -> None:
            amounts = dict(zip(labels, values, strict=False))
            keep = tuple(x for x, on in zip(labels, values[len(labels) :], strict=True) if on)
            session.change(strengths={x: float(a) for x, a in amounts.items() if a}, keep=keep)

        controls = [*self.sliders.values(), *self.locks.values()]
        released = [slider.release for slider in self.sliders.values()]
        self._act([*released, *[x.input for x in self.locks.values()]], drag, controls, False)
        self._act(self.reset.click, lambda session: session.change(strengths={}, keep=()))

        def randomise(session: Session) -> None:
            few = np.random.default_rng().choice(labels, min(4, len(labels)), replace=False)
            amounts = {str(x): round(float(np.random.default_rng().normal()), 1) for x in few}
            session.change(strengths=amounts)

        self._act(self.randomise.click, randomise)

        def scene(session: Session, prompt: str, seed: int, keep: float, *advanced: Any) -> None:
            steps, guidance = advanced
            inject = round(1000 * (1 - keep)) if keep else None
            words = {"prompt": " ".join(prompt.split())[:MOST_LETTERS], "inject_at": inject}
            amounts = {"seed": int(seed) % 2**32, "steps": int(steps), "guidance": float(guidance)}
            session.change(**words, **amounts)

        inputs = [self.prompt, self.seed, self.scene, self.steps, self.guidance]
        moved = [self.scene.release, self.steps.release, self.guidance.release]
        self._act([self.prompt.submit, self.seed.submit, *moved], scene, inputs, False)
        self._act(
            self.scenes.input,
            lambda session, prompt: session.change(prompt=str(prompt)[:MOST_LETTERS]),
            [self.scenes],
        )
        self._wire_history()
        self._wire_compare()
        self._wire_map()
        self._wire_take_home()

    def _wire_history(self) -> None:
        from gradio import Request, SelectData

        def to(way: str) -> Callable[[Session], None]:
            def change(session: Session) -> None:
                session.history = getattr(session.history, way)()

            return change

        self._act(self.undo.click, to("undo"))
        self._act(self.redo.click, to("redo"))

        def name(session: Session, text: str) -> None:
            session.history = session.history.rename(" ".join(text.split())[:60])

        self._act(self.name.submit, name, [self.name])

        def branch(session: Session) -> None:
            state = session.history.state
            session.history = session.history.add(replace(state, name=f"{state.name} ⑂".strip()))

        self._act(self.branch.click, branch)

        async def go(request: Request, event: SelectData) -> Any:
            session = self.studio.open(request.session_hash)
            numbers = [n for n in session.pictures if n in session.history.states]
            if isinstance(event.index, int) and event.index < len(numbers):
                session.history = session.history.go(numbers[event.index])
            async for picture, final in self.studio.frames(session):
                yield self._view(session, picture, final, True)

        self._on(self.strip.select, go, [], self._outputs(True))

    def _wire_compare(self) -> None:
        studio = self.studio

        async def before_after(session: Session) -> Any:
            state = session.history.state
            pair = [replace(state, strengths={}, inject_at=None), state]
            images = await studio.draw_states(session, pair, "compare")
            return tuple(str(studio.save_image(session, image)) for image in images)

        async def grid(session: Session, prompts: list[str], count: int) -> Any:
            state = session.history.state
            seeds = range(state.seed, state.seed + count)
            states = [replace(state, prompt=p, seed=s) for p in prompts for s in seeds]
            images = np.stack(await studio.draw_states(session, states, "grid"))
            table = images.reshape(len(prompts), count, *images.shape[1:])
            rows = prompts if len(prompts) > 1 else ()
            sheet = image_grid(table, rows, [f"seed {seed}" for seed in seeds])
            return str(studio.save_image(session, sheet))

        async def seeds(session: Session) -> Any:
            return await grid(session, [session.history.state.prompt], 6)

        async def table(session: Session, text: str) -> Any:
            lines = [" ".join(line.split())[:MOST_LETTERS] for line in text.splitlines()]
            return await grid(session, [line for line in lines if line][:4] or [""], 3)

        self._show(self.before_after.click, before_after, [], self.compared)
        self._show(self.seeds.click, seeds, [], self.sheet)
        self._show(self.grid.click, table, [self.prompts], self.sheet)

    def _wire_map(self) -> None:
        from gradio import Request, SelectData

        gr, studio = self.gr, self.studio

        async def show(session: Session, *names: str) -> Any:
            return str(studio.save_image(session, studio.map_of(session.history.state, names)))

        self._show(self.show_map.click, show, [self.across, self.up], self.map)

        async def click(request: Request, event: SelectData, *names: str) -> Any:
            session = studio.open(request.session_hash)
            with reported(gr):
                state = session.history.state
                session.change(person=studio.on_map(state, names, event.index), other=None)
                sheet = str(studio.save_image(session, studio.map_of(session.history.state, names)))
                async for picture, final in studio.frames(session):
                    yield [sheet, *self._view(session, picture, final, True)]
                return
            yield gr.skip()

        outputs = [self.map, *self._outputs(True)]
        self._on(self.map.select, click, [self.across, self.up], outputs)

    def _wire_take_home(self) -> None:
        from gradio import Request

        gr, studio = self.gr, self.studio

        async def make(request: Request, format: str) -> Any:
            session = studio.open(request.session_hash)
            with reported(gr):
                state = session.history.state
                letters = to_link(to_recipe(state, studio.models))
                link = f"{request.headers['origin']}/?recipe={letters}" if letters else t.NO_LINK
                files = [str(path) for path in studio.take_home(session, format)]
                return [files, link, *studio.lines(state)]
            return gr.skip()

        outputs = [self.files, self.link, self.commands, self.python]
        self._on(self.make.click, make, [self.format], outputs)

        def restore(session: Session, path: str) -> None:
            data = Path(path).read_bytes()
            Path(path).unlink(missing_ok=True)
            session.history = session.history.add(studio.restore(data))

        self._act(self.recipe.upload, restore, [self.recipe])


class reported:
    """Turn expected failures into a message on the page; a superseded request is none."""

    def __init__(self, gr: Any):
        self.gr = gr

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, Superseded):
            return True
        if isinstance(error, W2WError):
            raise self.gr.Error(escape(str(error)), print_exception=False) from None
        return False


def painted(value: Any) -> tuple[Any, Any]:
    """Return the photo of an editor and the mask that was painted on it, or None."""
    if not value or value["background"] is None:
        raise InputError(t.NEED_PHOTO)
    image = value["background"].convert("RGB")
    for layer in value["layers"]:
        drawn = layer.convert("RGBA").getchannel("A")
        if layer.size == image.size and drawn.getbbox():
            return image, drawn.point(lambda level: 255 if level else 0)
    if min(image.size) < 16:
        raise InputError(f"a photo of {image.width}×{image.height} pixels: expected at least 16")
    return image, None


def check_upload(data: bytes) -> None:
    """Refuse uploads that are large, or anything but a PNG, JPEG or WebP of at most 20 megapixels.

    Raises:
        gradio.Error: it is refused.
    """
    import io

    import gradio
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            fine = image.width * image.height <= 20_000_000 and len(data) <= 10 << 20
    except Exception:
        fine = False
    if not fine:
        raise gradio.Error("expected a PNG, JPEG or WebP of up to 10 MB and 20 megapixels")
