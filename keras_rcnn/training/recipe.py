"""Recipes: a training's settings as a Python file of plain assignments."""

import ast
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_rcnn.interfaces import FilePath
from keras_rcnn.training.settings import RecipeError, Settings, canonical, cast, listed


def load_recipe(path: FilePath | None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Settings:
    """Runs a recipe and returns its settings.

    A recipe is Python, run top to bottom; the names it assigns are the settings, save those that begin with an
    underscore, functions, classes and imported modules. An override takes the place of the value where the name is
    assigned, so that what the recipe computes from it further down follows.

    Args:
        path: the recipe, a `.py` file; None for the defaults alone.
        overrides: `"key=value"` texts, or a dict. A text's value is a Python literal or, for a setting that is a text,
            the text without quotes; it must be of the setting's type.

    Returns:
        `Settings`.

    Raises:
        RecipeError: no such file, a recipe that fails, or settings that cannot be; it lists all of them.

    Example:

    >>> settings = load_recipe("zoo/nuclei_frcnn/recipe.py", ["batch_size=4", "epochs=2"])
    >>> settings.batch_size
    4
    """
    values, problems = dict(overrides) if isinstance(overrides, dict) else {}, []
    for text in () if isinstance(overrides, dict) else overrides:
        try:
            key, value = _split(text)
            values[key] = cast(canonical(key), value)
        except RecipeError as error:
            problems.append(str(error))
    if problems:
        raise RecipeError(listed(problems))
    tree, source = ast.Module([], []), "The command line"
    if path is not None:
        path = source = Path(path)
        if not path.is_file():
            raise RecipeError(f"{path}: no such recipe.")
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        except (SyntaxError, ValueError) as error:
            raise RecipeError(f"{path}: not a recipe: {error}") from error
    assigned = _run(_Replace(values).visit(tree), source, values)
    taken = {canonical(key) for key in values}
    settings = {key: value for key, value in assigned.items() if canonical(key) not in taken} | values
    try:
        return Settings(**settings)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}" if path is not None else str(error)) from None


def recipe_text(settings: Settings) -> str:
    """The source of a recipe with those settings that are not as they are by default."""
    lines = [f"{key} = {_literal(value)!r}" for key, value in settings.changed().items()]
    text = '"""The settings of the training that left this folder: `keras-rcnn train recipe.py --out DIR`."""\n\n'
    return text + "\n".join(lines) + "\n"


def _literal(value: Any) -> Any:
    """Paths as texts: a recipe needs no imports."""
    if isinstance(value, dict):
        return {key: _literal(part) for key, part in value.items()}
    return str(value) if isinstance(value, Path) else value


def _run(tree: ast.Module, path: Path | str, values: Mapping[str, Any]) -> dict[str, Any]:
    # the overrides are in the namespace under names that no recipe has: not every value can be written as a literal
    space = {"__file__": str(path), "__name__": "recipe"}
    space |= {_hidden(canonical(key)): value for key, value in values.items()}
    code = compile(ast.fix_missing_locations(tree), str(path), "exec")
    try:
        exec(code, space)  # noqa: S102 (a recipe is a program, as trusted as any that one runs)
    except Exception as error:
        raise RecipeError(f"{path}: the recipe fails: {type(error).__name__}: {error}") from error
    helpers = types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type
    return {key: value for key, value in space.items() if not key.startswith("_") and not isinstance(value, helpers)}


class _Replace(ast.NodeTransformer):
    """Puts given values in the place of what is assigned to their names; functions and classes are left alone."""

    def __init__(self, values: Iterable[str]) -> None:
        self.names = {canonical(key) for key in values}

    def visit_FunctionDef(self, node: Any) -> Any:
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        if len(node.targets) == 1:
            self._replace(node, node.targets[0])
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        if node.value is not None:
            self._replace(node, node.target)
        return node

    def _replace(self, node: ast.Assign | ast.AnnAssign, target: ast.expr) -> None:
        if isinstance(target, ast.Name) and canonical(target.id) in self.names:
            node.value = ast.Name(_hidden(canonical(target.id)), ast.Load())


def _hidden(key: str) -> str:
    return f"__override_{key}"


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip().isidentifier():
        raise RecipeError(f"{text!r} is not of the form key=value.")
    return key.strip(), value.strip()
