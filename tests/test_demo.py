"""The tour runs from images to a LoRA file, and its report says what the figures are of."""

import html
import html.parser
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tiny_setting
from weights2weights.errors import W2WError
from weights2weights.evaluate._demo_page import _told_training, next_steps
from weights2weights.evaluate.demo import POPULATION, _Tour, demo
from weights2weights.formats import load_lora
from weights2weights.models import load_model

FIELDS = {
    "train": {"subjects", "seconds", "verification_auc"},
    "space": {"seconds", "models", "components", "captured_variance"},
    "sample": {"seconds", "verification_auc"},
    "edit": {"seconds", "success", "id_score", "others_kept"},
    "invert": {"seconds", "id_score"},
    "export": {"seconds", "max_abs_difference"},
}


@pytest.fixture(scope="module")
def toured(tiny_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("tour") / "demo"
    setting = tiny_setting.setting(tiny_base)
    said = []
    report = demo(
        setting,
        out,
        subjects=3,
        images=2,
        samples=3,
        attributes=("Male", "Young", "Eyeglasses"),
        say=said.append,
    )
    return setting, out, report, said


def test_report_has_every_field_and_says_what_it_was_measured_on(toured):
    setting, out, report, said = toured
    assert json.loads((out / "report.json").read_text()) == report
    for stage, fields in FIELDS.items():
        assert fields <= set(report[stage]), stage
        assert report[stage]["seconds"] > 0
    assert report["base"] == setting.base.id
    assert report["dtype"] == "float32"
    assert report["space"]["name"] == "tiny"
    assert report["space"]["models"] == tiny_setting.MODELS
    assert report["space"]["components"] == tiny_setting.COMPONENTS
    assert report["seed"] == 0
    assert "torch" in report["machine"]
    assert report["train"]["subjects"] == 3
    assert report["seconds"] >= sum(report[stage]["seconds"] for stage in FIELDS)
    assert len(said) == len(FIELDS)


def test_drawings_are_compared_with_other_drawings_of_their_person(toured):
    """Images that the mean is made of would be nearer to it than any other."""
    setting, out, report, _ = toured
    names = sorted(path.name for path in (out / "subjects").iterdir() if path.is_dir())
    images = setting.images_of(names, 4, 108)
    others = setting.scorer.identity(images.reshape(12, *images.shape[2:])).view(3, 4, -1)
    expected = float((others * setting.references(names)[:, None]).sum(-1).mean())
    assert report["train"]["id_score_of_drawings"] == pytest.approx(expected, abs=1e-5)
    assert report["invert"]["id_score_of_drawings"] == report["train"]["id_score_of_drawings"]


def test_subjects_are_ordinary_files_that_no_space_was_fitted_to(toured):
    setting, out, _, _ = toured
    folders = [path for path in (out / "subjects").iterdir() if path.is_dir()]
    assert len(folders) == 3
    assert all(len(list(folder.glob("*.png"))) == 2 for folder in folders)
    assert not {folder.name for folder in folders} & set(setting.space.names)


def test_exported_lora_is_the_model_of_the_photo(toured):
    setting, out, report, _ = toured
    assert report["export"]["max_abs_difference"] < 1e-4
    lora = load_lora(out / "photo-lora.safetensors")
    model = load_model(out / "models" / "photo.safetensors")
    assert lora.weights.sub(setting.space.weights_of(model)).abs().max() < 1e-6


def test_diffusers_would_notice_another_lora(toured, monkeypatch):
    """The comparison is no tautology: a file with other weights shows."""
    from weights2weights.evaluate import demo as module

    setting, _, _, _ = toured
    weights = setting.space.to_weights(setting.space.coefficients[0])
    write = module.save_lora
    monkeypatch.setattr(module, "save_lora", lambda path, w, *rest: write(path, 2 * w, *rest))
    difference, reason = module.compare_with_diffusers(setting, weights)
    assert reason == ""
    assert difference is not None and difference > 1e-3


class Reader(html.parser.HTMLParser):
    """Collects what a page asks for and whether its elements close."""

    VOID = {"meta", "link", "img", "br"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.without_alt, self.headings = [], [], 0, []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.sources += [v for k, v in attrs if k in ("src", "href") and v]
        self.without_alt += tag == "img" and "alt" not in attributes
        self.headings += [tag] if re.fullmatch("h[1-6]", tag) else []
        assert tag != "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_one_whole_file(toured):
    _, out, report, _ = toured
    page = (out / "report.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert not reader.without_alt
    assert all(source.startswith(("data:", "#")) for source in reader.sources)
    assert reader.headings.count("h1") == 1
    assert reader.headings.count("h2") == len(FIELDS) + 1
    assert "no photograph" in page
    assert report["machine"] in page
    assert "url(" not in page


def test_tour_goes_on_with_its_own_people_only(toured, tmp_path):
    setting, out, report, _ = toured
    assert report["train"]["models_there_before"] == 0
    shutil.copytree(out, tmp_path / "demo")

    def train(setting, subjects):
        tour = _Tour(setting, tmp_path / "demo", subjects, 2, ("Male",), 3.0)
        stage = tour.train({})
        assert tour.weights.shape == (subjects, setting.layout.num_parameters)
        return stage.figures["models_there_before"], stage.section

    there, page = train(setting, 3)
    assert there == 3 and "in an earlier tour in this folder" in page
    (tmp_path / "demo" / "subjects" / f"people-{POPULATION}-00002" / "000.png").write_bytes(b"")
    there, page = train(replace(setting, seed=1), 2)
    assert there == 0 and "earlier tour" not in page
    assert "for 1 of them in an earlier tour" in _told_training(3, 1, 9.6)
    assert "others, all at once, in 10 seconds" in _told_training(3, 1, 9.6)


def test_people_of_the_tour_are_strangers_to_the_space(tiny_base, tmp_path):
    setting = tiny_setting.setting(tiny_base)
    names = (f"people-{POPULATION}-00001", *setting.space.names[1:])
    space = replace(setting.space, names=names, labels=setting.space.labels.set_axis(names))
    with pytest.raises(W2WError, match=rf"fitted to 1 .* people-{POPULATION}-00001"):
        demo(replace(setting, space=space), tmp_path, attributes=("Male",))
    assert not list(tmp_path.iterdir())


def test_commands_that_go_on_are_of_the_same_base_and_space(toured):
    setting, _, _, _ = toured
    prompt = f"{setting.recipe.instance_prompt}, in a forest"
    other = html.unescape(next_steps(setting, Path("my tour"), ["Male"]))
    assert "w2w edit 'my tour/models/photo.safetensors' --set Male=3 --space tiny --out" in other
    assert f"--prompt '{prompt}' --base {shlex.quote(setting.base.id)} --space tiny" in other
    base = replace(setting.base, id="people")
    shipped = next_steps(replace(setting, base=base, space_name="people"), Path("demo"), ["Bald"])
    assert "--base" not in shipped and "--space" not in shipped


def test_space_without_labels_is_told_before_any_work(tiny_base, tmp_path):
    setting = tiny_setting.setting(tiny_base)
    space = setting.space.with_models(setting.space.coefficients, setting.space.names)
    with pytest.raises(W2WError, match="no labels among Male"):
        demo(replace(setting, space=space), tmp_path, attributes=("Male",))
    assert not list(tmp_path.iterdir())
