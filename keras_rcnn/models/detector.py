"""What the detectors share: two functional graphs over one set of layers, one loss function, config, `detect`."""

from collections.abc import Mapping
from typing import Any, Self, overload

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_rcnn.data.batches import Batches
from keras_rcnn.data.images import read_image
from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.data.proposals import pad_proposals
from keras_rcnn.data.records import Dataset
from keras_rcnn.data.request import check_request, least_score, refuse_proposals
from keras_rcnn.interfaces import AnyPhoto, Detections, MaskForm, Photo
from keras_rcnn.models.agreement import agree_on_classes, agree_on_keypoints
from keras_rcnn.models.keypoints import with_keypoints
from keras_rcnn.models.optimizer import build_optimizer
from keras_rcnn.models.parts import (
    check_canvas,
    check_fit,
    is_part,
    is_serialised,
    own_arguments,
    serialised,
    with_doubles,
)
from keras_rcnn.models.process import check_process
from keras_rcnn.ops.backend import compiled_on_request
from keras_rcnn.ops.backend.replicas import num_replicas
from keras_rcnn.skeletons import Skeleton


class Detector(keras.Model):
    """Base of R-CNN, Fast, Faster and Mask R-CNN. `model(x)` is the detections; `fit` runs the training graph.

    Args:
        inputs: dict of symbolic inputs of the inference graph.
        targets: dict of further symbolic inputs of the training graph.
        detections: dict of the inference graph's outputs.
        losses: dict of the training graph's outputs, float32 [B] each.
        config: the constructor's arguments, as `get_config` returns them (serialised there).

    Attributes:
        parts: dict of the layers and of the preprocessor that the constructor was given or made, by argument.
        thresholds: dict, class name -> score, or None: the least scores of `detect` where it is given none. A preset
            may have them (`keras_rcnn.evaluation.best_thresholds`); they are no part of the config.

    A subclass is registered by `keras.saving.register_keras_serializable`, and adds arguments of its own to the config:

    >>> @keras.saving.register_keras_serializable("mine")
    ... class MyDetector(keras_rcnn.FasterRCNN):
    ...     def __init__(self, *args, note="", **kwargs):
    ...         super().__init__(*args, **kwargs)
    ...         self.note = note
    ...
    ...     def get_config(self):
    ...         return {**super().get_config(), "note": self.note}
    """

    def __init__(
        self,
        *,
        inputs: dict[str, Any],
        targets: dict[str, Any],
        detections: dict[str, Any],
        losses: dict[str, Any],
        config: dict[str, Any],
        name: str,
    ) -> None:
        check_process()
        targets, detections, losses = with_keypoints(config, targets, detections, losses)
        super().__init__(inputs=inputs, outputs=detections, name=name)
        self.training_graph = keras.Model({**inputs, **targets}, losses, name="training_graph")
        self.parts = {key: value for key, value in config.items() if is_part(value)}
        self._values = {key: value for key, value in config.items() if not is_part(value)}
        self.num_classes = config["num_classes"]
        self.class_names = config["class_names"] or [str(i) for i in range(self.num_classes)]
        self.thresholds: dict[str, float] | None = None
        self.loss_weights = dict.fromkeys(losses, 1.0)
        self.loss_trackers = [keras.metrics.Mean(name=name) for name in losses]
        if len(self.class_names) != self.num_classes:
            raise ValueError(f"{len(self.class_names)} class names for num_classes={self.num_classes}.")

    @property
    def preprocessor(self) -> Preprocessor:
        """How photos are resized and normalised; another may be set."""
        return self.parts["preprocessor"]

    @preprocessor.setter
    def preprocessor(self, value: Preprocessor) -> None:
        check_canvas({**self.parts, "preprocessor": value})
        self.parts["preprocessor"] = value

    @property
    def has_masks(self) -> bool:
        """Whether the detector predicts masks, and wants them of the training data (`batches(masks=True)`)."""
        return "mask_head" in self.parts

    @property
    def skeleton(self) -> Skeleton | None:
        """The keypoints that the detector predicts, and wants of the training data (`batches(keypoints=True)`)."""
        return self.parts["keypoint_branch"].skeleton if "keypoint_branch" in self.parts else None

    @property
    def wants_proposals(self) -> bool:
        """Whether proposals come from outside, as `x["proposals"]`."""
        return any(tensor.name == "proposals" for tensor in self.inputs)

    @property
    def jit_compile(self) -> bool:
        """Whether XLA compiles `fit`, `predict` and `detect`; `"auto"` is False on TensorFlow, True on JAX."""
        return keras.Model.jit_compile.fget(self)

    @jit_compile.setter
    def jit_compile(self, value: bool | str) -> None:
        with compiled_on_request():
            keras.Model.jit_compile.fset(self, value)
        self.train_function = self.test_function = self.predict_function = None  # made for the old value

    # === Training ===

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        check_process()
        return super().__call__(*args, **kwargs)

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> dict[str, Any]:
        if isinstance(inputs, dict):
            self._check_proposals("proposals" in inputs)
        # in training everything happens in compute_loss, so that the backbone runs once a step
        return {} if training else super().call(inputs, training=False, **kwargs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Runs the training graph; the sum of its losses, each averaged over the (global) batch."""
        losses = self.training_graph({**x, **y}, training=training)
        total = 0.0
        for tracker in self.loss_trackers:
            value = ops.mean(losses[tracker.name])
            tracker.update_state(value, sample_weight=ops.cast(ops.shape(x["images"])[0], "float32"))
            total = total + self.loss_weights[tracker.name] * value
        for penalty in self.losses:
            total = total + penalty
        # the gradients of the replicas of a strategy are summed
        return total / num_replicas()

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.fit` on `dataset.batches(model.preprocessor, ...)` or anything that yields such `(x, y)`.

        Raises:
            ValueError: if the batches are not for this model (see `accept`), or the model is not compiled.
        """
        for batches in (x, kwargs.get("validation_data")):
            self.accept(batches, training=batches is x)
        if isinstance(x, keras.utils.PyDataset):
            kwargs.setdefault("shuffle", False)  # the batches shuffle themselves; Keras would once more
        build_optimizer(self)  # or the step is traced twice
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.evaluate`: the losses on batches such as `fit` takes. `keras_rcnn.evaluate` measures AP."""
        self._tell_whether_compiled(x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.predict` on batches such as `fit` takes; `detect` takes photos."""
        self._tell_whether_compiled(x)
        return super().predict(x, *args, **kwargs)

    # Keras asks for these functions first, in whatever way the model is run

    def make_train_function(self, force: bool = False) -> Any:
        check_process()
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Any:
        check_process()
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        check_process()
        return super().make_predict_function(force)

    def accept(self, batches: Any, training: bool = True) -> None:
        """What `fit` does before it begins: checks that `Batches` are of the model's classes, and of images that can be
        read with something to learn in them, and has them padded as the model wants.

        Args:
            batches: `Batches`, or anything else, which passes.
            training: whether they are to be learned from.

        Raises:
            ValueError: if the dataset's classes are not the model's, the batches lack proposals or masks that the model
                wants, or have proposals that it does not; or for a dataset instead of its batches.
            keras_rcnn.data.DataError: if there is nothing to learn, or images cannot be read.
        """
        check_process()
        if isinstance(batches, Dataset):
            raise ValueError(
                f"fit takes batches, not {batches!r}: give dataset.batches(model.preprocessor, batch_size=2, "
                f"shuffle=True{', masks=True' if self.has_masks else ''})"
            )
        self._tell_whether_compiled(batches)
        self._check_classes(batches)
        if hasattr(batches, "proposals"):
            self._check_proposals(batches.proposals is not None)
        if self.has_masks and not getattr(batches, "masks", True):
            raise ValueError(f"{type(self).__name__} learns masks: dataset.batches(..., masks=True).")

        agree_on_keypoints(self, batches)
        if isinstance(batches, Batches):
            batches.check(training=training)

    def _check_proposals(self, given: bool) -> None:
        if given and not self.wants_proposals:
            refuse_proposals(type(self).__name__)
        if self.wants_proposals and not given:
            raise ValueError(
                f"{type(self).__name__} is told where to look, and there are no proposals in the batches: "
                "dataset.batches(..., proposals=keras_rcnn.data.compute_proposals(dataset))."
            )

    def _tell_whether_compiled(self, batches: Any) -> None:
        if hasattr(batches, "compiled"):
            batches.compiled = bool(self.jit_compile)

    def _check_classes(self, batches: Any) -> None:
        agree_on_classes(self, batches)

    # === Inference ===

    @overload
    def detect(
        self,
        images: Photo,
        score: float | None = ...,
        batch_size: int | None = ...,
        masks: MaskForm = ...,
        size: int | None = ...,
        proposals: ArrayLike | None = ...,
    ) -> Detections: ...

    @overload
    def detect(
        self,
        images: list[AnyPhoto] | tuple[AnyPhoto, ...],
        score: float | None = ...,
        batch_size: int | None = ...,
        masks: MaskForm = ...,
        size: int | None = ...,
        proposals: list[ArrayLike] | None = ...,
    ) -> list[Detections]: ...

    def detect(
        self,
        images: Any,
        score: float | None = None,
        batch_size: int | None = None,
        masks: MaskForm = True,
        size: int | None = None,
        proposals: Any = None,
    ) -> Any:
        """Finds the objects in photos of any size.

        Args:
            images: a path, an array [H, W], [H, W, 3] or [H, W, 4] (RGB order, 8 or 16 bit), or a list of such.
            score: float from 0 to 1; only detections with at least this score are returned. None takes a class's own
                from `thresholds`, and 0.5 where there is none. Detections at or below the decoder's `score_threshold`
                never are.
            batch_size: int from 1, images run at once; None takes 1, the fastest for images of unequal size.
            masks: of a detector with masks: True for boolean arrays of the photo's size, `"rle"` for COCO RLE, which
                never needs such an array, `"crops"` for the probabilities, each in its box, False for none.
            size: int, shorter side in pixels that photos are resized to instead of the preprocessor's `min_size` (its
                `max_size` and `fixed_size` grow in proportion: `Preprocessor.at_size`). For objects that are smaller in
                the photo than those of the training.
            proposals: of a detector whose proposals come from outside (Fast R-CNN, R-CNN): [P, 4] xyxy in pixels of the
                image, for a list of images a list of such. None runs selective search, which takes seconds an image.
                Another detector refuses them.

        Returns:
            For a single image a dict, for a list a list of dicts, of numpy arrays, best first: `boxes` float32 [n, 4]
            xyxy in pixels of the image as given (EXIF rotation applied), `scores` float32 [n], `labels` int32 [n] and
            `names`, a list of n class names; with masks also `masks`, bool [n, height, width], a list of n RLEs, or
            float32 [n, 28, 28], with keypoints `keypoints`, float32 [n, K, 3]: x, y and score.

        Raises:
            ValueError: for an argument that is not as above, before anything is read.
            keras_rcnn.data.ImageError: for a file that is not a readable image; it names the file.

        Example:

        >>> model = keras_rcnn.from_preset("nuclei_frcnn")
        >>> model.detect("photo.jpg", score=0.5)["boxes"]
        """
        many, finder = isinstance(images, (list, tuple)), None if self.wants_proposals else type(self).__name__
        least = least_score(score, self.thresholds, self.class_names)
        images, proposals = check_request(
            images,
            score=0.5 if score is None else score,
            batch_size=batch_size,
            masks=masks,
            size=size,
            proposals=proposals,
            finder=finder,
        )
        batch_size = int(batch_size or 1)
        preprocessor = self.preprocessor if size is None else self.preprocessor.at_size(int(size))
        results = []
        for start in range(0, len(images), batch_size):
            arrays = [read_image(image) for image in images[start : start + batch_size]]
            x = preprocessor.batch(arrays, compiled=self.jit_compile)
            if self.wants_proposals:
                given = proposals and proposals[start : start + batch_size]
                cells = getattr(self.parts["box_pool"], "cells", None)
                x["proposals"] = pad_proposals(given, arrays, x["image_sizes"], cells)
            if self.jit_compile and start:  # the last batch is as large as the others
                x = {k: np.concatenate([v, np.repeat(v[-1:], batch_size - len(v), axis=0)]) for k, v in x.items()}
            outputs = {k: np.asarray(v) for k, v in self.predict_on_batch(x).items()}
            for i, array in enumerate(arrays):
                padded = {name: values[i] for name, values in outputs.items()}
                results.append(self.restore(padded, array.shape[:2], x["image_sizes"][i], least, masks))
        return results if many else results[0]

    def restore(
        self,
        outputs: Mapping[str, np.ndarray],
        size: tuple[int, int],
        resized: ArrayLike,
        score: float | np.ndarray = 0.0,
        masks: MaskForm = True,
    ) -> Detections:
        """One image's padded outputs -> its detections, in its own pixels, as `detect` returns them.

        Args:
            outputs: dict of numpy arrays, the model's outputs for this image.
            size: `(height, width)` of the image as given.
            resized: `(height, width)` of it as the model saw it.
            score: float, or an array [classes].
            masks: as in `detect`.
        """
        keep = (outputs["labels"] >= 0) & (
            outputs["scores"] >= np.broadcast_to(score, self.num_classes)[outputs["labels"]]
        )
        boxes = self.preprocessor.restore(outputs["boxes"][keep], size, resized)
        labels = outputs["labels"][keep]
        detections: Detections = {
            "boxes": boxes.astype(np.float32),
            "scores": outputs["scores"][keep],
            "labels": labels.astype(np.int32),
            "names": [self.class_names[i] for i in labels],
        }
        if "masks" in outputs and masks:
            crops, boxes = outputs["masks"][keep], detections["boxes"]
            detections["masks"] = self.preprocessor.pasted(crops, boxes, size, masks)
        if "keypoints" in outputs:
            detections["keypoints"] = self.preprocessor.restore_points(outputs["keypoints"][keep], size, resized)
        return detections

    # === Saving ===

    def get_config(self) -> dict[str, Any]:
        config = {"name": self.name, **self._values, **serialised(self.parts), "class_names": self.class_names}
        lost = own_arguments(type(self)) - set(config)
        if lost and type(self).get_config is Detector.get_config:
            name = sorted(lost)[0]
            raise NotImplementedError(
                f"{type(self).__name__} has arguments that would not be saved: {', '.join(sorted(lost))}. Give it a "
                f'get_config: return {{**super().get_config(), "{name}": self.{name}}}, and so on.'
            )
        return config

    @staticmethod
    def arguments(values: dict[str, Any]) -> dict[str, Any]:
        """Those of `values`, a constructor's locals, that are arguments of it, for `get_config`.

        Raises:
            ValueError: parts that do not fit each other, which would be seen no sooner than in the first image.
        """
        check_fit(values)
        names = own_arguments(values["__class__"])  # where the constructor stands, which a subclass's may call
        return {name: value for name, value in values.items() if name in names - {"name"}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        config = {
            key: keras.saving.deserialize_keras_object(value, custom_objects) if is_serialised(value) else value
            for key, value in config.items()
        }
        return cls(**with_doubles(config))
