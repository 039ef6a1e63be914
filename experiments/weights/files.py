"""Files of weights as arrays by name: NumPy's npz, safetensors, PyTorch's pth."""

import os
import zipfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from experiments.data.types import DataDamagedError, DataNotFoundError
from experiments.weights import pth


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays in a file of weights; nothing in it is executed.

    Args:
      path: ends in .npz, .safetensors, or (PyTorch) .pth, .pt or .bin.

    Returns:
      Arrays as they are in the file, under their names there.

    Raises:
      DataNotFoundError: there is no such file.
      DataDamagedError: it cannot be read; names it.
      ValueError: its name ends in none of these.
    """
    path = Path(path)
    readers = {
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
        ".pth": pth.read,
        ".pt": pth.read,
        ".bin": pth.read,
    }
    if path.suffix not in readers:
        raise ValueError(f"{path} should end in one of {', '.join(readers)}")
    if not path.is_file():
        raise DataNotFoundError(f"there is no file of weights {path}")
    return readers[path.suffix](path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz, without pickled ones."""
    try:
        # Opened here, because np.load leaves open what it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file."""
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataDamagedError:
    """What is said of a file that cannot be read."""
    return DataDamagedError(f"{path} cannot be read ({error}); fetch it again")
