"""Evaluation during `fit`."""

from typing import Any, Literal

import keras

from keras_rcnn.data.proposals import ProposalSet
from keras_rcnn.data.ready import check_images
from keras_rcnn.data.records import Dataset
from keras_rcnn.data.request import check_whole
from keras_rcnn.evaluation.curves import best_thresholds
from keras_rcnn.evaluation.matches import match_detections
from keras_rcnn.evaluation.scoring import (
    best_iou_type,
    check_proposals_for,
    check_settings,
    detect_all,
    label_map,
    metrics_of,
)


class EvaluateCallback(keras.callbacks.Callback):
    """Scores the model on a dataset at the end of an epoch, and reports it as `val_AP` and `val_AP50`.

    The numbers go into the logs of the epoch, where every callback *after* this one in the list sees them, as do the
    progress bar and `History`: put it before `ModelCheckpoint`, `EarlyStopping` and the like. Epochs without
    evaluation have no such entries. A Pascal VOC metric reports `val_AP50` alone; a model with masks on a dataset
    with masks also `val_segm_AP` and `val_segm_AP50`, one with keypoints on such `val_keypoints_AP` and
    `val_keypoints_AP50`.

    Args:
        dataset: `keras_rcnn.data.Dataset`.
        every: int. Evaluate each so many epochs, and after the last one.
        batch_size, metric, max_detections, proposals: as in `evaluate`.
        progress: bool. Show a progress bar for the evaluation.

    Attributes:
        last: what `evaluate` would have returned last, or `None`.
        thresholds: the `best_thresholds` of the same detections (by masks, where there are such), or `None`.
        last_epoch: the epoch that it belongs to, from 0.

    Example:

    >>> model.fit(batches, epochs=12, callbacks=[EvaluateCallback(validation),
    ...           keras.callbacks.EarlyStopping("val_AP50", mode="max", patience=5)])
    """

    def __init__(
        self,
        dataset: Dataset,
        every: int = 1,
        *,
        batch_size: int = 1,
        metric: Literal["coco", "voc07", "voc10"] = "coco",
        max_detections: int = 100,
        progress: bool = False,
        proposals: ProposalSet | None = None,
    ) -> None:
        super().__init__()
        check_whole("every", every, "epochs")
        check_settings(batch_size, metric, max_detections)
        self.dataset = dataset
        self.every = every
        self.metric: Literal["coco", "voc07", "voc10"] = metric
        self.max_detections = max_detections
        self.arguments: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "proposals": proposals}
        self.last: dict[str, Any] | None = None
        self.thresholds: dict[str, float] | None = None
        self.last_epoch: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # what cannot be evaluated on is to be told of before the first epoch, not after it
        check_proposals_for(self.model, self.dataset, self.arguments["proposals"])
        label_map(self.model, self.dataset)
        check_images(self.dataset)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        final = self.model.stop_training or epoch + 1 == (self.params or {}).get("epochs")
        if (epoch + 1) % self.every and not final:
            return
        detections = detect_all(self.model, self.dataset, **self.arguments)
        self.last = metrics_of(self.dataset, detections, self.metric, self.max_detections)
        iou_type = best_iou_type(self.dataset, detections)
        self.thresholds = best_thresholds(match_detections(self.dataset, detections, iou_type))
        self.last_epoch = epoch
        if logs is not None:
            for iou_type, prefix in (("bbox", "val_"), ("segm", "val_segm_"), ("keypoints", "val_keypoints_")):
                for name in ("AP", "AP50"):
                    if name in self.last.get(iou_type, {}):
                        logs[prefix + name] = self.last[iou_type][name]
