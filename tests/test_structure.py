"""The shape of the package: no import circles, short functions and modules, plain docstrings."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import weights2weights

PACKAGE = Path(weights2weights.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
LONGEST = 84  # lines; to become 60
FUNCTIONS = {
    f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}": node
    for path, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
}


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in TREES}


def imported(path: Path) -> set[str]:
    """Modules of the package that a module imports when it is imported or type-checked."""
    found = set()
    waiting: list[ast.AST] = [TREES[path]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            source = ".".join([*here, *([node.module] if node.module else [])])
            inner = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else source for name in inner}
    return found & MODULES.keys()


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its `def`, without its docstring."""
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is None:
        return length
    docstring = node.body[0]
    return length - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def docstrings() -> dict[str, str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 1)}": text
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, kinds) and (text := ast.get_docstring(node))
    }


def test_no_module_imports_itself_through_others():
    graph = TopologicalSorter({name: imported(path) for name, path in MODULES.items()})
    try:
        graph.prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_functions_are_short():
    lengths = {name: lines(node) for name, node in FUNCTIONS.items()}
    too_long = {name: length for name, length in lengths.items() if length > LONGEST}
    assert not too_long
    assert sum(length <= 40 for length in lengths.values()) >= 0.9 * len(lengths)


def test_modules_are_short():
    assert median(len(path.read_text(encoding="utf-8").splitlines()) for path in TREES) <= 180


def test_docstrings_are_sentences():
    assert not {name for name, text in docstrings().items() if text.startswith("Give ")}
