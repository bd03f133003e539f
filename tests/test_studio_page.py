"""The page and its API, served: endpoints, privacy, and the story in a browser."""

import base64
import gc
import io
import json
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from test_studio import base, folder  # noqa: F401  # fixtures
from weights2weights._shipped import shipped
from weights2weights.bases import load_base
from weights2weights.space import WeightSpace
from weights2weights.studio import serve

pytest.importorskip("gradio")
pytestmark = pytest.mark.filterwarnings("default")  # of Gradio and its server


@pytest.fixture(scope="module")
def served(base, folder):  # noqa: F811
    studio, page = serve(
        base, WeightSpace.from_pretrained(folder), space_name=str(folder), port=0, wait=False
    )
    yield studio, page.local_url
    page.close()
    studio.close()
    for _ in range(3):  # sockets and loops that Gradio leaves open warn here, not in other tests
        gc.collect()


@pytest.fixture
def client(served):
    from gradio_client import Client

    return Client(served[1], verbose=False)


def image(answer):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["image"]))).convert("RGB"))


def test_every_endpoint_is_named_and_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {
        f"/{x}" for x in ["sample", "change", "restore", "undo", "invert", "export"]
    }
    assert all(facts["description"] for facts in endpoints.values())


def test_endpoints_tell_the_story(client):
    first = client.predict(seed=5, api_name="/sample")
    edited = client.predict(changes={"set": {"Bald": 2.5}, "steps": 6}, api_name="/change")
    assert not np.array_equal(image(first), image(edited))
    undone = client.predict(api_name="/undo")
    assert undone == first
    again = client.predict(recipe=edited["recipe"], api_name="/restore")
    assert again == edited
    found = client.predict(photo=first["image"], api_name="/invert")
    assert "coefficients" in json.loads(found["recipe"])["person"]
    taken = client.predict(format="peft", api_name="/export")
    assert {"adapter_model.safetensors", "person.safetensors"} <= set(taken["files"])
    assert "w2w generate" in taken["commands"]


def test_sessions_do_not_see_each_other(served, client):
    from gradio_client import Client

    other = Client(served[1], verbose=False)
    client.predict(seed=5, api_name="/sample")
    before = other.predict(seed=6, api_name="/sample")
    client.predict(changes={"prompt": "a secret"}, api_name="/change")
    assert other.predict(changes={}, api_name="/change")["recipe"] == before["recipe"]


def test_failures_are_one_line_without_markup(client):
    for call in (
        {"changes": {"set": {"<img src=x>": 1}}, "api_name": "/change"},
        {"photo": "../../etc/passwd", "api_name": "/invert"},
        {"format": "../x", "api_name": "/export"},
        {"recipe": "{}", "api_name": "/restore"},
    ):
        with pytest.raises(Exception) as failure:
            client.predict(**call)
        assert "<img" not in str(failure.value) and "Traceback" not in str(failure.value)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "{root}", "{root}/.."],
)
def test_files_of_the_machine_are_not_served(served, path):
    studio, url = served
    with pytest.raises(urllib.error.HTTPError) as failure:
        urllib.request.urlopen(f"{url}gradio_api/file={path.format(root=studio.root)}", timeout=30)
    assert failure.value.code in (400, 403, 404)


def test_nothing_is_recorded_or_shared(served):
    with urllib.request.urlopen(f"{served[1]}config", timeout=30) as answer:
        config = json.loads(answer.read())
    assert not config.get("analytics_enabled") and not config.get("run_history")
    images = [one["props"] for one in config["components"] if one["type"] in ("image", "gallery")]
    assert len(images) >= 5
    for shown in images:  # None stands for all buttons, one of which shares
        assert shown["buttons"] is not None and "share" not in shown["buttons"]
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{served[1]}monitoring/summary", timeout=30)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_story_in_a_browser():
    """New person → slider → lock → undo → take home → restore from the link."""
    from weights2weights.worlds.scorers import Scorer

    sync_api = pytest.importorskip("playwright.sync_api")
    people = load_base("people")
    studio, page = serve(people, WeightSpace.from_pretrained("people"), port=0, wait=False)
    scorer, troubles = Scorer.load(shipped("people", "scorer")), []
    try:
        with sync_api.sync_playwright() as playwright:
            options = {"executable_path": CHROMIUM, "args": ["--no-sandbox"]}
            browser = playwright.chromium.launch(**options)

            def watched():
                tab = browser.new_context().new_page()
                tab.on("console", lambda m: m.type == "error" and troubles.append(m.text))
                tab.on(
                    "request",
                    lambda r: (
                        r.url.startswith("http")
                        and "127.0.0.1" not in r.url
                        and troubles.append(r.url)
                    ),
                )
                return tab

            def final(tab):
                sync_api.expect(tab.locator("#status")).not_to_contain_text("draft", timeout=60_000)
                source = tab.locator("#picture img").get_attribute("src")
                return tab.request.get(source).body()

            def act(tab, action):
                before = tab.locator("#picture img").get_attribute("src")
                action()
                expect = sync_api.expect(tab.locator("#picture img"))
                expect.not_to_have_attribute("src", before, timeout=60_000)
                return final(tab)

            def bald(data):
                pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[None]
                return float(scorer.attributes(pixels)[0, scorer.label_names.index("Bald")])

            tab = watched()
            tab.goto(page.local_url)
            tab.locator("#picture img").wait_for(timeout=60_000)
            person = act(tab, tab.get_by_role("button", name="New person").click)
            slider = tab.get_by_label("number input for Bald")

            def drag():
                slider.fill("3")
                slider.blur()

            edited = act(tab, drag)
            assert bald(edited) > bald(person) + 0.3
            assert act(tab, tab.get_by_role("button", name="Undo").click) == person
            assert act(tab, tab.get_by_role("button", name="Redo").click) == edited
            tab.get_by_role("tab", name="Take home").click()
            tab.get_by_role("button", name="Make the files").click()
            link = tab.locator("#link textarea, #link input").first
            sync_api.expect(link).to_have_value(link_pattern(), timeout=30_000)
            other = watched()
            other.goto(link.input_value())
            other.locator("#picture img").wait_for(timeout=60_000)
            sync_api.expect(other.get_by_label("number input for Bald")).to_have_value(
                "3", timeout=60_000
            )
            assert final(other) == edited
            browser.close()
    finally:
        page.close()
        studio.close()
    assert troubles == []


def link_pattern():
    import re

    return re.compile(r"http://127\.0\.0\.1:\d+/\?recipe=.+")
