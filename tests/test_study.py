"""Studies of preference: blind pages, answers of simulated raters, and strangers' files."""

import json
import random
import re
import shutil

import pytest
from click.testing import CliRunner
from PIL import Image

from weights2weights import analyse_study, make_study
from weights2weights.cli import main
from weights2weights.errors import InputError


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """Three methods with twenty images each; every image has a colour of its own."""
    root = tmp_path_factory.mktemp("methods")
    for i, name in enumerate(("ours", "theirs", "others")):
        (root / name).mkdir()
        for item in range(20):
            color = (80 * i, 12 * item, 100)
            Image.new("RGB", (24, 24), color).save(root / name / f"person-{item:02d}.png")
    return {name: root / name for name in ("ours", "theirs", "others")}


def two(methods):
    return {name: methods[name] for name in ("ours", "theirs")}


def page_data(page, name):
    return json.loads(re.search(rf"^const {name} = (.*);$", page.read_text(), re.M)[1])


def answer(files, rater, rng, prefers, careless=0.0):
    """Return the answers of a rater who prefers `a` to `b` with probability `prefers(a, b)`."""
    key = json.loads(files.key.read_text())
    answers = []
    for i in rng.sample(range(len(key["trials"])), len(key["trials"])):
        trial, mirrored = key["trials"][i], rng.random() < 0.5
        if "check" in trial:
            wrong = rng.random() < careless
            side = {"left": "right", "right": "left"}[trial["check"]] if wrong else trial["check"]
            choice = "first" if (side == "left") != mirrored else "second"
        else:
            first = rng.random() < prefers(trial["first"], trial["second"])
            choice = "first" if first else "second"
            side = "left" if first != mirrored else "right"
        answers.append({"trial": i, "choice": choice, "side": side, "seconds": 1.0})
    return {"study": key["study"], "rater": rater, "answers": answers}


def save(folder, given):
    path = folder / f"{given['rater']}.json"
    path.write_text(json.dumps(given))
    return path


def rate(p):
    return lambda first, second: p if first == "ours" else 1 - p


def test_a_page_is_blind_and_its_key_is_not(methods, tmp_path):
    files = make_study(tmp_path, two(methods), pairs=12, checks=2, seed=1)
    text = files.page.read_text()
    for secret in ("ours", "theirs", str(methods["ours"])):
        assert secret not in text
    key = json.loads(files.key.read_text())
    trials, images = page_data(files.page, "trials"), page_data(files.page, "images")
    assert len(trials) == len(key["trials"]) == 14
    asked = [trial for trial in key["trials"] if "check" not in trial]
    assert len({trial["item"] for trial in asked}) == 12, "no pair occurs twice"
    assert {trial["first"] for trial in asked} == {"ours", "theirs"}, "neither is always first"
    for shown, trial in zip(trials, asked, strict=False):
        for place in ("first", "second"):
            file = methods[trial[place]] / f"{trial['item']}.png"
            assert images[shown[place]].endswith(_base64(file))
    assert not re.search(r'(src|href)="http', text), "the page loads nothing from elsewhere"


def _base64(file):
    import base64

    return base64.b64encode(file.read_bytes()).decode()


def test_equal_seeds_make_equal_studies_and_names_in_images_are_escaped(methods, tmp_path):
    first = make_study(tmp_path / "a", two(methods), seed=3, questions=["</script>Which?"])
    again = make_study(tmp_path / "b", two(methods), seed=3, questions=["</script>Which?"])
    other = make_study(tmp_path / "c", two(methods), seed=4, questions=["</script>Which?"])
    assert first.page.read_bytes() == again.page.read_bytes()
    assert first.key.read_bytes() == again.key.read_bytes()
    assert first.key.read_bytes() != other.key.read_bytes()
    assert first.page.read_text().count("</script>") == 1
    assert page_data(first.page, "trials")[0]["question"] == "</script>Which?"


def test_three_raters_of_known_preference_are_recovered(methods, tmp_path):
    """In 95 of 100 runs each, up to the noise of 100 runs."""
    files = make_study(tmp_path / "study", two(methods), questions=["A?", "B?"], checks=2)
    rates, inside = {"r5": 0.5, "r7": 0.7, "r9": 0.9}, dict.fromkeys(("r5", "r7", "r9"), 0)
    for run in range(100):
        paths = []
        for i, (rater, p) in enumerate(rates.items()):
            rng = random.Random(1000 * run + i)
            paths.append(save(tmp_path, answer(files, rater, rng, rate(p))))
        found = analyse_study(files.key, paths)
        for rater, p in rates.items():
            share = [
                q["pairs"]["ours vs theirs"]["raters"][rater] for q in found["questions"].values()
            ]
            assert [each["answers"] for each in share] == [20, 20]
            inside[rater] += sum(each["low"] <= p <= each["high"] for each in share)
    for rater, count in inside.items():
        assert count / 200 >= 0.91, f"{rater}: {count} of 200"


def test_agreement_is_chance_for_coins_and_perfect_for_copies(methods, tmp_path):
    files = make_study(tmp_path / "study", two(methods), checks=0)

    def agreement(answers):
        found = analyse_study(files.key, [save(tmp_path, each) for each in answers])
        return next(iter(found["questions"].values()))["pairs"]["ours vs theirs"]["agreement"]

    coins = [answer(files, f"coin-{i}", random.Random(i), rate(0.5)) for i in range(60)]
    assert agreement(coins)["observed"] == pytest.approx(0.5, abs=0.02)
    assert agreement(coins)["kappa"] == pytest.approx(0, abs=0.03)
    copies = [{**coins[0], "rater": f"copy-{i}"} for i in range(3)]
    assert agreement(copies) == {"observed": 1.0, "kappa": pytest.approx(1.0)}
    assert agreement(copies[:1]) == {"observed": None, "kappa": None}


def test_strengths_of_three_methods_are_recovered(methods, tmp_path):
    files = make_study(tmp_path / "study", methods, checks=0)
    true = {"ours": 0.6, "theirs": 0.3, "others": 0.1}

    def prefers(a, b):
        return true[a] / (true[a] + true[b])

    raters = [answer(files, f"rater-{i}", random.Random(i), prefers) for i in range(30)]
    found = analyse_study(files.key, [save(tmp_path, each) for each in raters])
    strengths = next(iter(found["questions"].values()))["strengths"]
    assert sum(strengths.values()) == pytest.approx(1)
    assert strengths == {name: pytest.approx(value, abs=0.05) for name, value in true.items()}


def test_raters_who_fail_checks_are_left_out_and_named(methods, tmp_path):
    files = make_study(tmp_path / "study", two(methods), checks=5)
    careful = save(tmp_path, answer(files, "careful", random.Random(0), rate(1.0)))
    careless = save(tmp_path, answer(files, "careless", random.Random(1), rate(0.0), careless=1.0))
    found = analyse_study(files.key, [careful, careless])
    assert found["raters"] == {"kept": 1, "excluded": {"careless": 5}}
    (question,) = found["questions"].values()
    assert question["pairs"]["ours vs theirs"]["mean"] == 1.0
    both = analyse_study(files.key, [careful, careless], failed_checks=5)
    assert next(iter(both["questions"].values()))["pairs"]["ours vs theirs"]["mean"] == 0.5
    assert 0 < both["left"]["mean"] < 1
    with pytest.raises(InputError, match="none of 1 raters passed the checks"):
        analyse_study(files.key, [careless])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given.update(study="0" * 16), "answers study '0000000000000000'"),
        (lambda given: given.pop("rater"), "does not hold answers"),
        (lambda given: given["answers"].append(given["answers"][0]), "unusable answer"),
        (lambda given: given["answers"][0].update(trial=999), "unusable answer"),
        (lambda given: given["answers"][0].update(choice="both"), "unusable answer"),
        (lambda given: given["answers"].append("left"), "unusable answer"),
    ],
)
def test_damaged_answers_are_named_in_one_line(methods, tmp_path, change, message):
    files = make_study(tmp_path / "study", two(methods))
    given = answer(files, "rater", random.Random(0), rate(0.5))
    change(given)
    path = tmp_path / "given.json"
    path.write_text(json.dumps(given))
    with pytest.raises(InputError, match=message) as caught:
        analyse_study(files.key, [path])
    assert "\n" not in str(caught.value)
    assert "given.json" in str(caught.value)


def test_other_files_are_refused(methods, tmp_path):
    files = make_study(tmp_path / "study", two(methods))
    path = save(tmp_path, answer(files, "rater", random.Random(0), rate(0.5)))
    with pytest.raises(InputError, match="'rater' is given twice"):
        analyse_study(files.key, [path, path])
    with pytest.raises(InputError, match="not the key of a study"):
        analyse_study(path, [path])
    with pytest.raises(InputError, match="does not exist"):
        analyse_study(files.key, [tmp_path / "absent.json"])
    with pytest.raises(InputError, match="not valid JSON"):
        analyse_study(files.key, [files.page])


def test_impossible_studies_are_refused(methods, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="a study of 1 methods; expected two or more"):
        make_study(tmp_path / "out", {"ours": methods["ours"]})
    with pytest.raises(InputError, match="has no image"):
        make_study(tmp_path / "out", {"ours": methods["ours"], "theirs": empty})
    with pytest.raises(InputError, match="is not a directory"):
        make_study(tmp_path / "out", {"ours": methods["ours"], "theirs": tmp_path / "absent"})
    with pytest.raises(InputError, match="21 pairs of 20 common images and 2 methods"):
        make_study(tmp_path / "out", two(methods), pairs=21)
    (empty / "stranger.png").write_bytes((methods["ours"] / "person-00.png").read_bytes())
    with pytest.raises(InputError, match="no image has the same name in all of ours, theirs"):
        make_study(tmp_path / "out", {"ours": methods["ours"], "theirs": empty})
    (empty / "person-01.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"person-01\.png"):
        make_study(tmp_path / "out", {"ours": methods["ours"], "theirs": empty})
    assert not (tmp_path / "out").exists()


def test_the_command_makes_and_analyses(methods, tmp_path):
    run = CliRunner().invoke
    folders = [f"{name}={folder}" for name, folder in two(methods).items()]
    out = tmp_path / "study"
    options = ["--pairs", "5", "--question", "Which is older?", "--checks", "1"]
    options += ["--reference", str(methods["others"])]
    made = run(
        main,
        ["study", "make", str(out), *folders, *options, "--json"],
    )
    assert made.exit_code == 0, made.output
    assert json.loads(made.output) == {
        "page": str(out / "study.html"),
        "key": str(out / "key.json"),
    }
    trials = page_data(out / "study.html", "trials")
    assert len(trials) == 6 and all("reference" in trial for trial in trials)
    key = json.loads((out / "key.json").read_text())
    assert key["trials"][0]["question"] == "Which is older?"
    wrong = run(main, ["study", "make", str(out), "ours"])
    assert wrong.exit_code == 2
    assert "expected NAME=FOLDER" in wrong.output

    class Files:
        key, page = out / "key.json", out / "study.html"

    path = save(tmp_path, answer(Files, "rater", random.Random(0), rate(1.0)))
    analysed = run(main, ["study", "analyse", str(out / "key.json"), str(path), "--json"])
    assert analysed.exit_code == 0, analysed.output
    found = json.loads(analysed.output)["questions"]["Which is older?"]["pairs"]["ours vs theirs"]
    assert found["mean"] == 1.0
    assert found["low"] == pytest.approx(1 / (1 + 1.959964**2 / 5), abs=1e-6), "Wilson, n = n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_rater_in_a_browser(methods, tmp_path):
    """Consent first; keys and clicks choose; a reload continues; the file analyses."""
    playwright = pytest.importorskip("playwright.sync_api")
    files = make_study(tmp_path, two(methods), pairs=6, checks=2, reference=methods["others"])
    key = json.loads(files.key.read_text())
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 390, "height": 800})
        problems = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(files.page.as_uri())
        assert page.locator("#begin").is_disabled()
        page.keyboard.press("ArrowLeft")
        assert page.locator("#ask").is_hidden(), "nobody answers before consenting"
        page.check("#consent")
        page.click("#begin")
        for number in range(8):
            assert page.inner_text("#count") == f"{number + 1} of 8"
            question = page.inner_text("#question")
            side = re.search("choose the (left|right)", question)
            wanted = side[1] if side else _side_of(page, methods["ours"])
            page.wait_for_timeout(220)
            if number % 2:
                page.click(f"#{wanted}")
            else:
                page.keyboard.press(f"Arrow{wanted.title()}")
            if number == 3:
                page.reload()
                page.check("#consent")
                page.click("#begin")
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        with page.expect_download() as download:
            page.click("#save")
        saved = tmp_path / download.value.suggested_filename
        download.value.save_as(saved)
        browser.close()
    assert overflow <= 0 and problems == []
    assert len(json.loads(saved.read_text())["answers"]) == len(key["trials"]) == 8
    found = analyse_study(files.key, [saved])
    assert found["raters"]["excluded"] == {}
    assert next(iter(found["questions"].values()))["pairs"]["ours vs theirs"]["mean"] == 1.0


def _side_of(page, folder):
    """Return the side that shows an image of a folder."""
    shown = {_base64(path) for path in folder.iterdir()}
    source = page.get_attribute("#left img", "src")
    return "left" if source.partition(",")[2] in shown else "right"
