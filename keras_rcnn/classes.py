"""What of a detector is fitted to its classes, and what becomes of it when they are others.

That is every weight of a layer whose config has `num_classes`, whatever its shape, but for those that the layer names
in its property `class_free_weights`: a mask head's convolutions, boxes that serve all classes.

Of these weights a class keeps its own where the layer says in its property `class_columns` which they are: a list of
`(weight, n)`, where n columns of the weight's last axis belong to each class, one class after the other, and what
follows the last of them to the background; n is 0 for a weight that holds for all classes together. Other weights
are new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# features serve any classes: a `num_classes` in there is another one
_FEATURES = ("backbone", "neck")


def counted(config: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """A detector's config for another number of classes; that of the layers within is replaced where it is the same.

    Args:
        config: dict, the constructor's arguments, parts serialised.
        num_classes: int.

    Returns:
        A dict.
    """
    parts = {
        key: value if key in _FEATURES else _counted(value, config["num_classes"], num_classes)
        for key, value in config.items()
    }
    return {**parts, "num_classes": num_classes}


def _counted(value: Any, old: int, new: int) -> Any:
    if isinstance(value, list):
        return [_counted(item, old, new) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _counted(item, old, new) for key, item in value.items()}
    config = value.get("config")
    if "class_name" in value and isinstance(config, dict) and config.get("num_classes") == old:
        value["config"] = {**config, "num_classes": new}
    elif "class_name" in value and isinstance(config, dict) and config.get("class_weights") is not None:
        value["config"] = {**config, "class_weights": None}  # a loss's, of the old classes
    return value


class Change(NamedTuple):
    """Other classes for a detector.

    Attributes:
        old: names of its classes; None if they have none.
        new: names of the others; None likewise.
        count: int, the number of its classes.
        sources: for each of the others its place among the detector's classes, or -1.
    """

    old: list[str] | None
    new: list[str] | None
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    sources: list[int]

    @classmethod
    def between(cls, old: list[str] | None, new: list[str] | None, count: int, new_count: int) -> Change:
        """Pairs the classes by name; of several with the same name the first with the first, and so on."""
        left = {}
        for place, name in enumerate((old or ()) if new else ()):
            left.setdefault(name, []).append(place)
        sources = [left[name].pop(0) if left.get(name) else -1 for name in new or [None] * new_count]
        return cls(old, new, count, sources)

    def shapes(self, model: Any, shapes: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
        """The shapes of a weights file as they are with the new classes; what is new has its own.

        Args:
            model: the detector for the new classes.
            shapes: dict from paths to the shapes of the old one's arrays.

        Returns:
            A dict such as `shapes`. What cannot be kept because its shape does not belong to the old classes is left
            out.
        """
        fitted = _fitted(model)
        ours, parts = {weight.path for weight in model.weights}, {path.split("/")[0] for path in fitted}
        # such a part may have had a layer for each class
        gone = {path for path in shapes if path not in ours and path.split("/")[0] in parts}
        known = {path: shape for path, shape in shapes.items() if path not in gone and path not in fitted}
        for path, (weight, columns) in fitted.items():
            if not self._keeps(columns) or tuple(shapes.get(path, ())) == self._old_shape(weight, columns):
                known[path] = tuple(weight.shape)
        return known

    def fitted(self, model: Any) -> set[str]:
        """The paths of what is fitted to the classes."""
        return set(_fitted(model))

    def values(self, model: Any, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The weights of a detector for the new classes that are fitted to these.

        Args:
            model: that detector, untrained.
            values: dict from paths to arrays, of one that differs in its classes alone; see `shapes`.

        Returns:
            A dict from paths to arrays.
        """
        import keras

        known = {}
        for path, (weight, columns) in _fitted(model).items():
            value = np.array(keras.ops.convert_to_numpy(weight))
            known[path] = self._kept(value, values[path], columns) if self._keeps(columns) else value
        return known

    def told(self, model: Any, name: str) -> str | None:
        """What starts untrained, in one line; None if nothing does.

        Args:
            model: the detector for the new classes.
            name: of the preset.
        """
        whole, partly = set(), set()
        for part, weights in _fitted_parts(model).items():
            for _, columns in weights.values():
                if not self._keeps(columns) and columns != 0:
                    whole.add(part)
                elif -1 in self.sources:
                    partly.add(part)
        known = [place for place in self.sources if place >= 0]
        lines = []
        if partly - whole:
            new = self.new or [f"class {place}" for place in range(len(self.sources))]
            names = _listed([name for name, place in zip(new, self.sources, strict=True) if place < 0])
            kept = f"what belongs to {_listed([self.old[place] for place in known])} is kept"
            lines.append(f"{_listed(sorted(partly - whole))} for {names}, which {name} does not have ({kept})")
        if whole:
            why = "which do not say what in them belongs to which class (class_columns)"
            if not known and self.new and self.old:
                why = f"since none of {_listed(self.new)} is among the classes of {name} ({_listed(self.old)})"
            elif not known:
                why = f"since without names none of the {len(self.sources)} classes is known to be one of {name}"
            lines.append(f"{_listed(sorted(whole))}, {why}")
        return f"New, and to be trained: {'; '.join(lines)}." if lines else None

    def _keeps(self, columns: int | None) -> bool:
        """Whether something is kept of a weight with so many columns a class."""
        if columns == 0:
            return -1 not in self.sources
        return columns is not None and any(place >= 0 for place in self.sources)

    def _old_shape(self, weight: Any, columns: int | None) -> tuple[int, ...]:
        if not columns:
            return tuple(weight.shape)
        return (*weight.shape[:-1], weight.shape[-1] + columns * (self.count - len(self.sources)))

    def _kept(self, value: np.ndarray, old: np.ndarray, columns: int | None) -> np.ndarray:
        if not columns:
            return old
        places = [place for place, source in enumerate(self.sources) if source >= 0]
        sources = [source for source in self.sources if source >= 0]
        value[..., _columns(places, columns)] = old[..., _columns(sources, columns)]
        value[..., columns * len(self.sources) :] = old[..., columns * self.count :]
        return value


def _columns(places: Sequence[int], count: int) -> np.ndarray:
    return (np.array(places)[:, None] * count + np.arange(count)).ravel()


def _listed(names: Iterable[object]) -> str:
    names = list(names)
    return f"{', '.join(map(str, names[:8]))}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"


def _fitted_parts(model: Any) -> dict[str, dict[str, tuple[Any, int | None]]]:
    """Name of a part -> path -> (weight, columns a class or None), of what is fitted to the classes."""
    import keras

    parts = [part for key, part in model.parts.items() if key not in _FEATURES and isinstance(part, keras.layers.Layer)]
    weights_of = {part.name: dict(_class_weights(part)) for part in parts}
    return {name: weights for name, weights in weights_of.items() if weights}


def _fitted(model: Any) -> dict[str, tuple[Any, int | None]]:
    """Path -> (weight, columns a class or None), of what is fitted to the classes."""
    return {path: weight for weights in _fitted_parts(model).values() for path, weight in weights.items()}


def _class_weights(layer: Any) -> Iterator[tuple[str, tuple[Any, int | None]]]:
    """The weights of a layer, and of those in it, that are fitted to the classes."""
    try:
        made_for_classes = "num_classes" in layer.get_config()
    except NotImplementedError:  # an inner one, which only its layer makes
        made_for_classes = hasattr(layer, "num_classes")
    if not made_for_classes:
        for inner in layer._flatten_layers(include_self=False, recursive=False):
            yield from _class_weights(inner)
        return
    free = {id(weight) for weight in getattr(layer, "class_free_weights", ())}
    columns = {id(weight): count for weight, count in getattr(layer, "class_columns", ())}
    for weight in layer.weights:
        if id(weight) not in free:
            yield weight.path, (weight, columns.get(id(weight)))
