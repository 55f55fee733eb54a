"""Requests that are out to do harm, or are wrong in every way that is known, from a seed."""

import base64
import gzip
import io
import json
import random
import struct
import zlib

import numpy as np
from PIL import Image

from tests.export.detectors import encoded
from tests.hostile import damaged_bytes, damaged_json

PREDICT, INFER, DETECT = "/v1/models/mask:predict", "/v2/models/mask/infer", "/detect/mask"
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (24, 32, 3)).astype(np.uint8)


def predict(content=None):
    text = base64.b64encode(encoded(picture()) if content is None else content).decode()
    return {"signature_name": "serving_default", "instances": [{"image_bytes": {"b64": text}}]}


def infer(content=None):
    text = base64.b64encode(encoded(picture()) if content is None else content).decode()
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [text]}
    return {"id": "1", "inputs": [tensor], "outputs": [{"name": "boxes"}]}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits=1, rows=None, extra=b""):
    """A PNG whose header says so, whatever is in it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    rows = zlib.compress(bytes(1 + (width * bits + 7) // 8) * height, 9) if rows is None else rows
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bombs():
    """Small files that would be large pictures, or a lot of work."""
    yield "png bomb", png(6000, 6000)
    yield "png header bomb", png(2**31 - 1, 2**31 - 1, rows=b"x")
    yield "png without pixels", png(0, 0, rows=b"")
    yield "png text bomb", png(8, 8, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 * 2**20), 9)))
    file = io.BytesIO()
    Image.new("L", (5000, 5000)).save(file, "GIF")
    yield "gif bomb", file.getvalue()
    file = io.BytesIO()
    Image.new("1", (5000, 5000)).save(file, "TIFF", compression="group4")
    yield "tiff bomb", file.getvalue()
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "JPEG")
    jpeg = file.getvalue()
    scan = jpeg[jpeg.index(b"\xff\xda") : -2]
    yield "jpeg of many scans", jpeg[:-2] + scan * 200 + b"\xff\xd9"
    yield "jpeg header bomb", jpeg.replace(b"\x00\x18\x00\x20", b"\xff\xff\xff\xff", 1)


def bodies(count, seed=0):
    """`count` of (name, path, body, headers) that no service may answer but by a 4xx."""
    rng, fixed = random.Random(seed), list(_fixed())
    yield from fixed[:count]
    for i in range(max(0, count - len(fixed))):
        yield from _random(rng, seed * 10_000 + i)


def _fixed():
    for name, content in bombs():
        yield name, DETECT, content, {}
        yield f"{name} in json", PREDICT, json.dumps(predict(content)).encode(), {}
    good = encoded(picture())
    for form in FORMATS:
        content = encoded(picture(), form)
        others = {"JPEG": "image/png"}.get(form, "image/jpeg")
        yield f"mislabelled {form}", DETECT, content, {"Content-Type": others}
        yield f"half of {form}", DETECT, content[: len(content) // 2], {}
        yield f"start of {form}", DETECT, content[:12], {}
    for name, content in (
        ("nothing", b""),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"),
        ("pdf", b"%PDF-1.4\n"),
        ("html", b"<!doctype html>"),
        ("zip", b"PK\x03\x04" + bytes(100)),
        ("gzip", gzip.compress(good)),
    ):
        yield name, DETECT, content, {}
        yield f"{name} called jpeg", DETECT, content, {"Content-Type": "image/jpeg"}
        yield f"{name} in json", PREDICT, json.dumps(predict(content)).encode(), {}
        yield f"{name} in kserve", INFER, json.dumps(infer(content)).encode(), {}
    yield "compressed", DETECT, gzip.compress(bytes(10**6)), {"Content-Encoding": "gzip"}
    yield "form", DETECT, good, {"Content-Type": "multipart/form-data; boundary=x"}
    yield "too long", DETECT, bytes(2 * 2**20), {}
    yield "too long json", PREDICT, b'{"instances": ["' + b"A" * (2 * 2**20) + b'"]}', {}
    for path in (PREDICT, INFER):
        for name, body in (
            ("nothing", b""),
            ("a number", b"7"),
            ("a list", b"[]"),
            ("null", b"null"),
            ("half", json.dumps(predict()).encode()[:100]),
            ("latin-1", '{"instances": ["\xfc"]}'.encode("latin-1")),
            ("utf-16", json.dumps(predict()).encode("utf-16")),
            ("a bom", b"\xef\xbb\xbf" + json.dumps(predict()).encode()),
            ("nan", b'{"instances": [NaN]}'),
            ("infinity", b'{"inputs": -Infinity}'),
            ("large", b'{"instances": [1e999999]}'),
            ("digits", b'{"instances": [' + b"9" * 10_000 + b"]}"),
            ("deep list", b"[" * 100_000),
            ("deep object", b'{"a":' * 100_000),
            ("deep instances", b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}"),
            ("single quotes", b"{'instances': []}"),
            ("a surrogate", b'{"instances": ["\\ud800"]}'),
            ("a nul", b'{"instances": ["\\u0000"]}\x00'),
            ("pickle", b"\x80\x04\x95\x00"),
        ):
            yield f"{name} to {path}", path, body, {}
    for b64 in ("*", "AAA", "A", "AA==AA==", "=", " ", "AAAA\n", None, 7, [], {}, ["AAAA"], True):
        yield f"b64 {b64!r}", PREDICT, json.dumps({"instances": [{"b64": b64}]}).encode(), {}
    for images in (
        [[[[1e39] * 3]]],
        [[[[-1, 0, 0]]]],
        [[[[0, 0, 10**30]]]],
        [[[["0", "0", "0"]]]],
        [[[[None, 0, 0]]]],
        [[[[0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]],
        [[[[0, 0, 0, 0]]]],
        [[[[{}, 0, 0]]]],
        [[]],
        [[[[]]]],
        [[[[0, 0, 0]] * 1000] * 400],
    ):
        document = {"signature_name": "images", "inputs": images}
        yield f"pixels {str(images)[:30]}", PREDICT, json.dumps(document).encode(), {}
    box = [[0, 0, 9, 9]]
    text = {"b64": base64.b64encode(good).decode()}
    for boxes in (None, 7, "x", [[1, 2, 3]], [[1, 2, 3, "4"]], [[9, 9, 0, 0]], [[0, 0, 1e30, 1e30]], box * 3000, [box]):
        document = {"instances": [{"image_bytes": text, "proposals": boxes}]}
        yield f"boxes {str(boxes)[:30]}", "/v1/models/fast:predict", json.dumps(document).encode(), {}
    yield (
        "boxes nobody wants",
        PREDICT,
        json.dumps({"instances": [{"image_bytes": text, "proposals": box}]}).encode(),
        {},
    )
    deep = json.loads("[" * 900 + "]" * 900)
    for key in ("datatype", "shape", "data", "name", "parameters"):
        yield f"deep {key}", INFER, json.dumps({"inputs": [{**infer()["inputs"][0], key: deep}]}).encode(), {}
    for key in ("id", "inputs", "outputs"):
        yield f"deep {key}", INFER, json.dumps({**infer(), key: deep}).encode(), {}
    for key in ("instances", "signature_name"):
        yield f"deep {key}", PREDICT, json.dumps({**predict(), key: deep}).encode(), {}
    wide = {"signature_name": "images", "inputs": [["a" * 500_000] + ["b"] * 100_000]}
    yield "one long text among many", PREDICT, json.dumps(wide).encode(), {}
    yield "a row of texts", PREDICT, json.dumps({**wide, "inputs": [[[["1", 2, 3]]]]}).encode(), {}
    many = {"inputs": {"image_bytes": [text] * 100}}
    yield "many photos", PREDICT, json.dumps(many).encode(), {}


def _random(rng, seed):
    kind = rng.choice(("predict", "infer", "photo", "b64", "noise"))
    if kind in ("predict", "infer"):
        record, path = (predict(), PREDICT) if kind == "predict" else (infer(), INFER)
        try:
            body = damaged_json(record, seed)[: 2**20]
        except IndexError:  # nothing is left to be damaged
            body = b"{}"
        yield f"damaged {kind} {seed}", path, body, {}
    elif kind == "photo":
        form = rng.choice(FORMATS)
        yield f"damaged {form} {seed}", DETECT, damaged_bytes(encoded(picture(seed), form), rng), {}
    elif kind == "b64":
        text = json.dumps(predict(damaged_bytes(encoded(picture(seed)), rng))).encode()
        yield f"damaged b64 {seed}", PREDICT, damaged_bytes(text, rng), {}
    else:
        start = rng.choice((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*"))
        yield f"noise {seed}", DETECT, start + rng.randbytes(rng.choice((0, 1, 40, 4000))), {}


def raw_requests():
    """`(name, bytes)` that are sent as they are; the answer is a 4xx, if it is one."""
    start = b"POST /detect/mask HTTP/1.1\r\nHost: x\r\n"
    good = encoded(picture())
    long = b"Content-Length: %d\r\n" % len(good)
    yield "no http", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50)
    yield "http 2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "no method", b"/detect/mask\r\n\r\n"
    yield "two lengths", start + long + b"Content-Length: 5\r\n\r\n" + good
    yield "negative length", start + b"Content-Length: -5\r\n\r\n" + good
    yield "length of letters", start + b"Content-Length: many\r\n\r\n" + good
    yield "length of 30 digits", start + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n"
    yield "length of 100 MB", start + b"Content-Length: 104857600\r\n\r\n"
    yield "length and chunks", start + long + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    yield "unknown coding", start + b"Transfer-Encoding: gzip\r\n\r\n" + good
    yield "bad chunk", start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n"
    yield "long chunk size", start + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nhello\r\n"
    yield "long header", start + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n"
    yield "many headers", start + b"".join(b"X-%d: a\r\n" % i for i in range(10_000)) + b"\r\n"
    yield "space before colon", start + b"X-A : b\r\n" + long + b"\r\n"
    yield "control in header", start + b"X-A: \x00\x07\r\n" + long + b"\r\n"
    yield "no host", b"POST /detect/mask HTTP/1.1\r\n" + long + b"\r\n"
    yield "path of bytes", b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "long path", b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "path upwards", b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "path with an end of line", b"GET /v1/models/a%0d%0aX-Evil:%20b HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "upgrade", start + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    yield "trace", b"TRACE /detect/mask HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "connect", b"CONNECT evil:80 HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "method of its own", b"HACK /detect/mask HTTP/1.1\r\nHost: x\r\n\r\n"
