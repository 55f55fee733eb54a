"""Runs in a process of its own, with an end to its memory: `python -m tests.fuzz weights|presets FIRST LAST FOLDER`.

Prints what came of damaged files that may not come of them, as JSON.
"""

import io
import json
import random
import sys
import zipfile
from pathlib import Path

import numpy as np

from tests.hostile import damaged_bytes, damaged_json, limited

# what a process has before the first file: Python, NumPy, TensorFlow
MEMORY = 2 * 10**9


def weights_files(folder):
    """Kind -> (the bytes of a sound file or of what goes into it, how a file is made of them)."""
    from tests.convert.caffe_writer import network
    from tests.convert.test_torch_file import everything, write_safetensors
    from tests.convert.torch_writer import write_legacy, write_zip

    tree, arrays = everything()
    made = {"zip": write_zip(folder / "zip", tree), "legacy": write_legacy(folder / "legacy", tree)}
    made["legacy4"] = write_legacy(folder / "legacy4", tree, protocol=4)
    for name, save in (("npz", np.savez), ("deflated", np.savez_compressed)):
        with open(folder / name, "wb") as file:
            save(file, **arrays)
        made[name] = folder / name
    half = arrays["half"].astype(np.float16)
    tensors = {"a": ("F32", arrays["whole"]), "b": ("F16", half), "c": ("I64", arrays["long"])}
    made["safetensors"] = write_safetensors(folder / "safetensors", tensors)
    found = {kind: (path.read_bytes(), lambda data: data) for kind, path in made.items()}

    def zipped(name, others):
        def pack(data):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                for other, content in {**others, name: data}.items():
                    archive.writestr(other, content)
            return file.getvalue()

        return others[name], pack

    for kind in ("zip", "npz"):  # zip's checksums would keep the damage from what lies within
        with zipfile.ZipFile(made[kind]) as archive:
            inner = {name: archive.read(name) for name in archive.namelist()}
        name = "archive/data.pkl" if kind == "zip" else "whole.npy"
        found[f"{kind} within"] = zipped(name, inner)
    blobs = {"conv": [arrays["whole"].reshape(2, 3, 2, 4), arrays["half"].astype("f4").ravel()]}
    for i, settings in enumerate(({}, {"form": "v1"}, {"form": "v0", "packed": False}, {"packed": False})):
        found[f"caffemodel{i}"] = (network(blobs, **settings), lambda data: data)
    return found


def weights(first, last, folder):
    from keras_rcnn.convert import ConversionError, read_caffemodel, read_torch_file

    files = weights_files(folder)
    wind = limited(MEMORY)
    for seed in range(first, last):
        rng = random.Random(seed)
        kind = list(files)[seed % len(files)]
        data, pack = files[kind]
        path = folder / f"{seed}.weights"
        path.write_bytes(pack(damaged_bytes(data, rng)))
        wind()
        sys.stderr.write(f"{seed}\n")  # the last one that is seen after an end without a word
        try:
            read = (read_caffemodel if "caffemodel" in kind else read_torch_file)(path)
            arrays = [one for value in read.values() for one in (value if isinstance(value, list) else [value])]
            if any(array.dtype not in (np.float32, np.int64) for array in arrays):
                yield seed, kind, "arrays of another dtype"
        except ConversionError as error:
            if str(path) not in str(error):
                yield seed, kind, f"no name of the file: {error}"
        except Exception as error:  # noqa: BLE001 (which are what is looked for)
            yield seed, kind, f"{type(error).__name__}: {error}"
        path.unlink()


def presets(first, last, folder):
    import keras

    from keras_rcnn.presets import PRESET, WEIGHTS, PresetError, from_preset, save_preset
    from tests.models.tiny import tiny_detector

    keras.utils.set_random_seed(0)
    save_preset(tiny_detector(class_names=["square", "bar"]), folder)
    record = json.loads((folder / PRESET).read_text())
    photo = np.zeros((64, 64, 3), np.uint8)
    from_preset(folder).detect(photo)  # what TensorFlow takes for the first
    wind = limited(MEMORY)
    for seed in range(first, last):
        (folder / PRESET).write_bytes(damaged_json(record, seed))
        wind()
        sys.stderr.write(f"{seed}\n")  # the last one that is seen after an end without a word
        try:
            from_preset(folder).detect(photo)
        except PresetError as error:
            if str(folder / PRESET) not in str(error) and str(folder / WEIGHTS) not in str(error):
                yield seed, "preset", f"no name of the file: {error}"
        except Exception as error:  # noqa: BLE001 (which are what is looked for)
            yield seed, "preset", f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    suite, first, last, folder = sys.argv[1:]
    found = {"weights": weights, "presets": presets}[suite](int(first), int(last), Path(folder))
    sys.stdout.write(json.dumps([list(one) for one in found]))
