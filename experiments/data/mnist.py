"""MNIST through TensorFlow Datasets (TFDS) without TensorFlow: 70,000 digits of 28×28 pixels."""

import contextlib
import gzip
import io
import os
import queue
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.image_classification import mnist as stock

from experiments.data.types import DataDamagedError, DataNotFoundError, Examples, Splits

DATA_DIR_VARIABLE = "MAS_JAX_DATA_DIR"

# Per split, the images' file and the labels' file.
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_NAMES = [name for pair in FILES.values() for name in pair]

# Mean and standard deviation of the training pixels as fractions of 255, to four digits as the
# field (and the MAS authors' demo) uses them.
MEAN, STD = 0.1307, 0.3081

PROBE_SECONDS = 10.0


class Mnist(stock.MNIST, skip_registration=True):
    """The stock builder, made to prepare without TensorFlow: the same data set in all respects."""

    name = "mnist"
    # Sizes and digests by URL; TFDS would look for them beside this module.
    url_infos: Any = stock.MNIST.url_infos

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        """Per split, its examples; downloaded, or taken from the manual directory."""
        # No extraction by TFDS: the extracted files of MNIST and Fashion-MNIST share names.
        paths = dl_manager.download({name: self.URL + name for name in _NAMES})
        return {
            split: self._read_examples(paths[images], paths[labels])
            for split, (images, labels) in FILES.items()
        }

    def _read_examples(self, images_path: Any, labels_path: Any) -> Iterator[tuple[int, Any]]:
        """Yield (number, features); PIL images, because TFDS needs TensorFlow for arrays."""
        images, labels = read_idx(images_path), read_idx(labels_path)
        if len(images) != len(labels):
            raise DataDamagedError(
                f"{images_path} has {len(images)} images, but {labels_path} {len(labels)} labels"
            )
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield number, {"image": Image.fromarray(image), "label": int(label)}


def load(
    data_dir: str | os.PathLike[str] | None = None, *, builder_class: type[Mnist] = Mnist
) -> Splits:
    """Load MNIST, pixels normalised to (x/255 − 0.1307)/0.3081.

    The four original files are looked for in `data_dir`, else in the folder that the environment
    variable MAS_JAX_DATA_DIR names, else in mas_jax/data in the cache folder ($XDG_CACHE_HOME,
    or ~/.cache); there, or in a subfolder mnist. What is missing is downloaded. The prepared
    data set goes to mas_jax/tensorflow_datasets in the cache folder, nothing is written to
    `data_dir`; once it is there, neither the files nor a network are needed.

    Args:
      data_dir: a folder to read from; may be read-only.
      builder_class: the data set's builder; a miniature's, in a test.

    Returns:
      60,000 training and 10,000 test examples in TFDS's order, which is always the same; inputs
      (N, 784) float32, labels (N,) int32, 0 to 9.

    Raises:
      DataNotFoundError: nowhere to be had; the text says what to fetch, from where, and into
        which folder. Without a network it comes within PROBE_SECONDS.
      DataDamagedError: one of the four files is not the published one, or the prepared data set
        is broken; names it.
    """
    source = _source_folder(data_dir)
    root = _cache_folder() / "tensorflow_datasets"
    cached = root / f"{builder_class.name}-{builder_class.VERSION}.npz"
    arrays = _read_cached(cached)
    if arrays is None:
        arrays = _decode(_prepared(builder_class, root, source))
        _write_cached(cached, arrays)
    return Splits(_examples(arrays, "train"), _examples(arrays, "test"))


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The uint8 array in a gzipped idx file: big-endian header 0, 0, 8, ndim, shape; then data."""
    with gzip.open(path) as file:
        content = file.read()
    ndim = content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 0
    header = 4 + 4 * ndim
    shape = np.frombuffer(content[4:header], ">u4").tolist() if len(content) >= header else []
    if not shape or len(content) != header + np.prod(shape):
        raise DataDamagedError(f"{path} does not hold an idx file of bytes")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _cache_folder() -> Path:
    """Where this project keeps what can be had again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mas_jax"


def _source_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder to take the original files from, whether or not they are in it."""
    named = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if named and not Path(named).expanduser().is_dir():
        origin = "data_dir" if data_dir else DATA_DIR_VARIABLE
        raise DataNotFoundError(f"{origin} is {os.fspath(named)!r}, which is not a folder")
    folder = Path(named).expanduser() if named else _cache_folder() / "data"
    return folder if any((folder / name).is_file() for name in _NAMES) else folder / "mnist"


def _prepared(builder_class: type[Mnist], root: Path, source: Path) -> Mnist:
    """The builder with its data prepared below `root`, now or earlier."""
    builder = builder_class(data_dir=root)
    if not builder.data_path.exists():
        missing = _check_files(builder, source)
        reason = _why_unreachable(missing[0]) if missing else None
        if reason is None:
            reason = _prepare(builder, root, source)
        if reason is not None:
            raise DataNotFoundError(_what_to_fetch(builder, missing, source, reason))
    return builder_class(data_dir=root)


def _check_files(builder: Mnist, source: Path) -> list[str]:
    """The URLs of the files not in `source`. Raises DataDamagedError where one is wrong."""
    missing = []
    for name in _NAMES:
        path, url = source / name, builder.URL + name
        wanted = builder.url_infos[url]
        if not path.is_file():
            missing.append(url)
        elif (found := checksums.compute_url_info(path)) != wanted:
            raise DataDamagedError(
                f"{path} is not the published file: it has {_fingerprint(found)}, wanted "
                f"{_fingerprint(wanted)}. Fetch it again from {url}, or remove it; and mind that "
                "Fashion-MNIST's files have the same names"
            )
    return missing


def _fingerprint(info: checksums.UrlInfo) -> str:
    """Size and digest of a file."""
    return f"{int(info.size)} bytes and sha256 {info.checksum}"


def _why_unreachable(url: str) -> str | None:
    """What keeps `url` from being fetched, within PROBE_SECONDS; None if nothing does.

    TFDS tries each download eleven times, which takes minutes where there is no network.
    """
    answer: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            requests.head(url, timeout=PROBE_SECONDS, allow_redirects=True).raise_for_status()
            answer.put(None)
        except requests.RequestException as error:
            answer.put(_innermost(error))

    # A thread, because the timeout of requests does not cover the look-up of the host's name.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.get(timeout=PROBE_SECONDS)
    except queue.Empty:
        return f"no answer from {url} within {PROBE_SECONDS:g} seconds"


def _innermost(error: Exception) -> str:
    """What went wrong, in a line, without the layers of requests and urllib3 around it."""
    cause = error.args[0] if error.args else error
    return str(getattr(cause, "reason", None) or cause).split("\n")[0].rstrip(":")


def _prepare(builder: Mnist, root: Path, source: Path) -> str | None:
    """Prepare the data set; the reason if it cannot be downloaded."""
    config = tfds.download.DownloadConfig(manual_dir=source, try_download_gcs=False)
    tfds.disable_progress_bar()
    try:
        # TFDS prints where it writes.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                # A directory of its own: TFDS may take another data set's files for these.
                download_dir=root / "downloads" / builder.name,
                download_config=config,
                file_format="array_record",
            )
    except (
        requests.RequestException,
        tfds.download.DownloadError,
        NonMatchingChecksumError,
    ) as error:
        return _innermost(error)
    except OSError as error:
        # Where another process was faster, only the last step fails: the folder is there already.
        if not builder.data_path.exists():
            raise DataNotFoundError(
                f"MNIST cannot be prepared in {root}: {error}. It takes a folder that can be "
                "written to, with 150 MB to spare; XDG_CACHE_HOME names another one"
            ) from None
    return None


def _what_to_fetch(builder: Mnist, missing: list[str], source: Path, reason: str) -> str:
    """The text for a user who has to fetch the files herself."""
    files = "\n".join(f"  {url}\n    {_fingerprint(builder.url_infos[url])}" for url in missing)
    return (
        f"MNIST is neither prepared (looked for in {builder.data_dir}), nor are its four files in "
        f"{source}, nor can they be downloaded ({reason}).\nFetch\n{files}\ninto the folder\n"
        f"  {source}\nwithout unpacking, and run the same command again. It may be another folder, "
        f"if --data-dir or the environment variable {DATA_DIR_VARIABLE} names it."
    )


def _decode(builder: Mnist) -> dict[str, np.ndarray]:
    """All images and labels as uint8, keyed train_images, train_labels, …."""
    arrays = {}
    for split in FILES:
        records = _records(builder, split)
        images = [np.asarray(Image.open(io.BytesIO(record["image"]))) for record in records]
        arrays[f"{split}_images"] = np.stack(images)
        arrays[f"{split}_labels"] = np.array([record["label"] for record in records], np.uint8)
    return arrays


def _records(builder: Mnist, split: str) -> Any:
    """One split as dicts of label and PNG bytes."""
    # Left to us to decode, because TFDS's decoder warns that OpenCV is not installed.
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        source: Any = builder.as_data_source(split, decoders=decoders)  # pyright: ignore[reportCallIssue]
        return source.__getitems__(range(len(source)))
    except (OSError, RuntimeError, ValueError) as error:
        raise DataDamagedError(
            f"the prepared data set in {builder.data_dir} cannot be read ({error}); remove that "
            "folder and run the same command again"
        ) from error


def _read_cached(path: Path) -> dict[str, np.ndarray] | None:
    """The decoded arrays, or None where they are not there or damaged (zip keeps a CRC)."""
    try:
        with np.load(path) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _write_cached(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Keep the decoded arrays where possible: decoding takes seconds, reading them 0.1 s."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    # A cache that cannot be written to (shared, or full) costs time, not the data.
    with contextlib.suppress(OSError):
        try:
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _examples(arrays: dict[str, np.ndarray], split: str) -> Examples:
    """One split, normalised and flattened."""
    # A table of the 256 values is faster than arithmetic, and rounds once.
    normalised = ((np.arange(256) / 255 - MEAN) / STD).astype(np.float32)
    images = arrays[f"{split}_images"]
    inputs = normalised[images.reshape(len(images), -1)]
    return Examples(inputs, arrays[f"{split}_labels"].astype(np.int32))
