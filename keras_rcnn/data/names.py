"""Files by names that another system wrote: backslashes, URLs, other folders, letter case, no ending."""

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from keras_rcnn.interfaces import FilePath

logger = logging.getLogger(__name__)

ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".avif",
)  # fmt: skip
_LABEL_STUDIO = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what it puts before the name of an uploaded file


class Finder:
    """Finds the files that a data set names, in one folder.

    A name is tried as it stands, then with what other systems do to names undone: `\\` for `/`, `%20` and `file://`,
    a drive, blanks at its ends, folders before it that are not there or folders that it leaves out, another letter case
    or Unicode form, a missing ending. What fits more than one file is not guessed at.

    Args:
        folder: Path of the folder.
        source: The file that has the names, for messages.
        endings: Of the files looked for; a name may lack them.
    """

    def __init__(self, folder: FilePath, source: object, endings: tuple[str, ...] = ENDINGS) -> None:
        self.folder, self.source, self.endings = Path(folder), str(source), endings
        self._index = None

    def find(self, names: Iterable[str], tell: bool = True) -> tuple[dict[str, Path], dict[str, str]]:
        """The files of names.

        Args:
            names: Texts, each as often as it likes.
            tell: Whether to log a warning that counts what was found under other names.

        Returns:
            `({name: path}, {name: what was tried})`; every name is in one of them.
        """
        exact_paths, guessed, tried = {}, {}, {}
        for name in dict.fromkeys(names):
            path = self.folder / name
            if is_there(path):
                exact_paths[name] = path
                continue
            path, why = self._guess(name)
            (guessed if why is None else tried)[name] = path if why is None else why
        exact, claims = set(map(str, exact_paths.values())), Counter(map(str, guessed.values()))
        for name, path in list(guessed.items()):
            if str(path) in exact or claims[str(path)] > 1:
                del guessed[name]
                tried[name] = f"no such image file; {path} could be meant, but another name is nearer to it or as near"
        if guessed and tell:
            name, path = next(iter(guessed.items()))
            logger.warning(
                "%s: found %d files under other names than it gives, e.g. %r is %s",
                self.source, len(guessed), name, path,
            )  # fmt: skip
        return exact_paths | guessed, tried

    def _guess(self, name: str) -> tuple[Path, None] | tuple[None, str]:
        readings = _readings(name)
        for parts in readings:
            for start in range(len(parts)):
                path = self.folder.joinpath(*parts[start:])
                if is_there(path):
                    return path, None
        for parts in readings:
            files = self._similar(parts)
            if len(files) == 1:
                return files[0], None
            if files:
                some = ", ".join(map(str, files[:4])) + (", ..." if len(files) > 4 else "")
                return None, f"no such image file, and {len(files)} files could be meant: {some}"
        paths = dict.fromkeys([str(self.folder / name), *(str(self.folder.joinpath(*parts)) for parts in readings)])
        last = readings[0][-1] if readings else name
        return None, f"no such image file; tried {', '.join(paths)}, and {last} in any folder and letter case there"

    def _similar(self, parts: list[str]) -> list[Path]:
        """The files whose last folders are most like the name's."""
        wanted = [_plain(part) for part in parts]
        files = self._files(wanted[-1])
        if len(files) < 2:
            return [path for path, _ in files]
        like = [_likeness(wanted[:-1], folders) for _, folders in files]
        return [path for (path, _), count in zip(files, like) if count == max(like)]

    def _files(self, last: str) -> list[tuple[Path, list[str]]]:
        if self._index is None:
            self._index = {}
            for folder, below, files in os.walk(self.folder):
                below[:] = sorted(folder_name for folder_name in below if not folder_name.startswith("."))
                folders = [_plain(part) for part in Path(folder).relative_to(self.folder).parts]
                for file in sorted(files):
                    if file.lower().endswith(self.endings):
                        for key in {_plain(file), _plain(os.path.splitext(file)[0])}:
                            self._index.setdefault(key, []).append((Path(folder, file), folders))
        return self._index.get(last, [])


def _readings(name: str) -> list[list[str]]:
    """What a name may mean, as lists of its parts without `.`, a drive or a host, the likeliest first."""
    readings = []
    for text in (name, unquote(name)):
        if "://" in text or "?" in text:
            try:
                url = urlsplit(text)
                where = parse_qs(url.query).get("d")  # Label Studio's local files: /data/local-files/?d=folder/a.jpg
                text = unquote(where[0] if where else url.path or text)
            except ValueError:
                pass
        text = text.replace("\\", "/")
        text = re.sub(r"^[A-Za-z]:(?=/)", "", text).strip()
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if parts:
            readings.append(parts)
            if _LABEL_STUDIO.match(parts[-1]):
                readings.append([*parts[:-1], _LABEL_STUDIO.sub("", parts[-1])])
    return [parts for i, parts in enumerate(readings) if parts not in readings[:i]]


def without_ending(name: str, endings: tuple[str, ...] = ENDINGS) -> str:
    """A file's name without an image's ending; other dots stay."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in endings else name


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _likeness(wanted: list[str], folders: list[str]) -> tuple[int, int]:
    """How many of the last folders are the same, and how many of all."""
    last = 0
    while last < min(len(wanted), len(folders)) and wanted[-1 - last] == folders[-1 - last]:
        last += 1
    return last, len(set(wanted) & set(folders))


def is_there(path: Path) -> bool:
    """Whether there is such a file, or a link to one; False for what can be no name."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero in it
        return False
