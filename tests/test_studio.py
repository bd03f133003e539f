"""The studio without its page: states, recipes, histories, sessions and their files."""

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from weights2weights import cli
from weights2weights.bases import load_base
from weights2weights.errors import InputError
from weights2weights.exports import save_lora
from weights2weights.formats import load_lora
from weights2weights.space import WeightSpace
from weights2weights.studio import map as maps
from weights2weights.studio import studio as rooms
from weights2weights.studio.history import MOST, History
from weights2weights.studio.state import (
    Person,
    command_lines,
    from_link,
    from_recipe,
    python_lines,
    to_link,
    to_recipe,
)
from weights2weights.studio.studio import Studio


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(tiny_base)


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    layout, n = base.layout(alpha=27.0), 60
    components, _ = torch.linalg.qr(torch.randn(layout.num_parameters, 5, generator=generator))
    mean = 0.1 * torch.randn(layout.num_parameters, generator=generator)
    rows = torch.randn(n, 5, generator=generator) * torch.arange(5, 0, -1)
    names = [f"m{i}" for i in range(n)]
    values = rows + 0.3 * torch.randn(n, 5, generator=generator)
    labels = pandas.DataFrame(values[:, :3].numpy() > 0, names, ["Bald", "Male", "Young"])
    labels["Nobody"] = False
    space = WeightSpace(
        layout, mean, torch.ones(len(mean)), components.T.contiguous(), base_hash=base.hash
    ).with_models(rows, names, labels)
    shared = replace(space, metadata={"share_models": True})
    return shared.save_pretrained(tmp_path_factory.mktemp("studio") / "space")


@pytest.fixture(scope="module")
def studio(base, folder):
    studio = Studio(base, WeightSpace.from_pretrained(folder), str(folder))
    studio.begin = replace(studio.begin, steps=6)
    yield studio
    studio.close()
    assert not studio.root.exists()


@pytest.fixture
def session(studio):
    yield studio.open("ann")
    studio.leave("ann")


@pytest.fixture(scope="module")
def states(studio):
    plain = replace(studio.begin, strengths={"Bald": 1.5, "Male": -0.5}, seed=3)
    point = Person(studio.space.model(torch.arange(5.0), {"verb": "invert"}))
    weights = Person(replace(point.model, weights=studio.models.weights(point.model) + 0.01))
    mixed = replace(plain, other=point, share=0.25, keep=("Male", "Young"), inject_at=600)
    outside = replace(plain, person=weights, keep=("Young",), guidance=2.0, name="é <b>")
    return [studio.begin, plain, mixed, outside]


def picture(studio, session):
    async def last():
        return [path async for path, final in studio.frames(session) if final][-1]

    return asyncio.run(last())


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_histories_undo_redo_and_branch(studio):
    a, b, c, d = (replace(studio.begin, seed=seed) for seed in range(4))
    history = History.begin(a).add(b).add(c)
    assert history.undo().state is b and history.undo().undo().undo().state is a
    assert history.undo().redo().state is c and history.redo().state is c
    branch = history.undo().add(d)
    assert branch.state is d and branch.undo().state is b and branch.undo().redo().state is d
    assert branch.go(2).state is c and branch.go(2).undo().redo().state is c
    assert branch.go(99) is branch
    assert branch.rename("one").state.name == "one" and branch.go(2).state.name == ""
    for seed in range(2 * MOST):
        history = history.add(replace(a, seed=seed))
    assert len(history.states) == MOST and history.state.seed == 2 * MOST - 1
    while history.undo() != history:
        history = history.undo()
    assert set(history.parents.values()) <= {None, *history.states}


def test_recipes_restore_every_state_byte_for_byte(studio, states):
    for state in states:
        recipe = to_recipe(state, studio.models)
        again = from_recipe(recipe, studio.models)
        assert to_recipe(again, studio.models) == recipe
        before, after = (studio.models.drawing(one) for one in (state, again))
        assert torch.equal(before.weights, after.weights)
        assert (before.prompt, before.seed, before.inject_at) == (
            after.prompt,
            after.seed,
            after.inject_at,
        )
    recipe = to_recipe(states[1], studio.models)
    assert from_link(to_link(recipe) or "") == recipe


@pytest.mark.parametrize(
    "change",
    [
        {"set": {"Bald": 1e9}},
        {"set": {"Bald": float("nan")}},
        {"set": {"<script>": 1}},
        {"set": ["Bald"]},
        {"keep": ["Nobody"]},
        {"seed": 1.5},
        {"seed": True},
        {"steps": 10**6},
        {"guidance": -1},
        {"prompt": "x" * 9999},
        {"prompt": 7},
        {"share": 2.0},
        {"person": {"coefficients": "AAAA"}},
        {"person": {"weights": "!"}},
        {"person": {"path": "/etc/passwd"}},
        {"person": None},
        {"space": "0" * 16},
        {"weights2weights_recipe": 2},
    ],
    ids=str,
)
def test_forged_recipes_are_refused_in_one_line(studio, states, change):
    with pytest.raises(InputError) as failure:
        studio.changed(states[1], change)
    assert len(str(failure.value).splitlines()) == 1


def test_damaged_recipes_and_links_are_refused(studio):
    for data in (b"", b"[]", b"\xff", b"[" * 100_000, b'{"weights2weights_recipe": 1}'):
        with pytest.raises(InputError):
            studio.restore(data)
    bomb = to_link(b"0" * (1 << 20))
    for text in ("", "%%%", "AAAA", bomb or "AAAA"):
        with pytest.raises(InputError, match="damaged"):
            from_link(text)


def test_python_lines_draw_the_same_image(studio, session, states, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for state in states:
        session.history = session.history.add(state)
        shown = pixels(picture(studio, session))
        for path in studio.take_home(session, "kohya"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        names: dict = {}
        exec(python_lines(state, studio.space_name, base.id), names)
        expected = studio.models.weights(studio.models.edited(state))
        assert torch.equal(studio.models.weights(names["edited"]), expected)
        assert np.abs(pixels("image.png") - shown).max() <= 1


def test_commands_draw_the_same_image(studio, session, states, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, state in enumerate(states):
        session.history = session.history.add(state)
        shown = pixels(picture(studio, session))
        (place := tmp_path / str(number)).mkdir()
        monkeypatch.chdir(place)
        for path in studio.take_home(session, "kohya"):
            (place / path.name).write_bytes(path.read_bytes())
        import shlex

        for line in command_lines(state, studio.space_name, base.id).splitlines():
            result = CliRunner().invoke(cli.main, shlex.split(line)[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}{result.stderr}"
        (drawn,) = Path("images").iterdir()
        assert np.abs(pixels(drawn) - shown).max() <= 1


def test_images_carry_their_recipe_and_restore_their_bytes(studio, session, states):
    session.history = session.history.add(states[2])
    data = picture(studio, session).read_bytes()
    other = studio.open("bob")
    other.history = other.history.add(studio.restore(data))
    assert picture(studio, other).read_bytes() == data
    studio.leave("bob")


def test_sessions_are_private_bounded_and_deleted(studio, monkeypatch):
    monkeypatch.setattr(rooms, "MOST_SESSIONS", 3)
    ann, bob = studio.open("ann"), studio.open("bob")
    bob.change(seed=7)
    assert studio.open("ann").history.state.seed == 0
    assert ann.folder != bob.folder and len(ann.folder.name) >= 30
    for number in range(5):
        studio.open(f"guest {number}")
    assert len(studio.sessions) == 3
    assert not ann.folder.exists()
    monkeypatch.setattr(rooms, "IDLE", -1.0)
    studio.open("last")
    assert [*studio.sessions] == ["last"]
    studio.leave("last")
    assert not [path for path in studio.root.iterdir() if path.is_dir()]


@pytest.mark.parametrize("format", ["kohya", "diffusers", "peft"])
def test_what_is_taken_home_is_the_model(studio, session, states, format):
    session.history = session.history.add(states[1])
    files = studio.take_home(session, format)
    lora = load_lora(files[0].parent if format == "peft" else files[0])
    expected = studio.models.weights(studio.models.edited(states[1]))
    torch.testing.assert_close(lora.weights, expected)
    with pytest.raises(InputError, match="expected one of"):
        studio.take_home(session, "../../etc/passwd")


def test_loras_come_in_and_uploads_are_deleted(studio, states, tmp_path):
    for format in ("kohya", "diffusers"):
        weights = studio.models.weights(states[3].person.model)
        path = tmp_path / "a.safetensors"
        save_lora(path, weights, layout=studio.space.layout, format=format)
        person = studio.take_lora(path)
        torch.testing.assert_close(person.model.weights, weights)
        assert not path.exists()
    bad = tmp_path / "secret name.safetensors"
    bad.write_bytes(b"no LoRA")
    with pytest.raises(InputError) as failure:
        studio.take_lora(bad)
    assert "secret" not in str(failure.value) and not bad.exists()


def test_photos_become_people(studio, session):
    buffer = io.BytesIO()
    Image.fromarray(studio._first).resize((80, 64)).save(buffer, "PNG")
    import base64

    photo = studio.photo(base64.b64encode(buffer.getvalue()).decode())

    async def find():
        return [left async for _, left in studio.find(session, photo, None)]

    assert all(left >= 0 for left in asyncio.run(find()))
    assert session.history.state.person.seed is None
    assert picture(studio, session).exists()
    for text in ("no base64", base64.b64encode(b"no image").decode()):
        with pytest.raises(InputError):
            studio.photo(text)


def test_a_click_on_the_map_goes_there(studio, states):
    names = ("Bald", "Component 2")
    person = studio.on_map(states[1], names, (300, 100))
    state = replace(states[1], person=person)
    here = studio.space.coefficients_of(studio.models.edited(state))[None]
    axes = tuple(maps.axis(studio.models, name) for name in names)
    place = maps.places(studio.space, here, axes)[0]
    torch.testing.assert_close(maps.to_pixels(place).float(), torch.tensor([300.0, 100.0]))
    assert studio.map_of(state, names).getpixel((300 + 8, 100)) == (220, 38, 38)


def test_the_gallery_shows_what_the_space_allows(studio, folder, base):
    rows = studio.people_with(["Bald", "Male"])
    assert rows and studio.space.labels.iloc[rows][["Bald", "Male"]].all(axis=None)
    point = studio.trained(rows[0]).model.coefficients
    assert torch.equal(point, studio.space.coefficients[rows[0]])
    closed = replace(studio.space, metadata={})
    other = Studio(base, closed, str(folder))
    assert other.people_with([]) == []
    with pytest.raises(InputError, match="does not show"):
        other.trained(0)
    other.close()


def test_kept_labels_do_not_move(studio):
    state = replace(studio.begin, strengths={"Bald": 2.0}, keep=("Male",))
    assert abs(studio.models.also_moves("Bald", ("Male",))["Male"]) < 1e-9
    facts = json.loads(to_recipe(state, studio.models))
    assert (facts["set"], facts["keep"]) == ({"Bald": 2.0}, ["Male"])
    moved = studio.models.edited(state).coefficients - state.person.model.coefficients
    male = studio.models.direction("Male").normal
    assert abs(float(moved[: len(male)].double() @ male)) < 1e-5
