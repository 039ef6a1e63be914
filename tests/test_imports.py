"""Who may import whom: the direction in which the library's modules depend on each other.

Each rule is a function from source text to complaints, so that it is shown here to complain.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mas_jax

ROOT = Path(__file__).parents[1]

# Each module imports from rows above its own only. A module with no place of its own stands at
# the end: it may import any of these and none of these may import it, but for the last row.
LAYERS = [
    {"types", "errors"},
    {"trees", "condition"},
    {"checks"},
    {"objectives", "compensated"},
    {"options", "microbatches", "optimizer_states"},
    {"per_sample", "placement"},
    {"fused"},
    {"engines", "programs"},
    {"data_parallel", "multi_process", "layers"},
    {"local"},
    {"accumulation", "independence"},
    {"importance"},
    {"anchor", "estimate"},
    {"penalty", "store"},
]
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PUBLIC = {*mas_jax.__all__, "metrics"}


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """(path relative to the root, source text) of each Python file in `folders`."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()


def imported_names(source: str) -> Iterator[str]:
    """Dotted names of what is imported: `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def library_imports(source: str) -> set[str]:
    """The modules of the library that `source` imports, "__init__" for what it re-exports."""
    paths = [name.split(".") for name in imported_names(source)]
    names = {path[1] if len(path) > 1 else "__init__" for path in paths if path[0] == "mas_jax"}
    return {"__init__" if name in mas_jax.__all__ else name for name in names}


def module_name(path: str) -> str:
    """mas_jax/fused/rules.py -> fused."""
    return Path(path).relative_to("mas_jax").parts[0].removesuffix(".py")


def upward(module: str, imported: set[str]) -> set[str]:
    """Those of `imported` that `module` must not import."""
    last = len(LAYERS) - 1
    rank = RANKS.get(module, last)

    def allowed(name: str) -> bool:
        if name in (module, "__init__"):
            return name == module
        unplaced = name not in RANKS or module not in RANKS
        return RANKS.get(name, last) < rank or (rank == last and unplaced)

    return {name for name in imported if not allowed(name)}


def misplaced_imports(source: str) -> list[int]:
    """Lines of imports inside functions and classes, or below the first of these in a file."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    lines, defined = [], False
    for statement in ast.parse(source).body:
        defined |= isinstance(statement, definitions)
        imports = [n for n in ast.walk(statement) if isinstance(n, ast.Import | ast.ImportFrom)]
        lines += [node.lineno for node in imports if defined]
    return lines


def private_uses(source: str) -> set[str]:
    """What of mas_jax `source` uses beyond its public names."""
    tree = ast.parse(source)
    uses, aliases = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "mas_jax":
                    aliases[alias.asname or "mas_jax"] = alias.name if alias.asname else "mas_jax"
                    uses |= {f"{alias.name}.*"} if "." in alias.name else set()
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mas_jax":
            uses |= {f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            target = aliases.get(node.value.id)
            uses |= {f"{target}.{node.attr}"} if target else set()

    def is_public(use: str) -> bool:
        name, *rest = use.split(".")[1:]
        within_metrics = name == "metrics" and not any(part.startswith("_") for part in rest)
        return name in PUBLIC and (not rest or within_metrics)

    return {use for use in uses if not is_public(use)}


def test_the_library_depends_downwards():
    for path, source in sources("mas_jax"):
        module = module_name(path)
        if module != "__init__":
            assert not upward(module, library_imports(source)), f"{path} imports upwards"


def test_the_library_imports_form_no_cycle():
    graph: dict[str, set[str]] = {}
    for path, source in sources("mas_jax"):
        graph.setdefault(module_name(path), set()).update(library_imports(source))
    del graph["__init__"]
    while graph:
        leaves = [name for name, uses in graph.items() if not (uses - {name}) & graph.keys()]
        assert leaves, f"modules that import each other: {sorted(graph)}"
        for name in leaves:
            del graph[name]


def test_only_the_store_imports_orbax():
    store = {f"mas_jax/{name}.py" for name in ("entries", "leftovers")}
    for path, source in sources("mas_jax", "experiments"):
        if path not in store:
            assert not [name for name in imported_names(source) if "orbax" in name], path


def test_the_library_does_not_know_the_experiments():
    for path, source in sources("mas_jax"):
        roots = {name.split(".")[0] for name in imported_names(source)}
        assert not roots & {"experiments", "tests"}, path
        assert "" not in roots, f"{path} has a relative import"


def test_experiments_use_public_names_only():
    for path, source in sources("experiments"):
        assert not private_uses(source), path


def test_imports_stand_at_the_top():
    for path, source in sources("mas_jax", "experiments", "tests"):
        assert not misplaced_imports(source), f"{path}: imports below the top of the file"


def test_the_oracle_owes_the_library_nothing():
    source = (ROOT / "tests" / "oracle.py").read_text()
    roots = {name.split(".")[0] for name in imported_names(source)}
    assert roots == {"collections", "math", "numpy", "typing"}


# The rules complain where they should.


@pytest.mark.parametrize(
    ("module", "source", "forbidden"),
    [
        ("types", "from mas_jax import trees", {"trees"}),
        ("errors", "from mas_jax.types import Params", {"types"}),
        ("importance", "from mas_jax.anchor import Anchor", {"anchor"}),
        ("importance", "from mas_jax import checks, anchor", {"anchor"}),
        ("compensated", "import mas_jax.objectives", {"objectives"}),
        ("penalty", "from mas_jax.store import AnchorStore", {"store"}),
        ("anchor", "from mas_jax import adapters", {"adapters"}),
        ("anchor", "import mas_jax", {"__init__"}),
        ("penalty", "from mas_jax import Anchor", {"__init__"}),
        ("penalty", "from mas_jax.anchor import Anchor", set()),
        ("store", "from mas_jax import digests", set()),
        ("adapters", "from mas_jax import anchor, types", set()),
    ],
)
def test_upward_imports_are_found(module, source, forbidden):
    assert upward(module, library_imports(source)) == forbidden


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import a\n\ndef f():\n    import b\n", [4]),
        ("import a\n\nclass C:\n    from b import c\n", [4]),
        ("def f(): ...\n\nimport a\n", [3]),
        ("try:\n    import a\nexcept ImportError:\n    a = None\n", []),
        ("import os\n\nX = 1\n\nimport a\n", []),
    ],
)
def test_misplaced_imports_are_found(source, lines):
    assert misplaced_imports(source) == lines


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("import mas_jax\nmas_jax.consolidate\nmas_jax.metrics.forgetting", set()),
        ("from mas_jax import metrics, Anchor\nfrom mas_jax.metrics import forgetting", set()),
        ("import mas_jax\nmas_jax.trees.select", {"mas_jax.trees"}),
        ("import mas_jax as mj\nmj.importance._init", {"mas_jax.importance"}),
        ("from mas_jax import checks", {"mas_jax.checks"}),
        ("from mas_jax.anchor import Anchor", {"mas_jax.anchor.Anchor"}),
        ("from mas_jax.metrics import _checked", {"mas_jax.metrics._checked"}),
        ("import mas_jax.penalty", {"mas_jax.penalty.*"}),
        ("import mas_jax.metrics as m\nm.forgetting", set()),
        ("from mas_jax.penalty import Anchor", {"mas_jax.penalty.Anchor"}),
    ],
)
def test_private_uses_are_found(source, uses):
    assert private_uses(source) == uses
