"""COCO's categories: their ids and names, and which of them are classes."""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from keras_rcnn.data.fields import identity, name, shown
from keras_rcnn.data.problems import DataError
from keras_rcnn.interfaces import FilePath

logger = logging.getLogger("keras_rcnn.data.coco")

Id = int | str


def read_categories(categories: list[Any], source: FilePath) -> dict[Id, dict[str, Any]]:
    """`{id: category}`, in the order of the ids."""
    pairs = []
    for category in categories:
        if not isinstance(category, dict) or "id" not in category or "name" not in category:
            raise DataError(f"{source}: category {shown(category)} has no 'id' or no 'name'")
        key = identity(category["id"])
        if key is None or name(category["name"]) is None:
            raise DataError(f"{source}: category {shown(category)}: its 'id' or its 'name' is none")
        pairs.append((key, category))
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise DataError(f"{source}: category id {key!r} is given to {count} categories")
    return dict(sorted(pairs, key=lambda pair: (isinstance(pair[0], str), pair[0])))


def without_root(categories: dict[Id, Any], annotations: list[Any], source: FilePath) -> dict[Id, str]:
    """`{id: name}` without the category that only stands above the others."""
    used = {identity(item.get("category_id")) for item in annotations if isinstance(item, dict)}
    first, *others = categories or [0]
    names: dict[Id, Any] = {key: name(category["name"]) for key, category in categories.items()}
    if others and first not in used:
        above = name(categories[first].get("supercategory"))
        below = {name(categories[key].get("supercategory")) for key in others}
        if below == {names[first]} and above in (None, "none", names[first]):
            logger.warning(
                "%s: category %r, id %s, has no objects and stands above all others: it is no class",
                source, names[first], first,
            )  # fmt: skip
            del names[first]
    return names


def as_named(categories: Mapping[Id, str], class_names: list[str]) -> tuple[list[str], list[Id], dict[Id, int]]:
    """`(names, ids, {id: label})` with the classes in an order that is given; a category left out has no label."""
    label_of_name = {name: label for label, name in enumerate(class_names)}
    label_of = {key: label_of_name[name] for key, name in categories.items() if name in label_of_name}
    id_of = {label: key for key, label in reversed(label_of.items())}
    free = (number for number in range(1, len(categories) + len(class_names) + 1) if number not in categories)
    return class_names, [id_of[i] if i in id_of else next(free) for i in range(len(class_names))], label_of
