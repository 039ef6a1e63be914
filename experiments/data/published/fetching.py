"""A published data set's files: whether they are what was published, and how to get them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from experiments.data import folders
from experiments.data.types import DataDamagedError


class File(NamedTuple):
    """A file as its publisher offers it.

    Attributes:
      name: what it is called on this machine.
      url: where it is published.
      holds: what is in it, for people.
      size: in bytes; None where nobody recorded it.
      digest: "sha256:…" or "md5:…", in hexadecimal; empty where nobody recorded it.
    """

    name: str
    url: str
    holds: str
    size: int | None = None
    digest: str = ""


def stock_file(url_infos: Any, url: str, name: str, holds: str) -> File:
    """A file with the size and digest that a stock TFDS builder records for its URL."""
    info = url_infos[url]
    return File(name, url, holds, int(info.size), f"sha256:{info.checksum}")


def fingerprint(file: File) -> str:
    """Size and digest of a file, as far as they are on record.

    >>> fingerprint(File("a.tgz", "http://a", "pictures", 12, "md5:0f"))
    '12 bytes, md5 0f'
    """
    size = [] if file.size is None else [f"{file.size} bytes"]
    digest = [file.digest.replace(":", " ")] if file.digest else []
    return ", ".join(size + digest) or (
        "no size or digest is on record: the pictures and classes in it are counted instead"
    )


def check(path: Path, file: File) -> None:
    """Raise DataDamagedError where `path` has another size or digest than `file` was published."""
    found_size = path.stat().st_size
    algorithm = file.digest.partition(":")[0]
    # A digest of gigabytes takes seconds; a download that broke off differs in size.
    wrong_size = file.size is not None and found_size != file.size
    if algorithm and not wrong_size:
        with path.open("rb") as content:
            digest = f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"
    else:
        digest = ""
    if wrong_size or digest != file.digest:
        found = fingerprint(file._replace(size=found_size, digest=digest))
        raise DataDamagedError(
            f"{path} is not the published {file.name}: it has {found}, wanted "
            f"{fingerprint(file)}. Fetch it again from {file.url}"
        )


def missing(source: Path, files: Iterable[File]) -> list[File]:
    """Those of `files` not in `source`. Raises DataDamagedError where one there is wrong."""
    absent = []
    for file in files:
        path = source / file.name
        if path.is_file():
            check(path, file)
        else:
            absent.append(file)
    return absent


def instructions(title: str, source: Path, prepared: Path, files: list[File], reason: str) -> str:
    """The text for a user who has to fetch `files` herself, file by file."""
    lines = "\n".join(
        f"  {file.name}: {file.holds}\n    from {file.url}\n    {fingerprint(file)}"
        for file in files
    )
    return (
        f"{title} is neither prepared (looked for in {prepared}), nor are all its files in "
        f"{source}, nor can they be downloaded ({reason}).\nFetch\n{lines}\ninto the folder\n"
        f"  {source}\nunder these names and without unpacking, and run the same command again. A "
        "copy from elsewhere will do if size and digest are the same. It may be another folder, "
        f"if --data-dir or the environment variable {folders.DATA_DIR_VARIABLE} names the one "
        f"that {source.name} is in."
    )
