"""Any functional Keras model as a backbone: keras.applications, KerasHub, one's own."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
from keras import layers, ops

from keras_rcnn.backbones.base import Backbone

PROBE = 512  # px a side, to see the maps' strides


def from_features(
    model: keras.Model,
    features: Mapping[str, str | keras.layers.Layer],
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1 / 255, 1 / 255, 1 / 255),
    *,
    bgr: bool = False,
    norm: Literal["frozen", "batch"] = "frozen",
    freeze_at: int = 0,
    name: str | None = None,
) -> Backbone:
    """A functional Keras model as a backbone.

    Args:
        model: a functional model of images of any size, as `keras.applications` gives with `include_top=False` and
            `input_shape=(None, None, 3)`, or a KerasHub backbone. Its layers are shared, not copied.
        features: dict, `"C2"` to `"C5"` (or some of them, or `"C1"`) -> the layer, or its name, whose output is the map
            of stride 4 to 32.
        mean, std: three floats each: what the model expects RGB images in 0..1 to be normalised by; the detector's
            `Preprocessor` does it. The defaults give images in 0..255, for models that normalise them themselves.
        bgr: bool. The model expects the channels the other way round, as Keras's ResNet and VGG do.
        norm: `"frozen"`: batch normalisation keeps its statistics and scales; `"batch"`: it is trained.
        freeze_at: int N: everything up to the map C{N} is not trained; 0: everything is.
        name: of the backbone; None: the model's.

    Returns:
        A `Backbone` with the features as its maps.

    Raises:
        ValueError: the model or a feature is not as above.

    Example:

    >>> model = keras.applications.ResNet50(include_top=False, input_shape=(None, None, 3))
    >>> maps = {"C2": "conv2_block3_out", "C3": "conv3_block4_out", "C4": "conv4_block6_out", "C5": "conv5_block3_out"}
    >>> mean = [m / 255 for m in keras_rcnn.convert.CAFFE_MEAN]  # caffe's, which Keras's ResNet expects
    >>> backbone = from_features(model, maps, mean, bgr=True, freeze_at=2)
    """
    return Features(_cut(model, features), mean, std, bgr, norm, freeze_at, name=name or model.name)


def _cut(model: keras.Model, features: Mapping[str, str | keras.layers.Layer]) -> keras.Model:
    """The model of the maps alone."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(f"from_features takes a functional Keras model, not {model!r:.200}.")
    if len(model.inputs) != 1 or tuple(model.inputs[0].shape) != (None, None, None, 3):
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        raise ValueError(
            f"{model.name} takes {shapes}; a backbone takes images of any size, (None, None, None, 3): build the model "
            "with include_top=False, input_shape=(None, None, 3)."
        )
    if not features or not set(features) <= {f"C{i}" for i in range(1, 7)}:
        raise ValueError(f'features has the maps by the names "C2" to "C5" (or some of them), not {list(features)}.')
    names = {key: layer if isinstance(layer, str) else layer.name for key, layer in features.items()}
    known = [layer.name for layer in model.layers]
    unknown = [value for value in names.values() if value not in known]
    if unknown:
        raise ValueError(f"{model.name} has no layer {', '.join(unknown)}; its layers are {', '.join(known)}.")
    outputs = {key: model.get_layer(names[key]).output for key in sorted(names)}
    return keras.Model(model.inputs[0], outputs, name=model.name)


@keras.saving.register_keras_serializable("keras_rcnn")
class Features(Backbone):
    """What `from_features` makes.

    Args:
        model: functional model whose outputs are a dict of maps, or its config.
        mean, std, bgr, norm, freeze_at, name: as of `from_features`.
    """

    def __init__(
        self,
        model: keras.Model | dict[str, Any],
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1 / 255, 1 / 255, 1 / 255),
        bgr: bool = False,
        norm: Literal["frozen", "batch"] = "frozen",
        freeze_at: int = 0,
        name: str | None = None,
        weights: None = None,
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        # a copy: what reads a config empties it
        inner: Any = keras.saving.deserialize_keras_object(copy.deepcopy(model)) if isinstance(model, dict) else model
        if norm not in ("frozen", "batch"):
            raise ValueError(f"A backbone's norm is 'frozen' or 'batch', not {norm!r}.")
        inputs = keras.Input((None, None, 3), name="images", dtype="float32")
        outputs = inner(ops.flip(inputs, axis=-1) if bgr else inputs)
        config = {"mean": list(mean), "std": list(std), "bgr": bgr, "norm": norm, "freeze_at": freeze_at}
        super().__init__(
            inputs,
            outputs,
            strides=_strides(inner),
            stages=_stages(inner),
            config={**config, "dtype": dtype},
            name=name or inner.name,
        )
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._inner, self._frozen_norm = inner, norm == "frozen"
        self._set_trainable(self.trainable)

    def body(self) -> keras.Model:
        """The functional model that the features are of."""
        return getattr(self, "_inner", self)  # self: until the constructor has put it there

    def _stage(self, layer: keras.layers.Layer) -> int:
        return self._stages.get(layer.name, self._freeze_at + 1)

    def _set_trainable(self, value: bool) -> None:
        super()._set_trainable(value)
        if getattr(self, "_frozen_norm", False):
            for layer in self._flatten_layers():
                if isinstance(layer, layers.BatchNormalization):
                    layer.trainable = False

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "model": keras.saving.serialize_keras_object(self._inner)}


def _strides(model: keras.Model) -> dict[str, int]:
    maps = model.compute_output_spec(keras.KerasTensor((1, PROBE, PROBE, 3)))
    for key, value in maps.items():
        if len(value.shape) != 4 or value.shape[1] != value.shape[2] or PROBE % value.shape[1]:
            raise ValueError(f"{model.name}: {key} has the shape {tuple(value.shape)}, which is no map of {PROBE} px.")
    return {key: PROBE // value.shape[1] for key, value in maps.items()}


def _stages(model: keras.Model) -> dict[str, int]:
    """Name of a layer -> the number of the first map that it is needed for."""
    stages = {}
    for key in sorted(model.output):
        for layer in keras.Model(model.input, model.output[key]).layers:
            stages.setdefault(layer.name, int(key[1:]))
    return stages
