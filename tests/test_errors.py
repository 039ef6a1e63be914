"""Every typed error ends with the next step: what to do, or what it probably was."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mas_jax

LIBRARY = Path(mas_jax.__file__).parent
TYPED = {
    name
    for name in mas_jax.__all__
    if isinstance(getattr(mas_jax, name), type)
    and issubclass(getattr(mas_jax, name), mas_jax.MasJaxError)
}
STEPS = (
    "ask", "call", "choose", "delete", "end", "give", "go back", "look", "mend", "multiply", "pass",
    "put", "remove", "rename", "save", "see", "try", "turn on", "upgrade", "lists", "is excluded",
    "is optax.MaskedNode()", "was it", "is another", "did training", "cast",
)  # fmt: skip
"""How a next step is said in this library."""


def text_of(node: ast.AST, names: dict[str, object]) -> str:
    """What is fixed in a message; of names what the module says they are, or their defaults."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return str(names.get(node.id, ""))
    return " ".join(text_of(child, names) for child in ast.iter_child_nodes(node))


def defaults(function: ast.AST) -> dict[str, ast.expr]:
    """The parameters of a function that have a default."""
    if not isinstance(function, ast.FunctionDef):
        return {}
    arguments = function.args
    named = (arguments.args + arguments.kwonlyargs)[::-1]
    values = [*arguments.defaults, *arguments.kw_defaults][::-1]
    return {name.arg: value for name, value in zip(named, values, strict=False) if value}


def typed_errors(source: str, names: dict[str, object]) -> Iterator[tuple[int, str]]:
    """(line, fixed text) of every typed error that is made in `source`."""
    for function in ast.walk(ast.parse(source)):
        known = dict(names)
        for name, value in defaults(function).items():
            known[name] = text_of(value, names)
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if made and node.func.id in TYPED and node.args:
                yield node.lineno, text_of(node.args[0], known)


def has_next_step(text: str) -> bool:
    """Whether the last words of a message, after what was wrong, are a next step."""
    return any(step in text[-160:].lower() for step in STEPS)


MODULES = sorted(path.relative_to(LIBRARY.parent).with_suffix("") for path in LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_typed_error_ends_with_the_next_step(module: Path) -> None:
    names = vars(importlib.import_module(".".join(module.parts)))
    source = module.with_suffix(".py")
    for line, text in typed_errors((LIBRARY.parent / source).read_text(), names):
        assert has_next_step(text), f"{source}:{line} does not say what to do next: {text}"


def test_the_rule_finds_a_message_that_only_complains() -> None:
    source = """
def check(leaf, hint="; did training diverge?"):
    raise NonFiniteError(f"{leaf} is NaN")
    raise NonFiniteError(f"{leaf} is NaN{hint}")
    raise ValueError("of no type of ours")
"""
    found = list(typed_errors(source, {}))
    assert [has_next_step(text) for _, text in found] == [False, True]
