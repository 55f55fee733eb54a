"""One recipe trained with several settings, one after the other, and a table of what came of it."""

import argparse
import subprocess
import sys
from pathlib import Path

from keras_rcnn.training.history import read_history

COLUMNS = {"val_AP": "AP", "val_AP50": "AP50", "val_segm_AP": "mask AP", "silent_units": "silent units"}


def main(words=None):
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        description="Trains RECIPE once for each --vary, and prints a table as Markdown. What is done already is left "
        "as it is; what was killed goes on.",
        epilog="python tools/ablation.py zoo/nuclei_frcnn/recipe.py --set epochs=2 --vary 'as it is' --vary "
        "'SGD: optimizer=sgd learning_rate=0.01' --out runs/ablation",
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--out", required=True, type=Path, help="a folder; each training gets one in it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all of them")
    parser.add_argument("--vary", action="append", required=True, metavar="'NAME: KEY=VALUE ...'")
    arguments = parser.parse_args(words)
    variations = [variation(text) for text in arguments.vary]
    folders = [folder_name(name) for name, _ in variations]
    if not all(folders) or len(set(folders)) < len(folders):
        parser.error(f"each --vary needs a name, and a folder, of its own: these would be {folders}")
    trainings, failed = [], False
    for folder, (name, settings) in zip(folders, variations, strict=True):
        out = arguments.out / folder
        trainings.append((name, out))
        if not (out / "preset.json").exists():
            print(f"== {name}: {' '.join(settings) or 'the recipe'}", flush=True)
            failed |= train(arguments.recipe, [*arguments.set, *settings], out)
    print(table(trainings))
    return int(failed)


def variation(text):
    """`(name, settings)` of `"NAME: KEY=VALUE KEY=VALUE"`."""
    name, _, settings = text.partition(":")
    return name.strip(), settings.split()


def folder_name(name):
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def train(recipe, settings, out):
    """Whether the training failed; a diverged one has failed and is a line of the table all the same."""
    command = [sys.executable, "-m", "keras_rcnn", "train", recipe, "--out", str(out), "--set", "evaluate_every=1"]
    command += [word for setting in settings for word in ("--set", setting)]
    if (out / "checkpoint.safetensors").exists():
        command.append("--resume")
    return subprocess.run(command).returncode != 0


def table(trainings):
    """Of `(name, folder)`: the last whole epoch of each."""
    rows = []
    for name, folder in trainings:
        file = folder / "history.csv"
        epochs = read_history(file) if file.exists() else []
        rows.append((name, epochs[-1] if epochs else {"epoch": 0}))
    columns = {key: title for key, title in COLUMNS.items() if any(key in row for _, row in rows)}
    lines = ["| " + " | ".join(["settings", "epochs", "loss", *columns.values()]) + " |"]
    lines.append("|---|--:|--:|" + "--:|" * len(columns))
    for name, row in rows:
        cells = [f"{row[key]:.3f}" if key in row else "-" for key in ("loss", *columns)]
        lines.append(f"| {name} | {row['epoch']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
