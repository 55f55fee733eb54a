"""Recipes: a training's settings as a Python file of plain assignments."""

import ast
import types
from pathlib import Path


class RecipeError(ValueError):
    """A recipe, or a setting given for it, that cannot be used."""


def load_recipe(path, overrides=(), defaults=None):
    """Runs a recipe and returns its settings.

    A recipe is Python, run top to bottom; the names it assigns are the settings, save those that begin with an
    underscore, functions, classes and imported modules. An override takes the place of the value where the name is
    assigned, so that what the recipe computes from it further down follows.

    Args:
        path: the recipe, a `.py` file; None for the defaults alone.
        overrides: `"key=value"` texts, or a dict. A text's value is a Python literal; for a setting that is a text or
            `None` in the recipe, quotes can be left out. It must be of the type of the recipe's value (an int will do
            for a float; `None` goes anywhere).
        defaults: dict of the settings that a recipe need not assign; they can be overridden like its own.

    Returns:
        `types.SimpleNamespace` of the settings.

    Raises:
        RecipeError: no such file, a recipe that fails, an unknown setting, or a value of another type.

    Example:
        >>> recipe = load_recipe("zoo/nuclei/recipe.py", ["batch_size=4", "epochs=2"])
        >>> recipe.batch_size
        4
    """
    tree, source = ast.Module([], []), "The command line"
    if path is not None:
        path = source = Path(path)
        if not path.is_file():
            raise RecipeError(f"{path}: no such recipe.")
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        except (SyntaxError, ValueError) as error:
            raise RecipeError(f"{path}: not a recipe: {error}") from error
    defaults = defaults or {}
    settings = defaults | _run(tree, source)
    texts = overrides.items() if isinstance(overrides, dict) else (_split(text) for text in overrides)
    values = {}
    for key, value in texts:
        if key not in settings:
            raise RecipeError(f"{source} has no setting {key!r}; it has {', '.join(sorted(settings))}.")
        if not isinstance(overrides, dict):
            value = _parse(key, value, settings[key])
        values[key] = _typed(key, value, settings[key])
    if values:
        settings = defaults | _run(_Replace(values).visit(tree), source, values) | values
    return types.SimpleNamespace(**settings)


def _run(tree, path, values=None):
    # the overrides are in the namespace under names that no recipe has: not every value can be written as a literal
    space = {"__file__": str(path), "__name__": "recipe"}
    space |= {_hidden(key): value for key, value in (values or {}).items()}
    code = compile(ast.fix_missing_locations(tree), str(path), "exec")
    try:
        exec(code, space)  # noqa: S102 (a recipe is a program, as trusted as any that one runs)
    except Exception as error:
        raise RecipeError(f"{path}: the recipe fails: {type(error).__name__}: {error}") from error
    helpers = types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type
    return {key: value for key, value in space.items() if not key.startswith("_") and not isinstance(value, helpers)}


class _Replace(ast.NodeTransformer):
    """Puts given values in the place of what is assigned to their names; functions and classes are left alone."""

    def __init__(self, values):
        self.values = values

    def visit_FunctionDef(self, node):
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef

    def visit_Assign(self, node):
        names = [target.id for target in node.targets if isinstance(target, ast.Name) and target.id in self.values]
        if names and len(node.targets) == 1:
            node.value = ast.Name(_hidden(names[0]), ast.Load())
        return node

    def visit_AnnAssign(self, node):
        if isinstance(node.target, ast.Name) and node.target.id in self.values and node.value is not None:
            node.value = ast.Name(_hidden(node.target.id), ast.Load())
        return node


def _hidden(key):
    return f"__override_{key}"


def _split(text):
    key, equals, value = text.partition("=")
    if not equals or not key.strip().isidentifier():
        raise RecipeError(f"{text!r} is not of the form key=value.")
    return key.strip(), value.strip()


def _parse(key, text, old):
    try:
        value = ast.literal_eval(text)
        return text if isinstance(old, str) and not isinstance(value, (str, type(None))) else value  # name=2024
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if old is None or isinstance(old, str):
            return text
        raise RecipeError(
            f"{key}={text}: not a Python literal; the recipe has {old!r} ({type(old).__name__})."
        ) from None


def _typed(key, value, old):
    if value is None or old is None or type(value) is type(old):
        return value
    if isinstance(old, float) and type(value) is int:
        return float(value)
    if isinstance(old, (list, tuple)) and isinstance(value, (list, tuple)):
        return type(old)(value)
    if isinstance(old, (bool, int, float, str, list, tuple, dict)):
        raise RecipeError(
            f"{key}={value!r}: {type(value).__name__}, but the recipe has {old!r} ({type(old).__name__})."
        )
    return value
