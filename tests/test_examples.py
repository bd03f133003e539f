"""The examples of docstrings run as they stand there; `test_docs` runs those of the pages."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import weights2weights

PACKAGE = Path(weights2weights.__file__).parent

MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name, tmp_path, monkeypatch):
    """Examples may use the names of their module, of its package and of the contents page."""
    monkeypatch.chdir(tmp_path)
    module = import_module(name)
    public = {name: getattr(weights2weights, name) for name in weights2weights.__all__}
    package = vars(import_module(module.__spec__.parent))
    result = doctest.testmod(module, globs={**public, **package, **vars(module)})
    assert result.attempted
    assert not result.failed
