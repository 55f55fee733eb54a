"""A SavedModel run by TensorFlow's C library alone: `python capi.py LIBRARIES JOB.json`, without TensorFlow's Python.

The job: `model` (folder), `inputs` (tensor name -> .npy file, or a list of files whose bytes are its strings),
`outputs` (key -> tensor name), `answer` (.npz to write). What the library reports as an error goes to stdout, exit 3.
"""

import ctypes as c
import json
import sys
from pathlib import Path

import numpy as np

STRING = 7
DTYPES = {1: np.float32, 3: np.int32, 4: np.uint8, 9: np.int64}
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
TSTRING = 24  # sizeof(TF_TString)


class Output(c.Structure):
    _fields_ = [("operation", c.c_void_p), ("index", c.c_int)]


def library(folder):
    """The C API, its pointers declared."""
    c.CDLL(str(Path(folder, "libtensorflow_framework.so.2")), mode=c.RTLD_GLOBAL)
    tf = c.CDLL(str(Path(folder, "libtensorflow_cc.so.2")), mode=c.RTLD_GLOBAL)
    for name in (
        "TF_NewStatus TF_NewGraph TF_NewSessionOptions TF_LoadSessionFromSavedModel TF_GraphOperationByName "
        "TF_AllocateTensor TF_TensorData TF_StringGetDataPointer TF_Version"
    ).split():
        getattr(tf, name).restype = c.c_void_p
    for name in ("TF_TensorByteSize", "TF_StringGetSize"):
        getattr(tf, name).restype = c.c_size_t
    for name in ("TF_Dim", "TF_TensorElementCount"):
        getattr(tf, name).restype = c.c_int64
    tf.TF_Message.restype = c.c_char_p
    return tf


def check(tf, status):
    if tf.TF_GetCode(status):
        sys.stdout.write(f"error {tf.TF_GetCode(status)}: {tf.TF_Message(status).decode()}\n")
        sys.exit(3)


def tensor(tf, value):
    """A TF_Tensor of an array, or of a list of byte strings."""
    shape = (len(value),) if isinstance(value, list) else value.shape
    dims = (c.c_int64 * max(len(shape), 1))(*shape)
    if isinstance(value, list):
        made = c.c_void_p(tf.TF_AllocateTensor(STRING, dims, 1, c.c_size_t(TSTRING * len(value))))
        for i, one in enumerate(value):
            place = c.c_void_p(tf.TF_TensorData(made) + i * TSTRING)
            tf.TF_StringInit(place)
            tf.TF_StringCopy(place, one, c.c_size_t(len(one)))
        return made
    value = np.ascontiguousarray(value)
    made = c.c_void_p(tf.TF_AllocateTensor(CODES[value.dtype], dims, len(shape), c.c_size_t(value.nbytes)))
    c.memmove(tf.TF_TensorData(made), value.ctypes.data, value.nbytes)
    return made


def array(tf, made):
    """The array of a TF_Tensor; strings as objects."""
    made = c.c_void_p(made)
    shape = [tf.TF_Dim(made, i) for i in range(tf.TF_NumDims(made))]
    kind, data = tf.TF_TensorType(made), tf.TF_TensorData(made)
    if kind == STRING:
        places = [c.c_void_p(data + i * TSTRING) for i in range(tf.TF_TensorElementCount(made))]
        texts = [c.string_at(tf.TF_StringGetDataPointer(one), tf.TF_StringGetSize(one)).decode() for one in places]
        return np.array(texts).reshape(shape)
    size = tf.TF_TensorByteSize(made)
    return np.frombuffer(c.string_at(data, size) if size else b"", DTYPES[kind]).reshape(shape)


def run(folder, job):
    tf = library(folder)
    status, graph = c.c_void_p(tf.TF_NewStatus()), c.c_void_p(tf.TF_NewGraph())
    options, tags = c.c_void_p(tf.TF_NewSessionOptions()), (c.c_char_p * 1)(b"serve")
    session = tf.TF_LoadSessionFromSavedModel(options, None, job["model"].encode(), tags, 1, graph, None, status)
    check(tf, status)

    def outputs(names):
        pairs = [name.rsplit(":", 1) for name in names]
        made = [Output(tf.TF_GraphOperationByName(graph, name.encode()), int(i)) for name, i in pairs]
        return (Output * len(made))(*made)

    values = [
        [Path(file).read_bytes() for file in one] if isinstance(one, list) else np.load(one)
        for one in job["inputs"].values()
    ]
    fed = (c.c_void_p * len(values))(*[tensor(tf, value).value for value in values])
    got = (c.c_void_p * len(job["outputs"]))()
    tf.TF_SessionRun(
        c.c_void_p(session), None, outputs(job["inputs"]), fed, len(values),
        outputs(job["outputs"].values()), got, len(got), None, 0, None, status,
    )  # fmt: skip
    check(tf, status)
    np.savez(job["answer"], **{key: array(tf, one) for key, one in zip(job["outputs"], got)})


if __name__ == "__main__":
    run(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    loaded = [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "keras", "keras_rcnn")]
    sys.stdout.write(f"loaded: {loaded}\n")
