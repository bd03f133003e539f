"""Imports point upstream only, stay light, and the contents page tells the truth."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import weights2weights

PACKAGE = Path(weights2weights.__file__).parent

# Every room may import the rooms above it, never those below; rooms of one row do not know each
# other. What makes weights and spaces stands above what judges, draws and shows them.
ORDER = [
    {"errors"},
    {"_config", "_cpu", "_device", "_files", "_html", "_json", "_shipped", "layout"},
    {"_cache", "_safetensors", "images", "labels", "metrics", "sheets"},
    {"formats"},
    {"adapter", "models"},
    {"dataset"},
    {"bases", "pca", "protocols"},
    {"_memory", "_noise", "directions", "sampling", "updates"},
    {"subjects", "space"},
    {"opening", "published"},
    {"exports", "generation", "merging"},
    {"training", "scoring"},
    {"inversion"},
    {"worlds"},
    {"evaluate"},
    {"study"},
    {"inspection"},
    {"studio"},
    {"cli"},
    {"__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

HEAVY = ["diffusers", "transformers", "gradio", "ray", "sklearn", "torchvision", "huggingface_hub"]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(path: Path, *, at_import_only: bool = False) -> set[str]:
    """Absolute dotted names that a module imports, here also those inside its functions."""
    tree = ast.parse(path.read_text())
    nodes = _run_at_import(tree) if at_import_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ["weights2weights", *path.relative_to(PACKAGE).parts[:-1]]
            stem = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*stem, *([node.module] if node.module else [])])
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return names


def _run_at_import(node: ast.AST):
    """Walk a tree without the bodies of functions and of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run_at_import(child)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_point_upstream(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in RANK, f"give {room} its place in ORDER"
    for name in imported(path):
        if not name.startswith("weights2weights."):
            continue
        other = name.split(".")[1]
        if other.startswith("__") or other == room:
            continue
        assert RANK[other] < RANK[room], f"{dotted(path)} imports {name}, which lies downstream"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_heavy_packages_are_imported_by_the_function_that_needs_them(path):
    roots = {name.split(".")[0] for name in imported(path, at_import_only=True)}
    assert not roots & set(HEAVY)


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=dotted)
def test_verbs_import_the_library_inside_their_function(path):
    """So that the help of every verb is as quick as that of the program."""
    allowed = ("weights2weights.cli.", "weights2weights.errors.", "weights2weights.__")
    for name in imported(path, at_import_only=True):
        if name.startswith("weights2weights"):
            assert name.startswith(allowed), f"{dotted(path)} imports {name} at its top level"
        else:
            assert name.split(".")[0] in {"click", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", weights2weights.__all__)
def test_every_name_of_the_contents_page_exists(name):
    assert getattr(weights2weights, name) is not None
    assert name in dir(weights2weights)


def test_metrics_are_imported_on_first_use():
    assert set(weights2weights.metrics.__all__) == {
        path.stem for path in (PACKAGE / "metrics").glob("[!_]*.py")
    }
    assert weights2weights.metrics.faces


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = weights2weights.nothing


@pytest.mark.parametrize(
    "code",
    [
        "import weights2weights",
        "from weights2weights.cli import main; main(['--help'], standalone_mode=False)",
    ],
    ids=["import", "help"],
)
def test_start_is_quick_and_loads_nothing_heavy(code):
    """Best of several, in processor time: what else runs on the machine must not matter."""
    epilogue = "import sys, time; print(time.process_time(), *sys.modules, file=sys.stderr)"
    seconds, loaded = [], set()
    for _ in range(5):
        program = [sys.executable, "-c", f"{code}; {epilogue}"]
        result = subprocess.run(program, capture_output=True, text=True, check=True)
        spent, *names = result.stderr.split()
        seconds.append(float(spent))
        loaded.update(names)
    assert not loaded & {*HEAVY, "torch", "numpy", "pandas"}
    assert min(seconds) < 0.5
