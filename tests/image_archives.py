"""Archives of small images, for tests of the data sets that come in them."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def encode(image: np.ndarray, file_format: str = "PNG") -> bytes:
    """An image file's content; a bool array becomes an image of bits."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, file_format)
    return content.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """A zip of these files, stored as they are, so that a byte of one is a byte of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tgz(path: Path, files: dict[str, bytes]) -> Path:
    """A gzipped tar of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
