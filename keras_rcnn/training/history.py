"""The history of a training: a row an epoch in a CSV file, and its curves."""

import csv
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_rcnn.files import aside
from keras_rcnn.interfaces import FilePath
from keras_rcnn.training.memory import resident_mb


class HistoryCSV(keras.callbacks.Callback):
    """Writes a row per epoch to a CSV file: everything in the logs, the learning rate, the seconds, and
    `memory_mb`, what the process holds.

    After each epoch the whole file is written aside and renamed, so that it is complete at any time, and columns that
    appear late (`val_AP50` of every third epoch) have their place. `fit(initial_epoch=..)` continues a file that is
    there: its rows before that epoch are kept, later ones replaced. Put it after `EvaluateCallback`.

    Args:
        path: the file.
        plot: a `.png` to draw with `plot_history` after each epoch, if any.
    """

    def __init__(self, path: FilePath, plot: FilePath | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.plot = plot
        self.rows = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.rows = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.rows is None:
            rows = read_history(self.path) if epoch and self.path.exists() else []
            self.rows = [row for row in rows if row["epoch"] <= epoch]
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {"epoch": epoch + 1, "seconds": round(time.monotonic() - self._started, 1)}
        rate = getattr(self.model.optimizer, "learning_rate", None)
        if rate is not None:
            row["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        row |= {key: float(value) for key, value in (logs or {}).items() if np.ndim(value) == 0}
        memory = resident_mb()
        if memory is not None:
            row["memory_mb"] = memory
        self.rows.append(row)
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with aside(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows({key: f"{value:.7g}" for key, value in row.items()} for row in self.rows)
        if self.plot is not None:
            plot_history(self.path, self.plot)


def read_history(path: FilePath) -> list[dict[str, float]]:
    """The rows of a `HistoryCSV` file: list of `{column: float}`, without the columns that a row has no value for.

    Raises:
        ValueError: not such a file.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        filled = [{key: float(value) for key, value in row.items() if value} for row in rows]
        return [row | {"epoch": int(row["epoch"])} for row in filled]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a history file (a table of numbers with a column 'epoch'): {error}") from error


def plot_history(path: FilePath, picture: FilePath) -> None:
    """Draws a `HistoryCSV` file: the losses, the average precisions, the learning rate and the memory over the epochs.

    Args:
        path: the CSV file.
        picture: the file to draw to, `.png` or another ending that matplotlib knows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_history(path)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    precisions = [key for key in columns if "AP" in key]
    losses = [
        key
        for key in columns
        if key not in (*precisions, "epoch", "seconds", "learning_rate", "memory_mb", "silent_units")
    ]
    losses.sort(key=lambda key: key not in ("loss", "val_loss"))
    panels = [
        ("loss", losses),
        ("average precision", precisions),
        ("learning rate", [key for key in columns if key == "learning_rate"]),
        ("memory, MB", [key for key in columns if key == "memory_mb"]),
    ]
    panels = [(title, keys) for title, keys in panels if keys]
    figure = Figure(figsize=(5.2 * max(len(panels), 1), 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for i, (title, keys) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for key in keys:
            points = [(row["epoch"], row[key]) for row in rows if math.isfinite(row.get(key, math.nan))]
            if points:
                total = key in ("loss", "val_loss", "val_AP", "learning_rate")
                marker = "o" if len(points) < 30 else ""
                axes.plot(*zip(*points, strict=True), label=key, lw=2 if total else 1.2, marker=marker, ms=3)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        locator: Any = axes.xaxis.get_major_locator()
        locator.set_params(integer=True)
        if title == "average precision":
            axes.set_ylim(0, 1)
        else:
            axes.set_ylim(bottom=0)
        if len(keys) > 1:
            axes.legend(fontsize="small")
    with aside(picture) as temporary:
        figure.savefig(temporary)


def plot_violations(history: Sequence[Mapping[str, Any]], path: FilePath) -> None:
    """Draws the share of margin violations over the trainings of every class's SVM.

    Args:
        history: what `fit_svms` returned.
        path: the picture to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in dict.fromkeys(row["class"] for row in history):
        rows = [row for row in history if row["class"] == name]
        shares = [row["violations"] / max(row["seen"], 1) for row in rows]
        axes.plot(range(1, len(rows) + 1), shares, marker="o", ms=3, label=name)
    axes.set(xlabel="training of the SVM", ylabel="regions with margin > -1", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    with aside(path) as temporary:
        figure.savefig(temporary)
