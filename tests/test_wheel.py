"""The wheel alone is enough: built, installed into a clean environment, run without a network."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Runs at the start of every Python of the environment; local sockets stay allowed.
NO_NETWORK = """
import socket

def refuse(self, address, *rest):
    if self.family != socket.AF_UNIX:
        raise OSError(f"no network here: {address}")
    return connect(self, address, *rest)

connect, socket.socket.connect = socket.socket.connect, refuse
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A fresh virtual environment that holds the built wheel; dependencies are borrowed."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("weights2weights-*.whl")
    venv.create(folder / "env", with_pip=False)
    places = {"base": str(folder / "env"), "platbase": str(folder / "env")}
    packages = Path(sysconfig.get_path("purelib", "venv", places))
    # A plain path: .pth files in it are not read, so the editable install stays unseen.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "sitecustomize.py").write_text(NO_NETWORK)
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "env" / "bin" / "python",
        "install",
    ]
    subprocess.run([*install, "--quiet", "--no-deps", "--no-index", wheel], check=True)
    return folder / "env"


def run(environment: Path, *command: str, cwd: Path) -> str:
    variables = {"PATH": os.environ["PATH"], "HOME": str(cwd), "HF_HUB_OFFLINE": "1"}
    program = [environment / "bin" / command[0], *command[1:]]
    result = subprocess.run(program, capture_output=True, text=True, cwd=cwd, env=variables)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_package_is_the_installed_one_and_holds_no_experiments(environment, tmp_path):
    code = "import weights2weights, importlib.util as u; print(weights2weights.__file__)"
    where = run(environment, "python", "-c", code, cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    code = "import importlib.util as u; print(u.find_spec('experiments'), u.find_spec('tests'))"
    assert run(environment, "python", "-c", code, cwd=tmp_path).split() == ["None", "None"]


def test_the_network_is_off(environment, tmp_path):
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    with pytest.raises(AssertionError, match="no network here"):
        run(environment, "python", "-c", code, cwd=tmp_path)


def test_sample_and_export_run_from_the_wheel(environment, tmp_path):
    run(environment, "w2w", "sample", "people", "-n", "2", "--out", "new", cwd=tmp_path)
    models = sorted((tmp_path / "new").glob("*.safetensors"))
    assert len(models) == 2
    export = ["export", str(models[0]), "--format", "kohya", "--out", "lora.safetensors"]
    run(environment, "w2w", *export, cwd=tmp_path)
    facts = json.loads(run(environment, "w2w", "info", "lora.safetensors", "--json", cwd=tmp_path))
    assert facts["format"] == "kohya"


@pytest.mark.slow
def test_demo_runs_from_the_wheel(environment, tmp_path):
    run(environment, "w2w", "demo", "--subjects", "2", "--out", "demo", cwd=tmp_path)
    facts = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert facts["train"]["subjects"] == 2
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
