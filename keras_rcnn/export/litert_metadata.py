"""TFLite Metadata: what a model's inputs and outputs are, in its file, and files that are packed with it.

The layout is TFLite's `metadata_schema.fbs` (file identifier M001); numbers are the places of its tables' fields.
"""

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NAME, IDENTIFIER, PARSER = "TFLITE_METADATA", b"M001", "1.0.0"
# AssociatedFileType
DESCRIPTIONS, VALUE_LABELS = 1, 3


def with_metadata(
    content: bytes,
    name: str,
    description: str,
    tensors: Mapping[str, str],
    files: Mapping[str, bytes],
    labels: tuple[str, str] | None = None,
) -> bytes:
    """A TFLite model with metadata and associated files.

    Args:
        content: bytes of the model, with a signature.
        name: str.
        description: str.
        tensors: the signature's name of each input and output -> what it is.
        files: name -> bytes, what is packed with the model: it can be unpacked as a zip.
        labels: `(name of a file, name of an output)`: the file has the names of the output's values.

    Returns:
        bytes.
    """
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    names = signature_names(model)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = _metadata(name, description, names, tensors, files, labels)
    model.buffers.append(buffer)
    entry.name, entry.buffer = NAME, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    packed = io.BytesIO()
    packed.write(flatbuffer_utils.convert_object_to_bytearray(model))
    with zipfile.ZipFile(packed, "a") as archive:  # behind the model; readers of zip files look from the end
        for each, data in files.items():
            # no time, so that the same model is the same file
            archive.writestr(zipfile.ZipInfo(each), data)
    return packed.getvalue()


def signature_names(model: Any) -> list[list[str]]:
    """`(inputs, outputs)`: the names that the signature has for them, in the subgraph's order."""
    signature, graph = model.signatureDefs[0], model.subgraphs[0]
    names = []
    for places, maps in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
        by_place = {entry.tensorIndex: entry.name.decode() for entry in maps}
        names.append([by_place[place] for place in places])
    return names


def _metadata(
    name: str,
    description: str,
    names: Sequence[Sequence[str]],
    tensors: Mapping[str, str],
    files: Iterable[str],
    labels: tuple[str, str] | None,
) -> bytes:
    """The flatbuffer of a ModelMetadata."""
    import flatbuffers

    builder = flatbuffers.Builder()

    def file(each: str) -> int:
        is_labels = labels is not None and each == labels[0]
        return _table(builder, {0: each}, {2: VALUE_LABELS if is_labels else DESCRIPTIONS})

    def tensor(each: str) -> int:
        own = [file(labels[0])] if labels is not None and each == labels[1] else []
        return _table(builder, {0: each, 1: tensors[each], 6: own})

    others = [file(each) for each in files if labels is None or each != labels[0]]
    inputs, outputs = ([tensor(each) for each in some] for some in names)
    graph = _table(builder, {2: inputs, 3: outputs})
    root = _table(builder, {0: name, 1: description, 3: [graph], 6: others, 7: PARSER})
    builder.Finish(root, IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: Any, fields: Mapping[int, str | Sequence[int]], numbers: Mapping[int, int] | None = None) -> int:
    """A table of strings and vectors of tables, and of int8 numbers, by the places of its fields."""
    offsets = {}
    for place, value in fields.items():
        if isinstance(value, str):
            offsets[place] = builder.CreateString(value)
        elif value:
            builder.StartVector(4, len(value), 4)
            for offset in reversed(value):
                builder.PrependUOffsetTRelative(offset)
            offsets[place] = builder.EndVector()
    builder.StartObject(max([*fields, *(numbers or ())]) + 1)
    for place, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(place, offset, 0)
    for place, value in (numbers or {}).items():
        builder.PrependInt8Slot(place, value, 0)
    return builder.EndObject()
