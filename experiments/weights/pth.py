"""PyTorch's files of weights, read without PyTorch and without executing what is in them.

A .pth file is a pickle, which may name any function of any module to be called; here it may name
only what a state dict needs, and those names stand for functions of this file. What PyPI has
either needs torch or, as tinygrad's torch_load says of its list, filters "not for security".

Formats: torch/serialization.py, _save and _legacy_save (PyTorch 2.13).
"""

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.data.types import DataDamagedError

# torch.FloatStorage and its like, on the CPU or (torch.cuda) not.
_DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool",
}  # fmt: skip
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


class _Storage(NamedTuple):
    """A stretch of numbers that tensors are cut from."""

    key: str
    dtype: str
    size: int  # in numbers

    @property
    def nbytes(self) -> int:
        return self.size * jnp.dtype(self.dtype).itemsize


class _Tensor(NamedTuple):
    """Where in a storage a tensor is."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # like the offset in numbers, not bytes


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict in a .pth file, of PyTorch's format since 1.6 or of the older one.

    The state dict may be the whole file, or its entry "state_dict".

    Raises:
      DataDamagedError: the file is not whole, or not a state dict; or its pickle names something
        else than state dicts need, in which case nothing of it was executed.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
            file.seek(0)
            return _read_zip(file) if is_zip else _read_legacy(file)
    # A damaged pickle can make its reader raise anything.
    except Exception as error:
        raise DataDamagedError(
            f"{path} cannot be read as a PyTorch state dict: {str(error) or type(error).__name__}. "
            "Fetch it again; or, if you trust who made it, load it with PyTorch and save its "
            "state_dict()"
        ) from error


def _read_zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    """A zip of the pickle and one file for each storage."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"wanted one data.pkl in the zip, got {len(pickles)}")
        folder = pickles[0].removesuffix("data.pkl")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
        _check_order(order == b"little")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])))
        state = unpickler.load()

        def content(storage: _Storage) -> bytes:
            name = f"{folder}data/{storage.key}"
            if archive.getinfo(name).file_size != storage.nbytes:
                raise ValueError(f"{name} is not {storage.nbytes} bytes long")
            return archive.read(name)

        return _arrays(state, {key: content(s) for key, s in unpickler.storages.items()})


def _read_legacy(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Pickles one after the other, then the storages, each after its size."""
    magic, protocol, system = (_Unpickler(file).load() for _ in range(3))
    if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
        raise ValueError("it begins like no format of PyTorch's")
    _check_order(system["little_endian"])
    unpickler = _Unpickler(file)
    state = unpickler.load()
    contents = {}
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        size = int.from_bytes(file.read(8), "little")
        if size != storage.size:
            raise ValueError(f"storage {key} has {size} numbers, wanted {storage.size}")
        contents[key] = file.read(min(storage.nbytes, _left(file)))
    return _arrays(state, contents)


def _left(file: IO[bytes]) -> int:
    """How many bytes are still to be read."""
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(here)
    return end - here


def _check_order(is_little: bool) -> None:
    """Refuse numbers of a big-endian machine."""
    if not is_little:
        raise ValueError("its numbers are big-endian")


class _Unpickler(pickle.Unpickler):
    """Reads a pickle that names nothing but what state dicts need."""

    def __init__(self, file: IO[bytes]) -> None:
        # PyTorch under Python 2 wrote strings as bytes.
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}
        self._known = _known()

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in self._known:
            raise pickle.UnpicklingError(
                f"it asks for {name}, which weights have no need of (nothing of it was executed)"
            )
        return self._known[name]

    def persistent_load(self, pid: Any, /) -> _Storage:
        """A storage; older files may add that it is a part of another, which none of these is."""
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or any(view):
            raise pickle.UnpicklingError(f"it holds {kind!r}, which is no plain storage")
        storage = _Storage(str(key), str(dtype), int(size))
        return self.storages.setdefault(storage.key, storage)


def _known() -> dict[str, Callable[..., Any] | str]:
    """What a pickle may name, and what that is here.

    Made anew for each: a pickle can set attributes of what it names.
    """

    class Parameter:
        """Before PyTorch 0.4, state dicts held these around their tensors."""

        def __init__(self, data: Any = None) -> None:
            self.data = data

        def __setstate__(self, state: Any) -> None:
            # Of five: data, two flags and more; of three: flags alone.
            self.data = state[0] if len(state) == 5 else self.data

    def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        return _Tensor(storage, offset, shape, strides)

    def parameter(data: Any, *_: Any) -> Any:
        return data

    known = {
        "collections.OrderedDict": collections.OrderedDict,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": parameter,
        "torch.nn.parameter.Parameter": Parameter,
    }
    kinds = {
        f"{module}.{name}Storage": dtype
        for module in ("torch", "torch.cuda")
        for name, dtype in _DTYPES.items()
    }
    return {**known, **kinds}


def _arrays(state: Any, contents: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """The tensors of a state dict, cut from their storages."""
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise ValueError(f"wanted a state dict, got {type(state).__name__}")
    arrays = {}
    for name, value in state.items():
        value = getattr(value, "data", value)
        if not isinstance(value, _Tensor):
            raise ValueError(f"its entry {name!r} is no tensor but {type(value).__name__}")
        arrays[str(name)] = _array(str(name), value, contents[value.storage.key])
    return arrays


def _array(name: str, tensor: _Tensor, content: bytes) -> np.ndarray:
    """One tensor; its shape, strides and offset are the file's, so each is looked at first."""
    storage, offset, shape, strides = tensor
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    inside = min((offset, *shape, *strides), default=0) >= 0 and last < storage.size
    if len(content) != storage.nbytes or not inside or math.prod(shape) > storage.size:
        raise ValueError(f"its entry {name!r} {shape} reaches beyond the numbers stored")
    flat = np.frombuffer(content, jnp.dtype(storage.dtype))[offset:]
    in_bytes = [stride * flat.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(flat, shape, in_bytes, writeable=False).copy()
