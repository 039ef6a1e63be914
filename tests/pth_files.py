"""PyTorch's files of weights, put together opcode by opcode, so that no test needs PyTorch."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"int": 4}}
EMPTY_DICT = b"ccollections\nOrderedDict\n)R"
STORAGES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "uint8": "Byte",
    "bool": "Bool",
}


def value(plain: Any) -> bytes:
    """The opcodes that put a plain value on the stack: a pickle without its frame."""
    return pickle.dumps(plain, 2)[2:-1]


def called(function: str, *arguments: bytes) -> bytes:
    """The opcodes that call module.function."""
    module, _, name = function.rpartition(".")
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def storage(key: str, dtype: str, size: int, *more: bytes, module: str = "torch") -> bytes:
    """The opcodes of a storage."""
    kind = f"c{module}\n{STORAGES[dtype]}Storage\n".encode()
    return (
        b"("
        + value("storage")
        + kind
        + value(key)
        + value("cpu")
        + value(size)
        + b"".join(more)
        + b"tQ"
    )


def tensor(stored: bytes, shape: tuple, strides: tuple, offset: int = 0) -> bytes:
    """The opcodes of a tensor, as since PyTorch 0.4."""
    place = value(offset), value(shape), value(strides)
    return called("torch._utils._rebuild_tensor_v2", stored, *place, value(False), EMPTY_DICT)


def whole(array: np.ndarray, key: str, *more: bytes) -> bytes:
    """The opcodes of a tensor that is all of its storage."""
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return tensor(storage(key, array.dtype.name, array.size, *more), array.shape, strides)


def state_dict(entries: Mapping[str, bytes]) -> bytes:
    """The opcodes of an OrderedDict."""
    items = b"".join(value(name) + code for name, code in entries.items())
    return EMPTY_DICT + b"(" + items + b"u"


def write_zip(path: Path, code: bytes, contents: Mapping[str, bytes], **extra: bytes) -> Path:
    """The format since PyTorch 1.6."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + code + b".")
        for key, content in contents.items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in extra.items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_legacy(
    path: Path, code: bytes, contents: Mapping[str, tuple[int, bytes]], system: Any = SYSTEM
) -> Path:
    """The format before: pickles, then each storage after its size in numbers."""
    parts = [pickle.dumps(plain, 2) for plain in (MAGIC, PROTOCOL, system)]
    parts += [b"\x80\x02" + code + b".", pickle.dumps(list(contents), 2)]
    for size, content in contents.values():
        parts += [size.to_bytes(8, "little"), content]
    path.write_bytes(b"".join(parts))
    return path


def save(path: Path, arrays: Mapping[str, np.ndarray], *, legacy: bool) -> Path:
    """A state dict as torch.save writes it."""
    keys = {name: str(number) for number, name in enumerate(arrays)}
    more = (value(None),) if legacy else ()
    code = state_dict({name: whole(array, keys[name], *more) for name, array in arrays.items()})
    if not legacy:
        contents = {keys[name]: array.tobytes() for name, array in arrays.items()}
        return write_zip(path, code, contents, byteorder=b"little")
    sized = {keys[name]: (array.size, array.tobytes()) for name, array in arrays.items()}
    return write_legacy(path, code, sized)
