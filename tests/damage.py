"""Ways to damage a file: of any kind, of text, JSON, zip and safetensors. All choices come from the generator."""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

SIZES = (1, 2, 4, 8)  # bytes of a whole number
NUMBERS = (0, 1, 2, 7, 255, 2**15 - 1, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (
    *("", "0", "-1", "0.5", "1e308", "-1e999", "nan", "inf", "99999999999999999999999", "1_000", "٣", "true", "null"),
    *(
        "[]",
        "{}",
        "[[[[",
        '"',
        "'",
        ",",
        ":",
        ": :",
        "\n",
        "\r",
        "\0",
        "\t",
        "#",
        "&a",
        "*a",
        "!!python/name:os.system",
    ),
    *("a" * 5000, "é", "\ufeff", "..", "../../x", "/dev/zero", "%s%n", "${HOME}", "-rf", "<b>", "\ud7ff", "🗣"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 0.5, 1e308, 10**30, 2**31, 2**63, 10**6, float("nan"), float("inf")),
    *("", "x", "nan", [], [[]], {}, [0], {"a": 1}, [None, None, None]),
)
Damage = Callable[[np.random.Generator, bytes, bytes], bytes]  # (choices, content, another file of the kind) -> content


def damaged(random: np.random.Generator, content: bytes, other: bytes, kind: str) -> bytes:
    """Damage a file in one to three ways. `kind`: bytes, text, json, zip or safetensors."""
    for _ in range(random.integers(1, 4)):
        own = OF_KIND[kind]
        ways = own if own and random.random() < 0.7 else OF_ANY
        content = ways[random.integers(len(ways))](random, content, other)
    return content


# ---- of any kind


def _place(random: np.random.Generator, length: int) -> int:
    """Somewhere, as often as not near the start or the end, where headers and tables are."""
    if random.random() < 0.5:
        return int(random.integers(length + 1))
    near = int(random.integers(min(length, 600) + 1))
    return near if random.random() < 0.6 else length - near


def _flip(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.integers(1, 9)):
        if changed:
            changed[_place(random, len(changed) - 1)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _lie(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """Another number where one may be: a size, a count, an offset."""
    size = SIZES[random.integers(len(SIZES))]
    at = _place(random, max(0, len(content) - size))
    order = "little" if random.random() < 0.5 else "big"
    old = int.from_bytes(content[at : at + size], order)
    new = old + int(random.integers(-4, 5)) if random.random() < 0.3 else NUMBERS[random.integers(len(NUMBERS))]
    return content[:at] + (new % 2 ** (8 * size)).to_bytes(size, order) + content[at + size :]


def _cut(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return content[: _place(random, len(content))]


def _without(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    start, end = sorted(_place(random, len(content)) for _ in range(2))
    return content[:start] + content[end:]


def _twice(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    start, end = sorted(_place(random, len(content)) for _ in range(2))
    return content[:end] + content[start:]


def _more(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    at, length = _place(random, len(content)), int(random.integers(1, 2000))
    new = bytes(length) if random.random() < 0.5 else random.bytes(length)
    return content[:at] + new + content[at:]


def _joined(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return content[: _place(random, len(content))] + other[_place(random, len(other)) :]


# ---- of text


def _word(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    words = list(re.finditer(rb"[\w.+-]+|[^\w\s]", content))
    if not words:
        return content
    word = words[random.integers(len(words))]
    new = WORDS[random.integers(len(WORDS))] if random.random() < 0.8 else "9" * int(random.integers(1, 400))
    return content[: word.start()] + new.encode() + content[word.end() :]


def _lines(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    lines = content.split(b"\n")
    one, two = random.integers(len(lines), size=2)
    how = int(random.integers(4))
    if how == 3:
        lines[one] = lines[one] * 3
    else:
        _rearrange(lines, one, two, how)
    return b"\n".join(lines)


def _rearrange(parts: list[bytes], one: int, two: int, how: int) -> None:
    match how:
        case 0:
            parts[one], parts[two] = parts[two], parts[one]
        case 1:
            parts.insert(one, parts[two])
        case _:
            del parts[one]


def _cells(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    lines = content.split(b"\n")
    row = int(random.integers(len(lines)))
    cells = lines[row].split(b",")
    one, two = random.integers(len(cells), size=2)
    _rearrange(cells, one, two, how=int(random.integers(3)))
    lines[row] = b",".join(cells)
    return b"\n".join(lines)


def _encoded(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    text = content.decode("utf-8", errors="replace")
    return text.encode(("utf-16", "utf-8-sig", "utf-32", "latin-1")[random.integers(4)], errors="replace")


# ---- of JSON: one value is another, or its key


def _value(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    try:
        data = json.loads(content.split(b"\n")[0] if b"\n{" in content else content)
    except ValueError:
        return content
    nodes = [(None, None, data)]
    for _, _, node in nodes:  # grows on the way
        if isinstance(node, dict):
            nodes += [(node, key, value) for key, value in node.items()]
        elif isinstance(node, list):
            nodes += [(node, place, value) for place, value in enumerate(node)]
    above, key, _ = nodes[random.integers(len(nodes))]
    new = VALUES[random.integers(len(VALUES))]
    if above is None:
        data = new
    elif isinstance(above, dict) and random.random() < 0.2:
        above["other"] = above.pop(key)
    elif random.random() < 0.2:
        del above[key]
    else:
        above[key] = new
    return json.dumps(data).encode()


# ---- of containers whose checks must fit, so that the damage is met behind them


def _member(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """A zip in which one file is damaged, missing, there twice, or called otherwise; its check sums fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            kind = archive.infolist()[0].compress_type
            members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:  # damaged already
        return content
    chosen = int(random.integers(len(members)))
    name, inner = members[chosen]
    match random.integers(6):
        case 0:
            del members[chosen]
        case 1:
            members.append((name, members[random.integers(len(members))][1]))
        case 2:
            members[chosen] = (name + WORDS[random.integers(len(WORDS))][:50], inner)
        case 3:
            members[chosen] = (name, _shape(random, inner))
        case _:
            way = (*OF_ANY, _word)[random.integers(len(OF_ANY) + 1)]
            members[chosen] = (name, way(random, inner, members[random.integers(len(members))][1]))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", kind) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a name that is there twice
        for name, inner in members:
            archive.writestr(zipfile.ZipInfo(name), inner, kind)
    return packed.getvalue()


def _shape(random: np.random.Generator, content: bytes, other: bytes = b"") -> bytes:
    """The header of a numpy array with another shape or type; its length stays right."""
    shapes = (b"()", b"(0,)", b"(1,)", b"(99999999999,)", b"(3, 0, 2)", b"(-1,)", b"(1000000, 1000000)", b"(2, 2, 2)")
    kinds = (b"|O", b"<f8", b"<f2", b">i8", b"<U9", b"<c8", b"|b1", b"<M8[s]", b"|V8", b"|S1000000000")
    new = content
    if random.random() < 0.6:
        new = re.sub(rb"\([\d, ]*\)", shapes[random.integers(len(shapes))], content, count=1)
    else:
        new = re.sub(rb"'[<>|]\w\d'", b"'" + kinds[random.integers(len(kinds))] + b"'", content, count=1)
    header_end = new.find(b"\n") + 1
    return new[:8] + (header_end - 10).to_bytes(2, "little") + new[10:] if header_end > 10 else new


def _header(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """A safetensors file with another value in its header, or in the configuration inside it."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        if random.random() < 0.7:
            config = _value(random, header["__metadata__"]["config"].encode(), other)
            header["__metadata__"]["config"] = config.decode()
            new = json.dumps(header).encode()
        else:
            new = _value(random, content[8 : 8 + length], other)
    except (ValueError, KeyError, TypeError, AttributeError):  # damaged already
        return content
    return len(new).to_bytes(8, "little") + new + content[8 + length :]


OF_ANY: tuple[Damage, ...] = (_flip, _flip, _lie, _lie, _lie, _cut, _without, _twice, _more, _joined)
TEXT: tuple[Damage, ...] = (_word, _word, _lines, _cells, _encoded)
OF_KIND: dict[str, tuple[Damage, ...]] = {
    "bytes": (),
    "text": TEXT,
    "json": (_value, _value, _word),
    "zip": (_member,),
    "array": (_shape,),
    "safetensors": (_header,),
}
