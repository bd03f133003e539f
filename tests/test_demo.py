"""The demo runs from images to a LoRA file, and its report says what was measured, on what."""

import html.parser
import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tiny_setting
from weights2weights.errors import W2WError
from weights2weights.evaluate.demo import demo, next_steps
from weights2weights.evaluate.demo._stages import POPULATION, Demo, train
from weights2weights.exports import save_lora
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
def done(tiny_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "demo"
    setting = tiny_setting.setting(tiny_base)
    log = []
    report = demo(
        setting,
        out,
        subjects=3,
        images=2,
        samples=3,
        attributes=("Male", "Young", "Eyeglasses"),
        log=log.append,
    )
    return setting, out, report, log


def test_report_has_every_field_and_says_what_it_was_measured_on(done):
    setting, out, report, log = done
    assert json.loads((out / "report.json").read_text()) == report
    for stage, fields in FIELDS.items():
        assert fields <= set(report[stage]), stage
        assert report[stage]["seconds"] > 0
    for measure in ("success", "id_score", "others_kept"):
        assert {"mean", "low", "high"} <= set(report["edit"][measure])
    assert report["base"] == setting.base.id
    assert report["dtype"] == "float32"
    assert report["space"]["name"] == "tiny"
    assert report["space"]["models"] == tiny_setting.MODELS
    assert report["space"]["components"] == tiny_setting.COMPONENTS
    assert report["seed"] == 0
    assert "torch" in report["machine"]
    assert report["train"]["subjects"] == 3
    assert report["seconds"] >= sum(report[stage]["seconds"] for stage in FIELDS)
    assert len(log) == len(FIELDS)


def test_drawings_are_not_compared_with_themselves(done):
    """Images that the reference is the mean of would be closer to it than others."""
    setting, out, report, _ = done
    names = sorted(path.name for path in (out / "subjects").iterdir() if path.is_dir())
    images = setting.drawings(names, 4, 108)
    others = setting.scorer.identity(images.reshape(12, *images.shape[2:])).view(3, 4, -1)
    expected = float((others * setting.references(names)[:, None]).sum(-1).mean())
    assert report["train"]["id_score_of_drawings"] == pytest.approx(expected, abs=1e-5)
    assert report["invert"]["id_score_of_drawings"] == report["train"]["id_score_of_drawings"]


def test_subjects_are_ordinary_files_that_no_space_was_fitted_to(done):
    setting, out, _, _ = done
    folders = [path for path in (out / "subjects").iterdir() if path.is_dir()]
    assert len(folders) == 3
    assert all(len(list(folder.glob("*.png"))) == 2 for folder in folders)
    assert not {folder.name for folder in folders} & set(setting.space.names)


def test_exported_lora_is_the_model_of_the_photo(done):
    (_, out, report, _), space = done, done[0].space
    assert report["export"]["max_abs_difference"] < 1e-4
    lora = load_lora(out / "photo-lora.safetensors")
    model = load_model(out / "models" / "photo.safetensors")
    assert lora.weights.sub(space.to_weights(space.coefficients_of(model))).abs().max() < 1e-6


def test_diffusers_would_notice_another_lora(done, monkeypatch):
    """The comparison is not a tautology: other weights in the file make a difference."""
    setting, _, _, _ = done
    weights = setting.space.to_weights(setting.space.coefficients[0])
    module = sys.modules["weights2weights.evaluate.demo._stages"]
    monkeypatch.setattr(module, "save_lora", lambda path, w, **rest: save_lora(path, 2 * w, **rest))
    assert module.difference_to_diffusers(setting, weights) > 1e-3


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


def test_page_is_one_whole_file(done):
    _, out, report, _ = done
    page = (out / "report.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert not reader.without_alt
    assert all(source.startswith(("data:", "#")) for source in reader.sources)
    assert reader.headings.count("h1") == 1
    assert reader.headings.count("h2") == len(FIELDS) + 1
    assert "photograph" not in page, "the tiny base may have been trained on anything"
    assert "real person" not in page
    assert report["statement"] in page
    assert report["machine"] in page
    assert "url(" not in page


def test_second_run_reuses_the_models_of_its_own_people_only(done, tmp_path):
    setting, out, report, _ = done
    assert report["train"]["models_before"] == 0
    assert "An earlier run" not in (out / "report.html").read_text()
    shutil.copytree(out, tmp_path / "demo")

    def again(setting, subjects):
        run = Demo.plan(setting, tmp_path / "demo", subjects, ("Male",))
        trained = train(run, 2)
        weights, _ = trained.made
        assert weights.shape == (subjects, setting.layout.num_parameters)
        return trained.figures["models_before"]

    assert again(setting, 3) == 3
    (tmp_path / "demo" / "subjects" / f"people-{POPULATION}-00002" / "000.png").write_bytes(b"")
    assert again(replace(setting, seed=1), 2) == 0
    whole = {"subjects": 3, "images": 2, "samples": 3, "attributes": ("Male",)}
    demo(setting, tmp_path / "demo", **whole)
    assert "An earlier run" in (tmp_path / "demo" / "report.html").read_text()


def test_space_that_was_fitted_to_the_people_is_refused(tiny_base, tmp_path):
    setting = tiny_setting.setting(tiny_base)
    names = (f"people-{POPULATION}-00001", *setting.space.names[1:])
    space = replace(setting.space, names=names, labels=setting.space.labels.set_axis(names))
    with pytest.raises(W2WError, match=rf"fitted to 1 .* people-{POPULATION}-00001"):
        demo(replace(setting, space=space), tmp_path, attributes=("Male",))
    assert not list(tmp_path.iterdir())


def test_next_commands_are_of_the_same_base_and_space(done):
    setting, _, _, _ = done

    def commands(setting, out, label):
        run = Demo.plan(setting, Path(out), 2, (label,))
        return "\n".join(line for lines in next_steps(run).values() for line in lines)

    other = commands(setting, "my demo", "Male")
    assert "w2w edit 'my demo/models/photo.safetensors' --set Male=3 --space tiny --out" in other
    prompt = f"{setting.recipe.instance_prompt}, in a forest"
    assert f"--prompt '{prompt}' --base {shlex.quote(setting.base.id)} --space tiny" in other
    embedded = replace(setting, base=replace(setting.base, id="people"), space_name="people")
    shipped = commands(embedded, "demo", "Bald")
    assert "--base" not in shipped and "--space" not in shipped


def test_space_without_labels_is_refused_before_any_work(tiny_base, tmp_path):
    setting = tiny_setting.setting(tiny_base)
    space = setting.space.with_models(setting.space.coefficients, setting.space.names)
    with pytest.raises(W2WError, match="no labels among Male"):
        demo(replace(setting, space=space), tmp_path, attributes=("Male",))
    assert not list(tmp_path.iterdir())
