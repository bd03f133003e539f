"""`w2w import`: LoRA files from elsewhere become rows; what does not fit is listed."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from weights2weights import cli
from weights2weights.dataset import WeightDataset, import_loras, pack
from weights2weights.errors import W2WError
from weights2weights.formats import load_lora, write_lora_file
from weights2weights.layout import LoRAModule, WeightLayout

MODULES = tuple(
    LoRAModule(f"down_blocks.0.attentions.0.transformer_blocks.0.attn{i}.to_{part}", 4, 6)
    for i in (1, 2)
    for part in ("q", "v")
)
LAYOUT = WeightLayout(MODULES, rank=1, alpha=27.0, base="tiny")
OTHER = WeightLayout(MODULES, rank=4, alpha=27.0, base="tiny")


def weights(seed: int, layout: WeightLayout = LAYOUT) -> torch.Tensor:
    return torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def loras(tmp_path) -> Path:
    """A folder of LoRAs of every format, of one layout."""
    folder = tmp_path / "loras"
    folder.mkdir()
    write_lora_file(folder / "anna.safetensors", weights(0), LAYOUT, "kohya")
    write_lora_file(folder / "bo b.safetensors", weights(1), LAYOUT, "diffusers")
    write_lora_file(folder / "çelik", weights(2), LAYOUT, "peft")
    return folder


BAD = ("alpha", "fewer", "rank", "text", "torn")


def run(*args: object):
    return CliRunner().invoke(cli.main, ["import", *map(str, args)], prog_name="w2w")


def test_a_folder_of_every_format(tmp_path, loras):
    result = run(loras, "--out", tmp_path / "set", "--json")
    assert result.exit_code == 0, result.stderr
    dataset = WeightDataset.open(tmp_path / "set")
    assert json.loads(result.stdout) == {
        "path": str(tmp_path / "set"),
        "models": 3,
        "added": 3,
        "known": 0,
        "refused": {},
        "layout": LAYOUT.hash,
        "bases": {"tiny": 3},
    }
    assert dataset.names == ("anna", "bo b", "çelik")
    assert torch.equal(dataset[:], torch.stack([weights(i) for i in range(3)]))
    assert dataset.layout == LAYOUT
    assert dataset.verify() == {}
    assert dataset.info("bo b") == {
        "base": "tiny",
        "file": "bo b.safetensors",
        "format": "diffusers",
    }


def test_repeating_changes_nothing_and_more_may_follow(tmp_path, loras):
    out = tmp_path / "set"
    files = [loras / "anna.safetensors", loras / "bo b.safetensors", loras / "çelik"]
    assert run(*files[:2], "--out", out).exit_code == 0
    before = (out / "anna.safetensors").read_bytes()
    again = run(*files[:2], "--out", out, "--json")
    assert (json.loads(again.stdout)["added"], json.loads(again.stdout)["known"]) == (0, 2)
    assert (out / "anna.safetensors").read_bytes() == before
    assert run(*files, "--out", out).exit_code == 0
    run(*files, "--out", tmp_path / "once")
    assert (out / "anna.safetensors").read_bytes() == (
        tmp_path / "once/anna.safetensors"
    ).read_bytes()


def test_what_does_not_fit_is_listed_and_the_others_go_in(tmp_path, loras):
    write_lora_file(loras / "rank.safetensors", weights(3, OTHER), OTHER, "kohya")
    louder = WeightLayout(MODULES, rank=1, alpha=1.0)
    write_lora_file(loras / "alpha.safetensors", weights(3), louder, "kohya")
    fewer = WeightLayout(MODULES[:2], rank=1, alpha=27.0)
    write_lora_file(loras / "fewer.safetensors", weights(3, fewer), fewer, "kohya")
    (loras / "torn.safetensors").write_bytes((loras / "anna.safetensors").read_bytes()[:-9])
    (loras / "text.safetensors").write_text("no LoRA")
    good = [loras / "anna.safetensors", loras / "bo b.safetensors", loras / "çelik"]
    bad = [loras / f"{name}.safetensors" for name in ("absent", *BAD)]
    result = run(good[0], *bad, *good[1:], "--out", tmp_path / "set")
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    found = {Path(line.split(":")[1].strip().split(" has ")[0]).stem: line for line in lines}
    assert found.keys() == {"absent", *BAD}
    assert "another layout: rank 4, expected 1" in found["rank"]
    assert "another layout: alpha 1, expected 27" in found["alpha"]
    assert "another layout: 4 missing" in found["fewer"]
    assert WeightDataset.open(tmp_path / "set").names == ("anna", "bo b", "çelik")
    assert "refused" in result.stdout


def test_the_dataset_sets_the_layout(tmp_path, loras):
    WeightDataset.create(tmp_path / "set", OTHER)
    result = run(loras, "--out", tmp_path / "set", "--json")
    assert result.exit_code == 1
    facts = json.loads(result.stdout)
    assert (facts["models"], len(facts["refused"])) == (0, 3)


def test_nothing_readable_makes_no_dataset(tmp_path):
    (tmp_path / "text.safetensors").write_text("no LoRA")
    result = run(tmp_path / "text.safetensors", "--out", tmp_path / "set", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["layout"] is None
    assert not (tmp_path / "set").exists()


def test_a_name_that_is_taken(tmp_path, loras):
    run(loras, "--out", tmp_path / "set")
    write_lora_file(tmp_path / "anna.safetensors", weights(9), LAYOUT, "kohya")
    result = run(tmp_path / "anna.safetensors", "--out", tmp_path / "set")
    assert result.exit_code == 1
    assert "holds other weights as 'anna'" in result.stderr
    assert torch.equal(WeightDataset.open(tmp_path / "set")["anna"], weights(0))


def test_names_that_come_twice_get_their_folder(tmp_path):
    for i, place in enumerate(["x/one/lora", "x/two/lora", "x/solo"]):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        write_lora_file(tmp_path / f"{place}.safetensors", weights(i), LAYOUT, "kohya")
    files = sorted(tmp_path.rglob("*.safetensors"))
    outcome = import_loras(files, tmp_path / "set")
    assert set(outcome.added) == {"one/lora", "two/lora", "solo"}
    same = [tmp_path / "x/solo.safetensors", tmp_path / "x/one/../solo.safetensors"]
    assert import_loras(same, tmp_path / "other").added == ["solo"]
    write_lora_file(tmp_path / "x" / "solo", weights(4), LAYOUT, "peft")
    with pytest.raises(W2WError, match=r"solo.safetensors and .*solo would both be"):
        import_loras([same[0], tmp_path / "x/solo"], tmp_path / "other")


def test_files_that_other_programs_name_are_called_after_their_folder(tmp_path):
    for i, name in enumerate(("anna", "bo")):
        (tmp_path / name).mkdir()
        write_lora_file(tmp_path / name, weights(i), LAYOUT, "diffusers")
    write_lora_file(tmp_path / "cleo", weights(2), LAYOUT, "peft")
    inside = tmp_path / "anna" / "pytorch_lora_weights.safetensors"
    outcome = import_loras([inside, tmp_path / "bo", tmp_path / "cleo"], tmp_path / "set")
    assert outcome.added == ["anna", "bo", "cleo"]


def test_labels_and_base(tmp_path, loras):
    table = tmp_path / "labels.csv"
    table.write_text("name,Bald,Age\nanna,1,30\nbo b,-1,\nnobody,1,5\n")
    result = run(loras, "--out", tmp_path / "set", "--labels", table, "--base", "my base")
    assert result.exit_code == 0, result.stderr
    dataset = WeightDataset.open(tmp_path / "set")
    assert dataset.layout.base == "my base"
    assert dataset.labels["Bald"].iloc[:2].tolist() == [True, False]
    assert dataset.labels["Age"].dropna().tolist() == [30]


def test_alpha_that_files_do_not_state(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "loras").mkdir()
    tensors = {
        key.replace("base_model.model", "unet"): tensor
        for key, tensor in LAYOUT.unflatten(weights(0)).items()
    }
    save_file(tensors, tmp_path / "loras" / "anna.safetensors")
    assert "does not state its alpha" in run(tmp_path / "loras", "--out", tmp_path / "set").stderr
    result = run(tmp_path / "loras", "--out", tmp_path / "set", "--alpha", "27")
    assert result.exit_code == 0, result.stderr
    assert WeightDataset.open(tmp_path / "set").layout.alpha == 27


def test_rows_keep_the_dtype_of_their_file(tmp_path, loras):
    write_lora_file(loras / "dora.safetensors", weights(3).half(), LAYOUT, "kohya")
    assert run(loras, "--out", tmp_path / "set").exit_code == 0
    dataset = WeightDataset.open(tmp_path / "set")
    assert load_lora(dataset.path_of("dora")).weights.dtype == torch.float16
    assert torch.equal(dataset["dora"], weights(3).half().float())


def test_datasets_are_merged_with_their_labels(tmp_path):
    for seed, name in enumerate("ab"):
        labels = {f"{name} 0": {"Bald": seed}}
        dataset = WeightDataset.create(tmp_path / name, LAYOUT, base_hash="x", labels=labels)
        dataset.write(f"{name} 0", weights(seed), seed=seed, info={"loss": 0.5})
    assert run(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both").exit_code == 0
    both = WeightDataset.open(tmp_path / "both")
    assert (both.names, both.base_hash) == (("a 0", "b 0"), "x")
    assert both.labels["Bald"].tolist() == [False, True]
    assert both.info("b 0") == {"loss": 0.5}
    assert load_lora(both.path_of("b 0")).metadata["w2w_seed"] == "1"


def test_packed_datasets_are_merged_as_well(tmp_path):
    for seed, name in enumerate("ab"):
        dataset = WeightDataset.create(tmp_path / name, LAYOUT, labels={"ada": {"Bald": seed}})
        dataset.write("ada", weights(seed), seed=seed, info={"loss": 0.5})
    pack(dataset, tmp_path / "packed" / "b")
    both = import_loras([tmp_path / "a", tmp_path / "packed" / "b"], tmp_path / "both").dataset
    assert both is not None and both.names == ("a/ada", "b/ada")
    assert torch.equal(both["b/ada"], weights(1))
    assert both.labels["Bald"].tolist() == [False, True]
    assert both.info("b/ada") == {"loss": 0.5}
    assert load_lora(both.path_of("b/ada")).metadata["w2w_seed"] == "1"


def test_labels_follow_names_that_come_twice(tmp_path):
    for seed, name in enumerate("AB"):
        dataset = WeightDataset.create(tmp_path / name, LAYOUT, labels={"ada": {"Bald": seed}})
        dataset.write("ada", weights(seed))
    both = import_loras([tmp_path / "A", tmp_path / "B"], tmp_path / "both").dataset
    assert both is not None and both.names == ("A/ada", "B/ada")
    assert both.labels["Bald"].tolist() == [False, True]


def test_more_than_one_base_is_told(tmp_path, loras):
    other = WeightLayout(MODULES, rank=1, alpha=27.0, base="another")
    write_lora_file(loras / "zoe.safetensors", weights(5), other, "kohya")
    result = run(loras, "--out", tmp_path / "set")
    assert result.exit_code == 0
    assert "Note: the files name several base models (another, tiny)." in result.stderr


def test_nothing_to_import(tmp_path):
    assert run("--out", tmp_path / "set").exit_code == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(W2WError, match="a folder without LoRAs"):
        import_loras([tmp_path / "empty"], tmp_path / "set")
    with pytest.raises(W2WError, match="no files to import"):
        import_loras([], tmp_path / "set")


def test_info_and_verify_know_a_dataset(tmp_path, loras):
    out = tmp_path / "set"
    run(loras, "--out", out)
    WeightDataset.open(out).write_failure("dora", "no images")
    runner = CliRunner()
    facts = json.loads(runner.invoke(cli.main, ["info", str(out), "--json"]).stdout)
    expected = {
        "models": 3,
        "numbers": LAYOUT.num_parameters,
        "layout": LAYOUT.hash,
        "base": "tiny",
    }
    assert {name: facts[name] for name in expected} == expected
    assert (facts["failed"], facts["failures"]) == (1, {"dora": "no images"})
    assert runner.invoke(cli.main, ["info", str(out)]).exit_code == 0
    assert runner.invoke(cli.main, ["verify", str(out)]).exit_code == 0
    path = out / "çelik.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = runner.invoke(cli.main, ["verify", str(out)])
    assert result.exit_code == 1
    assert "çelik.safetensors is damaged" in result.stderr
    (out / "dataset.json").write_text("{")
    for verb in ("info", "verify"):
        result = runner.invoke(cli.main, [verb, str(out)])
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert "dataset.json is not valid JSON" in result.stderr


def test_pack_makes_shards_that_info_knows(tmp_path, loras):
    run(loras, "--out", tmp_path / "set")
    runner, packed = CliRunner(), tmp_path / "packed"
    result = runner.invoke(
        cli.main, ["pack", str(tmp_path / "set"), "--out", str(packed), "--json"]
    )
    assert json.loads(result.stdout) == {"path": str(packed), "models": 3, "shards": 1}
    facts = json.loads(runner.invoke(cli.main, ["info", str(packed), "--json"]).stdout)
    assert (facts["models"], facts["layout"]) == (3, LAYOUT.hash)
    assert runner.invoke(cli.main, ["verify", str(packed)]).exit_code == 0
