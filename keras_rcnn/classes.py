"""What of a detector is fitted to its classes, and is new when they are others.

That is every weight of a layer whose config has `num_classes`, whatever its shape, but for those that the layer names
in its property `class_free_weights`: a mask head's convolutions, boxes that serve all classes.
"""

# features serve any classes: a `num_classes` in there is another one
_FEATURES = ("backbone", "neck")


def counted(config, num_classes):
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


def _counted(value, old, new):
    if isinstance(value, list):
        return [_counted(one, old, new) for one in value]
    if not isinstance(value, dict):
        return value
    value = {key: _counted(one, old, new) for key, one in value.items()}
    config = value.get("config")
    if "class_name" in value and isinstance(config, dict) and config.get("num_classes") == old:
        value["config"] = {**config, "num_classes": new}
    return value


def reset(values, model, value_of=None):
    """Weights for a detector of other classes.

    Args:
        values: dict from paths to arrays, of a detector that differs in its classes alone.
        model: the new detector, untrained.
        value_of: function of a weight; None for its array. Others serve dicts of something else, such as shapes.

    Returns:
        A dict such as `values`, with the model's own in the place of whatever was fitted to the classes.
    """
    import keras

    value_of = value_of or keras.ops.convert_to_numpy
    parts = [part for key, part in model.parts.items() if key not in _FEATURES and isinstance(part, keras.layers.Layer)]
    fitted = {part.name: weights for part in parts if (weights := class_weights(part))}
    new = {one.path: value_of(one) for weights in fitted.values() for one in weights}
    ours = {one.path for one in model.weights}
    # such a part may have had a layer for each class
    gone = {path for path in values if path not in ours and path.split("/")[0] in fitted}
    return {path: value for path, value in values.items() if path not in gone} | new


def class_weights(layer):
    """The weights of a layer, and of those in it, that are fitted to the classes."""
    try:
        made_for_classes = "num_classes" in layer.get_config()
    except NotImplementedError:  # an inner one, which only its layer makes
        made_for_classes = hasattr(layer, "num_classes")
    if not made_for_classes:
        inner = layer._flatten_layers(include_self=False, recursive=False)
        return [weight for one in inner for weight in class_weights(one)]
    free = {id(weight) for weight in getattr(layer, "class_free_weights", ())}
    return [weight for weight in layer.weights if id(weight) not in free]
