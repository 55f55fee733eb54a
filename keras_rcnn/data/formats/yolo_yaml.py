"""The settings of a YOLO data set, data.yaml."""

from pathlib import Path
from typing import Any

from keras_rcnn.data.fields import identity, name, shown
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.reading import read_text

LARGEST = 300_000  # characters; a data.yaml has names and paths


def read_yaml(file: Path) -> dict[str, Any]:
    """What a data.yaml says.

    Every value is text, as it is written: `names: [no, yes]` are two names, and not False and True.

    Args:
        file: Path.

    Returns:
        Dict of the keys that are text or lists of texts; `names` is `{number: name}`.

    Raises:
        DataError: it is no yaml, or its names are none.
    """
    import yaml

    text = read_text(file)
    if len(text) > LARGEST:
        raise DataError(f"{file}: {len(text)} characters are too many for YOLO's settings")
    try:
        for token in yaml.scan(text, Loader=yaml.BaseLoader):
            if isinstance(token, yaml.AliasToken):  # aliases of aliases grow to any size
                raise DataError(f"{file}: it has aliases (*{token.value[:40]}), which are not read: write them out")
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        line = str(error).replace("\n", " ")[:300]
        raise DataError(f"{file}: not valid yaml ({line})") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: not YOLO's settings, it is {type(content).__name__}, expected keys such as names and train"
        )
    settings = {key: value for key, value in content.items() if isinstance(key, str) and _plain(value)}
    if "kpt_shape" in content:
        settings["kpt_shape"] = "given"
    if "names" in content:
        settings["names"] = _names(content["names"], file)
    return settings


def _plain(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(entry, str) for entry in value))


def _names(value: Any, file: Path) -> dict[int, str]:
    if isinstance(value, str) and value.strip().startswith("["):
        value = [part.strip(" '\"[]") for part in value.split(",")]
    if isinstance(value, list):
        pairs: list[Any] = list(enumerate(value))
    elif isinstance(value, dict):
        pairs = [(identity(key), title) for key, title in value.items()]
        if any(not isinstance(key, int) for key, _ in pairs) and all(
            isinstance(identity(v), int) for v in value.values()
        ):
            pairs = [(identity(number), title) for title, number in value.items()]  # the other way round
    else:
        pairs = []
    if not pairs or any(
        not isinstance(key, int) or not isinstance(title, str) or not name(title) for key, title in pairs
    ):
        given = shown(value) if _plain(value) else type(value).__name__
        raise DataError(f"{file}: 'names' ({given}) is neither a list of names nor numbers with their names")
    return {key: name(title) or "" for key, title in sorted(pairs)}
