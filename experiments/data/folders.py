"""The folder that data sets are read from, and the one for what was made of them."""

import os
from pathlib import Path

from experiments.data.types import DataNotFoundError

DATA_DIR_VARIABLE = "MAS_JAX_DATA_DIR"


def data_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    """`data_dir`, else what MAS_JAX_DATA_DIR names, else data in the cache folder."""
    named = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if named and not Path(named).expanduser().is_dir():
        origin = "data_dir" if data_dir else DATA_DIR_VARIABLE
        raise DataNotFoundError(f"{origin} is {os.fspath(named)!r}, which is not a folder")
    return Path(named).expanduser() if named else cache_folder() / "data"


def cache_folder() -> Path:
    """Where this project keeps what can be had again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mas_jax"
