"""The marks of tests that need data sets' original files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.data import folders

# As it was before a test's fixture removed the variable.
data_dir = os.environ.get(folders.DATA_DIR_VARIABLE, "")


def needs(*names: str) -> Callable:
    """Mark a test real_data, and skip it where a subfolder of these names is missing."""
    missing = [name for name in names if not data_dir or not (Path(data_dir) / name).is_dir()]
    where = f"as subfolders of the folder named by {folders.DATA_DIR_VARIABLE}"
    reason = f"needs {', '.join(missing)} {where}"
    skip = pytest.mark.skipif(bool(missing), reason=reason)
    return lambda test: pytest.mark.real_data(skip(test))


def cache(factory: pytest.TempPathFactory) -> str:
    """A cache folder that a run's tests of real data share: preparing MNIST takes seconds."""
    return str(factory.getbasetemp() / "real_data")
