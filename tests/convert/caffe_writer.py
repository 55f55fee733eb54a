"""Writes small .caffemodel files by the fields of the public caffe.proto, in its three forms."""

import struct

import numpy as np


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    """A field of a message: an int is a varint, bytes and str have a length, a float is four bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array, old=False, packed=True, double=False):
    """BlobProto: `old` has num, channels, height and width, filled with 1 from the left, in the place of a shape."""
    if old:
        dims = (1,) * (4 - array.ndim) + array.shape
        head = b"".join(field(i, int(n)) for i, n in enumerate(dims, start=1))
    else:
        dims = [int(n) for n in array.shape]
        inner = field(1, b"".join(map(varint, dims))) if packed else b"".join(field(1, n) for n in dims)
        head = field(7, inner)
    number, kind, dtype = (8, 1, "<f8") if double else (5, 5, "<f4")
    data = array.astype(dtype)
    if packed:
        return head + field(number, data.tobytes())
    tags = np.full((data.size, 1), number << 3 | kind, np.uint8)
    values = data.reshape(-1, 1).view(np.uint8)
    return np.concatenate([tags, values], axis=1).tobytes() + head  # fields may come in any order


def network(blobs, form="new", packed=True, double=False):
    """NetParameter with a layer for each `name: [arrays]`, and a few layers and fields that carry no weights.

    `form` is "new" (`layer`, field 100), "v1" (`layers`, field 2) or "v0" (within the latter).
    """
    out = [field(1, "a network"), field(4, 3), field(5, 0)]
    for i, (name, arrays) in enumerate([("data", []), *blobs.items(), ("prob", [])]):
        protos = [blob(array, form != "new", packed, double) for array in arrays]
        if form == "new":
            inner = field(1, name) + field(2, "Convolution") + field(3, "below") + field(6, field(3, 1.0))
            out.append(field(100, inner + b"".join(field(7, proto) for proto in protos) + field(10, 1)))
        elif form == "v1":
            inner = field(2, "below") + field(4, name) + field(5, 4) + field(7, 1.0)
            out.append(field(2, b"".join(field(6, proto) for proto in protos) + inner))
        else:
            inner = field(1, name) + field(2, "conv") + field(3, i)
            out.append(field(2, field(1, inner + b"".join(field(50, p) for p in protos)) + field(2, "below")))
    return b"".join(out)


def write_caffemodel(path, blobs, **settings):
    path.write_bytes(network(blobs, **settings))
    return path


# === Weights ===

VGG = {f"conv{i}_{j}": n for i, (count, n) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1)
       for j in range(1, count + 1)}  # fmt: skip
CONVS = {
    "vgg16": [(name, n, 3, 1) for name, n in VGG.items()],
    "caffenet": [("conv1", 96, 11, 1), ("conv2", 256, 5, 2), ("conv3", 384, 3, 1), ("conv4", 384, 3, 2),
                 ("conv5", 256, 3, 2)],
    "zf": [("conv1", 96, 7, 1), ("conv2", 256, 5, 1), ("conv3", 384, 3, 1), ("conv4", 384, 3, 1), ("conv5", 256, 3, 1)],
}  # fmt: skip


def random_blobs(model, seed=0, units=None, classes=None, anchors=None, rpn_channels=None, width=1):
    """`{name: [kernel, bias]}` in Caffe's layouts: the convolutions, their channels divided by `width`; fc6, fc7 and
    fc8 of `units`; the predictor of `classes` with background; the RPN of so many anchors."""
    rng = np.random.default_rng(seed)
    blobs = {}

    def add(name, *shape, gain=2.0):
        fan_in = int(np.prod(shape[1:]))
        kernel = rng.standard_normal(shape, np.float32) * np.float32((gain / fan_in) ** 0.5)
        blobs[name] = [kernel, rng.normal(size=shape[0]).astype(np.float32) * np.float32(0.1)]

    channels = 3
    for name, filters, size, groups in CONVS[model]:
        add(name, filters // width, channels // groups, size, size)
        channels = filters // width
    if units:
        add("fc6", units, channels * (49 if model == "vgg16" else 36))
        add("fc7", units, units)
        if classes is None:
            add("fc8", 10, units)
    if classes:
        add("cls_score", classes, units, gain=1.0)
        add("bbox_pred", 4 * classes, units, gain=0.01)
    if anchors:
        add("rpn_conv/3x3", rpn_channels or channels, channels, 3, 3)
        add("rpn_cls_score", 2 * anchors, rpn_channels or channels, 1, 1, gain=1.0)
        add("rpn_bbox_pred", 4 * anchors, rpn_channels or channels, 1, 1, gain=0.1)
    return blobs
