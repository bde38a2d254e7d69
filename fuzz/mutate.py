"""Spoils files: any bytes, and what each kind of file says of itself.

Every function draws from a `random.Random` alone, so that a seed gives the same file again.
"""

import io
import json
import os
import pickle
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Mutator = Callable[[bytes, random.Random], bytes]

CANARY = "weakseg-fuzz-canary"
"""A file that executed code would write, in the working folder."""

HOSTILE_NAMES = (
    "<script>xss()</script>",
    "</script><xss onxss=1>",
    '"><xss onxss=1>',
    "' onxss='1",
    "{{7*7}}{% raw %}",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\0b",
    "\x1b[2J\x1b]0;title\x07",
    "a\u202egnp.b",
    "\u2066a\u2069\u200f",
    "../../../../escaped",
    "..\\..\\escaped",
    "/escaped",
    "C:\\escaped",
    "..",
    ".",
    "~",
    "$(touch escaped)",
    "`touch escaped`",
    "-rf",
    "=1+1",
    "%2e%2e%2fescaped",
    "&amp;&#60;xss&#62;",
    "]]><xss/>",
    "<!--",
    "con",
    "\ud800",
    "\ufeffa",
    "e\u0301",
    "a;b|c,d",
    "n" * 300,
    "",
    " ",
)
NUMBERS = (
    *("0", "-0", "-1", "1", "2", "127", "128", "254", "255", "256", "32768", "65535", "65536"),
    *(str(2**power + more) for power in (31, 32, 63, 64) for more in (-1, 0)),
    *("1e308", "1e309", "-1e309", "1e-320", "0.5", "1e5", "10000000000", "0x10", "1_000"),
    *("NaN", "nan", "Infinity", "-Infinity", "inf"),
)
LONG_NUMBER = "9" * 5000

MOST = 2**22
"""Characters of a text: what takes time in proportion to its size is no fault."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 255, 256, 2**31, 2**32, 2**63, 2**64, 10**30, 0.5, -0.0),
    *(float("nan"), float("inf"), -float("inf"), 1e308, 1e-320, 1e5, "", "1", "NaN", [], {}, [[]]),
    *([None], {"": None}, [0] * 1000, [[0, 0, 1, 1]] * 50, "x" * 100_000),
    *HOSTILE_NAMES,
)


def any_bytes(content: bytes, rng: random.Random) -> bytes:
    """Some faults that files of every kind may have."""
    spoilt = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(spoilt) + 1)
        length = min(len(spoilt) - at, int(2 ** rng.uniform(0, 12)))
        match rng.randrange(10):
            case 0 | 1 if at < len(spoilt):
                spoilt[at] ^= 1 << rng.randrange(8)
            case 2 if at < len(spoilt):
                spoilt[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
            case 3:
                del spoilt[at:]
            case 4:
                del spoilt[at : at + length]
            case 5:
                spoilt[at:at] = spoilt[at : at + length] * rng.choice((1, 1, 2, 100))
            case 6:
                spoilt[at : at + length] = rng.randbytes(length)
            case 7:
                form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
                size = struct.calcsize(form)
                most = 2 ** (8 * size)
                number = rng.choice((0, 1, most - 1, most // 2, most // 2 - 1, most // 16))
                spoilt[at : at + size] = struct.pack(form, number)
            case 8:
                other = rng.randrange(len(spoilt) + 1)
                spoilt[at : at + length] = spoilt[other : other + length]
            case _:
                spoilt[at:at] = rng.choice((b"\0", b"\xff\xfe", b"\r\n", b"\n", b'"', b"\xc3"))
        if not spoilt:
            break
    return bytes(spoilt)


def any_text(content: bytes, rng: random.Random) -> bytes:
    """Faults of texts: numbers, names, separators, encodings, nesting."""
    text = content.decode("utf-8", "replace")
    for _ in range(rng.choice((1, 1, 2, 5))):
        match rng.randrange(9):
            case 0 | 1:
                text = _replaced(r"-?\d+(?:\.\d+)?", text, rng, (*NUMBERS, LONG_NUMBER))
            case 2 | 3:
                text = _replaced(r"[A-Za-z_]\w*", text, rng, HOSTILE_NAMES)
            case 4:
                lines = text.splitlines(keepends=True)
                if lines:
                    at = rng.randrange(len(lines))
                    lines[at : at + 1] = [lines[at]] * rng.choice((0, 2, 3, 200))
                text = "".join(lines)
            case 5:
                marks = r"[,;:|\t\"'\[\]{}<>=/&*!%@-]"
                more = ("", ",", ";", '"', "'", "\t", "[", "{", "<", "&a", "*a", "%", "- ", ": ")
                text = _replaced(marks, text, rng, more)
            case 6:
                at = rng.randrange(len(text) + 1)
                depth = rng.choice((10, 1000, 20_000))
                opening = rng.choice(("[", "{", '{"a":', "<object>", "<object><name>a</name>", "("))
                text = text[:at] + opening * depth + text[at:]
            case 7:
                at = rng.randrange(len(text) + 1)
                text = text[:at] + rng.choice(HOSTILE_NAMES) + text[at:]
            case _:
                encoding = rng.choice(("utf-16", "utf-8-sig", "utf-32", "utf-7", "cp037"))
                return text.encode(encoding, "replace")
    return text[:MOST].encode("utf-8", "surrogatepass")


def _replaced(pattern: str, text: str, rng: random.Random, by: Sequence[str]) -> str:
    found = list(re.finditer(pattern, text[:200_000]))
    if not found:
        return text
    one = rng.choice(found)
    return text[: one.start()] + rng.choice(by) + text[one.end() :]


def spoil_value(value: Any, rng: random.Random) -> Any:
    """JSON-like values, one or a few of which are of another type, size or name."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _spoil_one(value, rng)
    return value


def _spoil_one(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        changed = dict(value)
        match rng.randrange(12):
            case 0:
                del changed[key]
            case 1:
                changed[rng.choice(HOSTILE_NAMES)] = changed.pop(key)
            case 2:
                changed[rng.choice(list(value))] = rng.choice(list(value.values()))
            case _:
                changed[key] = _spoil_one(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        entries = list(value)
        match rng.randrange(12):
            case 0:
                del entries[at]
            case 1:
                entries.insert(at, entries[rng.randrange(len(entries))])
            case 2:
                entries[at : at + 1] = [entries[at]] * 300
            case _:
                entries[at] = _spoil_one(entries[at], rng)
        return entries
    if rng.random() < 0.1:
        return [value]
    return rng.choice(VALUES)


def json_file(content: bytes, rng: random.Random) -> bytes:
    chosen = rng.random()
    if chosen < 0.15:
        return any_bytes(content, rng)
    if chosen < 0.35:
        return any_text(content, rng)
    try:
        value = json.loads(content)
    except ValueError:
        return any_text(content, rng)
    return json.dumps(spoil_value(value, rng)).encode()


def text_file(content: bytes, rng: random.Random) -> bytes:
    return any_bytes(content, rng) if rng.random() < 0.25 else any_text(content, rng)


_ENTITIES = (
    '<!DOCTYPE a [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]>',
    '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">',
    '<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
)


def xml_file(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.7:
        return text_file(content, rng)
    text = content.decode("utf-8", "replace")
    match rng.randrange(3):
        case 0:
            text = rng.choice(_ENTITIES) + re.sub("<name>[^<]*", "<name>&a;&c;", text)
        case 1:
            depth = rng.choice((1000, 20_000, 200_000))
            inner = rng.choice(("object", "a", "objects"))
            text = f"<annotation>{f'<{inner}>' * depth}{f'</{inner}>' * depth}</annotation>"
        case _:
            text = text.replace("</annotation>", "<object><name>cat</name></object>" * 20_000)
            text += "</annotation>"
    return text.encode()


_YAML = (
    "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n",
    f'!!python/object/apply:os.system ["touch {CANARY}"]\n',
    f'steps: !!python/object/new:os.system ["touch {CANARY}"]\n',
    "steps: &a {b: *a}\n",
    "? [a, b]\n: c\n",
    "steps: {1: {kind: svm}, null: {kind: cam}}\n",
)


def yaml_file(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return (rng.choice(_YAML) + content.decode("utf-8", "replace")).encode()
    return text_file(content, rng)


@cache
def _bomb() -> bytes:
    return zlib.compress(bytes(2**26), 9)


def png_file(content: bytes, rng: random.Random) -> bytes:
    """Chunks with whole checksums, so that what they say is believed."""
    if rng.random() < 0.4 or not content.startswith(b"\x89PNG"):
        return any_bytes(content, rng)
    chunks, at = [], 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += length + 12
    index = rng.randrange(len(chunks))
    kind, body = chunks[index]
    match rng.randrange(7):
        case 0 | 1:
            size = struct.pack(
                ">II", *(rng.choice((0, 1, 24, 5000, 9000, 2**16, 2**31 - 1)) for _ in "wh")
            )
            chunks[0] = (b"IHDR", size + chunks[0][1][8:])
        case 2:
            depth, colour = rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 7))
            header = chunks[0][1]
            chunks[0] = (b"IHDR", header[:8] + bytes((depth, colour)) + header[10:])
        case 3:
            bomb = _bomb()
            name = rng.choice((b"zTXt", b"iCCP", b"IDAT", b"iTXt"))
            front = {b"IDAT": b"", b"iTXt": b"a\0\1\0\0\0"}.get(name, b"a\0\0")
            chunks.insert(rng.choice((1, len(chunks) - 1)), (name, front + bomb))
        case 4:
            chunks[index : index + 1] = [chunks[index]] * rng.choice((0, 2, 50))
        case 5:
            chunks[index] = (kind, any_bytes(body, rng))
        case _:
            chunks.insert(index, (rng.choice((b"eXIf", b"tRNS", b"PLTE", b"acTL")), body))
    written = [content[:8]]
    for name, data in chunks:
        check = struct.pack(">I", zlib.crc32(name + data))
        written.append(struct.pack(">I", len(data)) + name + data + check)
    return b"".join(written)


def safetensors_file(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.25 or len(content) < 8:
        return any_bytes(content, rng)
    end = 8 + int.from_bytes(content[:8], "little")
    body = content[end:]
    try:
        header = json.loads(content[8:end])
    except ValueError:
        return any_bytes(content, rng)
    match rng.randrange(6):
        case 0:
            length = rng.choice((0, 1, len(content), 2**27, 2**40, 2**64 - 1))
            return struct.pack("<Q", length) + content[8:]
        case 1:
            bad = np.array([rng.choice((np.nan, np.inf, -np.inf, 1e38, -1, 2))], np.float32)
            at = rng.randrange(max(1, len(body) // 4)) * 4
            body = body[:at] + bad.tobytes() * rng.choice((1, 100)) + body[at:]
            body = body[: len(content) - end]
        case 2:
            named = header.get("__metadata__") or {}
            key = rng.choice(sorted(named)) if named else "made_of"
            spoilt = json_file(named.get(key, "{}").encode(), rng).decode("utf-8", "replace")
            header["__metadata__"] = {**named, key: spoilt}
        case 3:
            names = [name for name in header if name != "__metadata__"]
            if names:
                tensor = header[rng.choice(names)]
                shape = tensor["shape"]
                tensor["shape"] = rng.choice(
                    (shape[::-1], [*shape, 1], shape[1:], [0], [2**40, 0], [-1], [])
                )
        case 4:
            for tensor in header.values():
                if "dtype" in tensor and rng.random() < 0.5:
                    tensor["dtype"] = rng.choice(("F64", "F16", "BF16", "I8", "BOOL", "F32", "X"))
        case _:
            header = spoil_value(header, rng)
    text = json.dumps(header).encode("utf-8", "replace")
    return struct.pack("<Q", len(text)) + text + body


class _Executed:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


PICKLE = pickle.dumps({"state_dict": _Executed()})


def zip_file(content: bytes, rng: random.Random) -> bytes:
    """Archives of arrays or tensors: their entries, bombs, and pickles that would run."""
    if rng.random() < 0.35 or not zipfile.is_zipfile(io.BytesIO(content)):
        return any_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    compression = zipfile.ZIP_STORED
    index = rng.randrange(len(entries))
    name, body = entries[index]
    match rng.randrange(7):
        case 0:
            is_pickle = [i for i, (entry, _) in enumerate(entries) if entry.endswith(".pkl")]
            at = is_pickle[0] if is_pickle else index
            entries[at] = (entries[at][0], PICKLE)
        case 1:
            compression = zipfile.ZIP_DEFLATED
            entries[index] = (name, body + bytes(2 ** rng.choice((20, 20, 20, 28))))
        case 2:
            other = rng.choice(HOSTILE_NAMES).encode("utf-8", "replace").decode()
            entries[index] = (other or "a", body)
        case 3:
            del entries[index]
        case 4:
            entries.append((f"{name}2", body))
        case 5 if name.endswith(".npy"):
            entries[index] = (name, _array(rng))
            compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        case _:
            entries[index] = (name, any_bytes(body, rng) if body else b"a")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for entry, data in entries:
            archive.writestr(entry, data)
    return packed.getvalue()


def _array(rng: random.Random) -> bytes:
    """An array's file whose header is hostile, or whose numbers are."""
    written = io.BytesIO()
    match rng.randrange(4):
        case 0:
            np.save(written, np.array([_Executed()], object), allow_pickle=True)
        case 1:
            np.save(written, np.full((2, 5, 5), rng.choice((np.nan, np.inf, -3, 7)), np.float32))
        case 2:
            np.save(written, np.zeros((2, 8000, 8000), np.float32))
        case _:
            text = rng.choice(
                (
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 100000, 100000), }",
                    "{'descr': '|O', 'fortran_order': False, 'shape': (2, 2, 2), }",
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2, 2), }",
                    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 2, 2), }",
                    "__import__('os').system('touch x')",
                    "(" * 5000,
                )
            ).encode()
            written.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(text) + 1) + text + b"\n")
            written.write(bytes(64))
    return written.getvalue()


def onnx_file(content: bytes, rng: random.Random) -> bytes:
    """A graph whose sizes, operators, numbers and metadata are others."""
    if rng.random() < 0.4:
        return any_bytes(content, rng)
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    extreme = rng.choice((0, -1, 1, 2**31, 2**40, 2**62, 65536))
    match rng.randrange(6):
        case 0:
            tensor = rng.choice(graph.initializer)
            if tensor.dims:
                tensor.dims[rng.randrange(len(tensor.dims))] = max(extreme, 0)
        case 1:
            node = rng.choice(graph.node)
            for attribute in node.attribute:
                if attribute.ints:
                    attribute.ints[rng.randrange(len(attribute.ints))] = extreme
                elif attribute.HasField("i"):
                    attribute.i = extreme
        case 2:
            entry = rng.choice(model.metadata_props)
            entry.value = json_file(entry.value.encode(), rng).decode("utf-8", "replace")
        case 3:
            node = rng.choice(graph.node)
            node.op_type = rng.choice(("Resize", "Expand", "ConstantOfShape", "Tile", "Evil", "If"))
        case 4:
            tensor = rng.choice(graph.initializer)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", rng.choice(("../../etc/passwd", "/etc/passwd"))),):
                tensor.external_data.add(key=key, value=value)
        case _:
            tensor = rng.choice(graph.initializer)
            number = np.array([rng.choice((np.nan, np.inf, 1e38, 2**40))], np.float32).tobytes()
            tensor.raw_data = number + tensor.raw_data[4:]
    written: bytes = model.SerializeToString()
    return written


MUTATORS: dict[str, Mutator] = {
    ".json": json_file,
    ".csv": text_file,
    ".txt": text_file,
    ".xml": xml_file,
    ".yaml": yaml_file,
    ".png": png_file,
    ".safetensors": safetensors_file,
    ".npz": zip_file,
    ".pth": zip_file,
    ".ckpt": zip_file,
    ".onnx": onnx_file,
}
"""By a file's suffix; all others are spoilt as bytes."""


def spoil_file(path: Path, rng: random.Random) -> None:
    """Spoil a file, or put something else in its place."""
    if rng.random() < 0.93:
        content = path.read_bytes()
        path.write_bytes(MUTATORS.get(path.suffix, any_bytes)(content, rng))
        return
    content = path.read_bytes()
    path.unlink()
    match rng.randrange(8):
        case 0:
            path.touch()
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(path.name)
        case 3:
            path.symlink_to("/dev/zero")
        case 4:
            path.symlink_to("/etc/passwd")
        case 5:
            os.mkfifo(path)
        case 6:
            name = rng.choice(HOSTILE_NAMES).encode("utf-8", "surrogatepass")[:200]
            name = name.replace(b"/", b"_").replace(b"\0", b"_")
            if name.strip(b"."):
                Path(os.fsdecode(bytes(path.parent) + b"/" + name + os.fsencode(path.suffix)))
                with open(bytes(path.parent) + b"/" + name + os.fsencode(path.suffix), "wb") as f:  # noqa: PTH123
                    f.write(content)
