"""Pictures of what a model finds, for TensorBoard, epoch by epoch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_rcnn.data.request import check_score, check_whole
from keras_rcnn.evaluation.scoring import check_proposals_for
from keras_rcnn.interfaces import FilePath
from keras_rcnn.visualize import draw

if TYPE_CHECKING:
    from keras_rcnn.data.proposals import ProposalSet
    from keras_rcnn.data.records import Dataset


class Pictures(keras.callbacks.Callback):
    """Writes photos with the detections drawn into them to a TensorBoard folder.

    Losses, AP and learning rate are `keras.callbacks.TensorBoard`'s: put it behind `EvaluateCallback`.

    Args:
        folder: TensorBoard's; the pictures' events go to `folder/pictures`.
        dataset: `Dataset`.
        count: int, photos, evenly chosen from the dataset.
        every: int, epochs between pictures.
        score: float, the least score of what is drawn.
        proposals: `ProposalSet`, for a detector that is told where to look.
        side: int, the longer side in pixels that pictures are shrunk to.

    Raises:
        ImportError: TensorBoard is not installed.

    Example:

    >>> callbacks = [EvaluateCallback(val), keras.callbacks.TensorBoard("runs/a/board", write_graph=False),
    ...              Pictures("runs/a/board", val)]
    """

    def __init__(
        self,
        folder: FilePath,
        dataset: Dataset,
        count: int = 4,
        every: int = 1,
        score: float = 0.5,
        proposals: ProposalSet | None = None,
        side: int = 800,
    ) -> None:
        super().__init__()
        check_whole("count", count, "photos")
        check_whole("every", every, "epochs")
        check_score(score)
        check_whole("side", side, "px")
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError("TensorBoard's files need the package tensorboard: pip install tensorboard")
        self.folder, self.dataset, self.every, self.score = Path(folder), dataset, every, score
        self.proposals, self.side = proposals, side
        self.chosen = sorted(set(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist()))
        self._writer = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        check_proposals_for(self.model, self.dataset, self.proposals)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every:
            return
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self.folder / "pictures"))
        with self._writer.as_default(step=epoch):
            for i in self.chosen:
                record = self.dataset[i]
                options = {} if self.proposals is None else {"proposals": self.proposals[record]}
                image = record.read()
                found = self.model.detect(image, score=self.score, **options)
                picture = draw(image, found, skeleton=getattr(self.model, "skeleton", None))
                tf.summary.image(f"detections/{i}", _shrunk(picture, self.side)[None])
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    import cv2

    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    return cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
