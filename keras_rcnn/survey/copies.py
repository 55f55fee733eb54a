"""Photos that occur twice: the same file, or the same picture saved anew."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_rcnn.data import DataError, Dataset, ImageError, Record, read_image
from keras_rcnn.data.ready import decoding_threads

SIDE = 16  # px of the thumbnails that are compared
LIKE = 0.99  # correlation from which on two thumbnails are of one picture
FLAT = 4.0  # standard deviation below which a thumbnail shows nothing to compare, of 0..255
MOST = 6000  # photos of which every pair is compared


def duplicates(datasets: Mapping[str, Dataset]) -> list[list[tuple[str, str]]]:
    """The photos that occur more than once, in one data set or in several.

    Files of the same bytes are found, and of up to 6,000 photos also those that were resized or compressed anew.

    Args:
        datasets: dict, what each is called, such as `"train"` -> `Dataset`.

    Returns:
        A list of groups, each a list of `(which data set, photo's name)`.
    """
    photos = [(name, record) for name, dataset in datasets.items() for record in dataset]
    with ThreadPoolExecutor(decoding_threads()) as pool:
        signs = list(pool.map(lambda photo: _sign(photo[1]), photos))
    group = list(range(len(photos)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    seen = {}
    for i, (digest, _) in enumerate(signs):
        if digest is not None:
            group[root(i)] = root(seen.setdefault(digest, i))
    for i, j in _alike([thumbnail for _, thumbnail in signs]):
        group[root(i)] = root(j)
    members = defaultdict(list)
    for i, (name, record) in enumerate(photos):
        members[root(i)].append((name, record.name))
    return [group for group in members.values() if len(group) > 1]


def _sign(record: Record) -> tuple[bytes | None, np.ndarray | None]:
    """`(SHA-256 of the file, thumbnail)`; None for what cannot be had."""
    digest, image = None, record.image
    try:
        if isinstance(image, (str, Path)):
            image = Path(image).read_bytes()
            digest = hashlib.sha256(image).digest()
        return digest, _thumbnail(read_image(image))
    except (OSError, DataError, ImageError):
        return digest, None


def _thumbnail(image: np.ndarray) -> np.ndarray | None:
    """Grey, of zero mean and unit length; None if it is flat."""
    import cv2

    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    values = grey.astype(np.float32).ravel()
    if values.std() < FLAT:
        return None
    values -= values.mean()
    return values / np.linalg.norm(values)


def _alike(thumbnails: Sequence[np.ndarray | None]) -> Iterator[tuple[int, int]]:
    """The pairs of thumbnails that are of one picture."""
    places = [i for i, thumbnail in enumerate(thumbnails) if thumbnail is not None]
    if not places or len(places) > MOST:
        return
    values = np.stack([thumbnail for thumbnail in thumbnails if thumbnail is not None])
    for start in range(0, len(places), 512):
        like = values[start : start + 512] @ values.T > LIKE
        for row, column in zip(*np.nonzero(like), strict=True):
            if start + row < column:
                yield places[start + row], places[column]
