"""Data sets published as MNIST's four idx files, through TFDS without TensorFlow."""

import contextlib
import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.image_classification import mnist as stock

from experiments.data import folders, kept, reach
from experiments.data.images import normalise
from experiments.data.types import DataDamagedError, DataNotFoundError, Examples, Splits

# Per split, the images' file and the labels' file.
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
NAMES = [name for pair in FILES.values() for name in pair]


class IdxBuilder(stock.MNIST, skip_registration=True):
    """A stock builder, made to prepare without TensorFlow: the same data set in all respects.

    Attributes:
      title: the data set's name for people.
      namesake: the data set whose files have the same names.
      data_dir_names: what the data folder is to the folder of the files, for a text.
      url_infos: sizes and digests by URL; TFDS would look for them beside the builder's module.
    """

    title: ClassVar[str]
    namesake: ClassVar[str]
    data_dir_names: ClassVar[str]
    url_infos: Any

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        """Per split, its examples; downloaded, or taken from the manual directory."""
        # No extraction by TFDS: the extracted files of MNIST and Fashion-MNIST share names.
        paths = dl_manager.download({name: self.URL + name for name in NAMES})
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


def load(builder_class: type[IdxBuilder], source: Path, *, mean: float, std: float) -> Splits:
    """The data set that the four files in `source` hold, pixels normalised to (x/255 − mean)/std.

    What is missing in `source` is downloaded. The prepared data set goes to
    mas_jax/tensorflow_datasets in the cache folder; where it is there, `source` is not read.

    Raises:
      DataNotFoundError: nowhere to be had. Without a network it comes within ten seconds.
      DataDamagedError: one of the four files is not the published one, or the prepared data set
        is broken.
    """
    root = folders.cache_folder() / "tensorflow_datasets"
    arrays = kept.read_or_make(
        root / f"{builder_class.name}-{builder_class.VERSION}.npz",
        lambda: _decode(_prepared(builder_class, root, source)),
    )
    train, test = (
        Examples(
            normalise(arrays[f"{split}_images"], mean, std),
            arrays[f"{split}_labels"].astype(np.int32),
        )
        for split in FILES
    )
    return Splits(train, test)


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


def _prepared(builder_class: type[IdxBuilder], root: Path, source: Path) -> IdxBuilder:
    """The builder with its data prepared below `root`, now or earlier."""
    builder = builder_class(data_dir=root)
    if not builder.data_path.exists():
        missing = _check_files(builder, source)
        reason = reach.why_unreachable(missing[0]) if missing else None
        if reason is None:
            reason = _prepare(builder, root, source)
        if reason is not None:
            raise DataNotFoundError(_what_to_fetch(builder, missing, source, reason))
    return builder_class(data_dir=root)


def _check_files(builder: IdxBuilder, source: Path) -> list[str]:
    """The URLs of the files not in `source`. Raises DataDamagedError where one is wrong."""
    missing = []
    for name in NAMES:
        path, url = source / name, builder.URL + name
        wanted = builder.url_infos[url]
        if not path.is_file():
            missing.append(url)
        elif (found := checksums.compute_url_info(path)) != wanted:
            raise DataDamagedError(
                f"{path} is not the published file: it has {_fingerprint(found)}, wanted "
                f"{_fingerprint(wanted)}. Fetch it again from {url}, or remove it; and mind that "
                f"{builder.namesake}'s files have the same names"
            )
    return missing


def _fingerprint(info: checksums.UrlInfo) -> str:
    """Size and digest of a file."""
    return f"{int(info.size)} bytes and sha256 {info.checksum}"


def _prepare(builder: IdxBuilder, root: Path, source: Path) -> str | None:
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
        return reach.innermost(error)
    except OSError as error:
        # Where another process was faster, only the last step fails: the folder is there already.
        if not builder.data_path.exists():
            raise DataNotFoundError(
                f"{builder.title} cannot be prepared in {root}: {error}. It takes a folder that "
                "can be written to, with 150 MB to spare; XDG_CACHE_HOME names another one"
            ) from None
    return None


def _what_to_fetch(builder: IdxBuilder, missing: list[str], source: Path, reason: str) -> str:
    """The text for a user who has to fetch the files herself."""
    files = "\n".join(f"  {url}\n    {_fingerprint(builder.url_infos[url])}" for url in missing)
    return (
        f"{builder.title} is neither prepared (looked for in {builder.data_dir}), nor are its four "
        f"files in {source}, nor can they be downloaded ({reason}).\nFetch\n{files}\n"
        f"into the folder\n  {source}\nwithout unpacking, and run the same command again. It may "
        f"be another folder, if --data-dir or the environment variable {folders.DATA_DIR_VARIABLE} "
        f"names {builder.data_dir_names}."
    )


def _decode(builder: IdxBuilder) -> dict[str, np.ndarray]:
    """All images and labels as uint8, keyed train_images, train_labels, …."""
    arrays = {}
    for split in FILES:
        records = _records(builder, split)
        images = [np.asarray(Image.open(io.BytesIO(record["image"]))) for record in records]
        arrays[f"{split}_images"] = np.stack(images)
        arrays[f"{split}_labels"] = np.array([record["label"] for record in records], np.uint8)
    return arrays


def _records(builder: IdxBuilder, split: str) -> Any:
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
