"""A collection on several machines: the rows of `detect_files`, made by the workers of Ray Data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_rcnn.bulk.rows import rows_of
from keras_rcnn.bulk.tables import table_of
from keras_rcnn.interfaces import FilePath

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset  # pyright: ignore[reportMissingImports]


class PhotoDetector:
    """What a worker of Ray's is: a detector, loaded once, that turns a column of paths into rows.

    Args:
        preset: name, folder or handle of a preset, which every machine can read.
        batch_size: int, photos that the model sees at once.
        options: dict, of `model.detect`: `score`, `size`.
        dtype: of the arithmetic, as in `from_preset`.
    """

    def __init__(
        self,
        preset: FilePath,
        batch_size: int = 1,
        options: dict[str, Any] | None = None,
        dtype: str | None = None,
    ) -> None:
        from keras_rcnn.presets import from_preset

        self.model = from_preset(preset, dtype=dtype)
        self.batch_size, self.options = batch_size, options or {}

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """The rows of the paths in the column `image`."""
        batches = rows_of(
            self.model,
            table.column("image").to_pylist(),
            batch_size=self.batch_size,
            threads=max(self.batch_size, 4),
            options=self.options,
        )
        return table_of([row for batch in batches for row in batch])


def detect_on_ray(
    photos: Dataset,
    preset: FilePath,
    *,
    workers: int | tuple[int, int],
    batch_size: int = 1,
    score: float | None = None,
    size: int | None = None,
    dtype: str | None = None,
    part_size: int = 256,
    **resources: Any,
) -> Dataset:
    """Detects on the photos of a Ray dataset; its rows are those of `detect_files`, to float32's rounding.

    Args:
        photos: a `ray.data.Dataset` with a column `image` of paths that every machine can read.
        preset: name, folder or handle of a preset.
        workers: int, processes with a detector each; or the fewest and the most.
        batch_size: int, photos that a model sees at once.
        score: float, the least score; None: the preset's own.
        size: int, shorter side that photos are resized to; None: the preprocessor's.
        dtype: of the arithmetic, as in `from_preset`.
        part_size: int, photos that a worker is given at once.
        **resources: of a worker, as `ray.data.Dataset.map_batches` takes them: `num_cpus`, `num_gpus`.

    Returns:
        A `ray.data.Dataset` with the columns of a table, in any order: nothing runs before it is written or read.

    Raises:
        ImportError: Ray is not there.

    Example:

    >>> photos = ray.data.from_items([{"image": path} for path in keras_rcnn.bulk.list_photos("photos")])
    >>> detect_on_ray(photos, "nuclei_frcnn", workers=8, num_gpus=1).write_parquet("found")
    """
    try:
        from ray.data import ActorPoolStrategy  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"Ray Data is needed: pip install 'keras-rcnn-zoo[ray]' ({error})") from error
    least, most = (workers, workers) if isinstance(workers, int) else workers
    options = {key: value for key, value in (("score", score), ("size", size)) if value is not None}
    return photos.map_batches(
        PhotoDetector,
        fn_constructor_args=(preset, batch_size, options, dtype),
        batch_size=part_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=least, max_size=most),
        **resources,
    )
