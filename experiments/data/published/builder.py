"""What all of the paper's data sets share: a TFDS builder that prepares without TensorFlow."""

import abc
import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import requests
import tensorflow_datasets as tfds

from experiments.data import folders, kept, pictures, reach
from experiments.data.published import fetching
from experiments.data.published.fetching import File
from experiments.data.types import DataDamagedError, DataNotFoundError, Examples, PictureSplits

# Raise it with every change to what is kept, so that what was kept before is not read.
_KEPT_VERSION = 1
# How many records are in memory at a time.
_CHUNK = 256


class Part(NamedTuple):
    """A split.

    Attributes:
      labels: of its pictures, by name.
      contents: (name, content) of its pictures, and perhaps others; bytes, or a PIL image.
    """

    labels: dict[str, int]
    contents: Iterator[tuple[str, Any]]


class PublishedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures as their publisher's files hold them, with a label and a name each.

    Where TFDS has a stock builder, the subclass has its name, version, URLs, sizes and digests,
    and so the same files; it has no other features than these three, and cannot be read by it.

    Attributes:
      title: the data set's name for people.
      folder: the subfolder of the data folder that its files are in.
      files: what is published.
      classes: how many there are.
      counts: how many pictures each split has; only for sets whose files have no digest on
        record, which are checked by these numbers and `classes` instead.
      parts: the splits that are training data, and those that are test data.
    """

    title: ClassVar[str]
    folder: ClassVar[str]
    files: ClassVar[tuple[File, ...]]
    classes: ClassVar[int]
    counts: ClassVar[dict[str, int]] = {}
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"train": ("train",), "test": ("test",)}
    # TFDS would look for a table of digests beside the module; they are in `files`.
    url_infos: Any = {}  # noqa: RUF012

    def __init__(self, *, source: Path, data_dir: Path) -> None:
        self.source = source
        super().__init__(data_dir=data_dir)

    @abc.abstractmethod
    def splits(self, paths: dict[str, Path]) -> dict[str, Part]:
        """What is in the files, which are given by name."""

    def _info(self) -> tfds.core.DatasetInfo:
        """Picture, label and name."""
        features = {
            "image": tfds.features.Image(),
            # ClassLabel would want to know how many there are, which 6DS's table tells.
            "label": tfds.features.Scalar(np.int32),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, description=self.title, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        """Per split, its examples, from files that are the published ones."""
        paths = {file.name: self._path(file, dl_manager) for file in self.files}
        splits = self.splits(paths)
        self._check({split: part.labels for split, part in splits.items()})
        return {split: self._generate_examples(part) for split, part in splits.items()}

    def _path(self, file: File, dl_manager: tfds.download.DownloadManager) -> Path:
        """Where the file is; downloaded if it is not in the folder, which was checked before."""
        if (path := self.source / file.name).is_file():
            return path
        path = Path(dl_manager.download(file.url))
        try:
            fetching.check(path, file)
        except DataDamagedError:
            # TFDS would take it for the right one the next time, or trip over its record of it.
            for leftover in (path, path.with_name(f"{path.name}.INFO")):
                leftover.unlink(missing_ok=True)
            raise
        return path

    def _check(self, tables: dict[str, dict[str, int]]) -> None:
        """Raise DataDamagedError where pictures or classes are missing in the lists."""
        if empty := [split for split, table in tables.items() if not table]:
            raise DataDamagedError(
                f"{self.title} in {self.source} lists no {empty[0]} pictures; fetch "
                f"{self._names()} again"
            )
        for split, wanted in self.counts.items():
            if len(tables[split]) != wanted:
                raise DataDamagedError(
                    f"{self.title} in {self.source} has {len(tables[split])} {split} pictures, "
                    f"wanted {wanted}; fetch {self._names()} again"
                )
        found = len({label for table in tables.values() for label in table.values()})
        if self.counts and found != self.classes:
            raise DataDamagedError(
                f"{self.title} in {self.source} has {found} classes, wanted {self.classes}; "
                f"fetch {self._names()} again"
            )
        train, test = (
            {name: label for split in splits for name, label in tables[split].items()}
            for splits in self.parts.values()
        )
        self.check_classes(f"{self.title} in {self.source}", train, test)

    def check_classes(
        self, where: str, train: Mapping[str, int], test: Mapping[str, int], *, skipped: int = 0
    ) -> None:
        """Raise DataDamagedError where a class is in the test data, but not in the training data.

        Args:
          where: what the two are parts of.
          train: labels by the pictures' names.
          test: the same.
          skipped: how many pictures were left out because they cannot be read.
        """
        if unknown := sorted(set(test.values()) - set(train.values())):
            example = next(name for name, label in test.items() if label == unknown[0])
            left_out = f" ({skipped} could not be read)" if skipped else ""
            raise DataDamagedError(
                f"{where} has test pictures, but no training pictures{left_out}, of {len(unknown)} "
                f"of its classes: one is {self.class_name(unknown[0])}, which {example} is of. "
                f"{self.remedy()}"
            )

    def class_name(self, label: int) -> str:
        """What a class is called, for a text."""
        return f"class {label}"

    def remedy(self) -> str:
        """What to do where a class has no training pictures, for a text."""
        return "Fetch it again"

    def _names(self) -> str:
        """The files, for a text."""
        return ", ".join(file.name for file in self.files) or "its files"

    def _generate_examples(self, part: Part) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (name, features) of the listed pictures."""
        remaining = dict(part.labels)
        for name, content in part.contents:
            if name in remaining:
                label = remaining.pop(name)
                yield name, {"image": content, "label": label, "file_name": name}
        if remaining:
            raise DataDamagedError(
                f"{self.title}: {min(remaining)} is listed, but not in {self.source} "
                f"({len(remaining)} such pictures); fetch {self._names()} again"
            )


def load(
    builder_class: type[PublishedBuilder],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    side: int = 72,
    skip_damaged: bool = False,
    edition: str = "",
) -> PictureSplits:
    """The data set as squares; see `published.load`, which finds its builder by name.

    `edition` tells apart data sets of one name that differ.
    """
    source = folders.data_folder(data_dir) / builder_class.folder
    root = folders.cache_folder() / "tensorflow_datasets" / edition
    which = "readable" if skip_damaged else "all"
    name = f"{builder_class.name}-{builder_class.VERSION}-{side}-{which}-{_KEPT_VERSION}.npz"
    arrays = kept.read_or_make(
        root / name,
        lambda: _decode(_prepared(builder_class, root, source), side, skip_damaged=skip_damaged),
    )
    train, test = (
        Examples(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test")
    )
    return PictureSplits(train, test, tuple(arrays["skipped"].tolist()))


def _prepared(builder_class: type[PublishedBuilder], root: Path, source: Path) -> PublishedBuilder:
    """The builder with its data prepared below `root`, now or earlier."""
    builder = builder_class(source=source, data_dir=root)
    if not builder.data_path.exists():
        missing = fetching.missing(source, builder.files)
        reason = reach.why_unreachable(missing[0].url) if missing else None
        if reason is None:
            reason = _prepare(builder, root)
        if reason is not None:
            raise DataNotFoundError(
                fetching.instructions(
                    builder.title, source, Path(builder.data_path), missing, reason
                )
            )
    return builder_class(source=source, data_dir=root)


def _prepare(builder: PublishedBuilder, root: Path) -> str | None:
    """Prepare the data set; the reason if it cannot be downloaded."""
    tfds.disable_progress_bar()
    try:
        # TFDS prints where it writes.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                # A directory of its own: TFDS may take another data set's files for these.
                download_dir=root / "downloads" / builder.name,
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
                file_format="array_record",
            )
    except (requests.RequestException, tfds.download.DownloadError) as error:
        return reach.innermost(error)
    except OSError as error:
        # Where another process was faster, only the last step fails: the folder is there already.
        if not builder.data_path.exists():
            raise DataNotFoundError(
                f"{builder.title} cannot be prepared in {root}: {error}. It takes a folder that "
                "can be written to, with as much to spare as the archives take; XDG_CACHE_HOME "
                "names another one"
            ) from None
    return None


def _decode(builder: PublishedBuilder, side: int, *, skip_damaged: bool) -> dict[str, np.ndarray]:
    """Images and labels keyed train_images, train_labels, …, and the names of those skipped."""
    arrays: dict[str, np.ndarray] = {}
    labels: dict[str, dict[str, int]] = {}
    skipped: list[str] = []
    where = f" of {builder.title}"
    for part, splits in builder.parts.items():
        listed: list[tuple[str, int]] = []
        files = ((name + where, content) for name, content in _read(builder, splits, listed))
        try:
            decoded = pictures.decode(files, side, skip_damaged=skip_damaged)
        except DataDamagedError as error:
            raise DataDamagedError(
                f"{error}. After fetching its file again, remove {builder.data_path}, where the "
                "picture is kept"
            ) from error
        readable = [listed[row] for row in decoded.rows]
        labels[part] = dict(readable)
        arrays[f"{part}_images"] = decoded.pixels
        arrays[f"{part}_labels"] = np.array([label for _, label in readable], np.int32)
        skipped += [name.removesuffix(where) for name in decoded.skipped]
    builder.check_classes(builder.title, labels["train"], labels["test"], skipped=len(skipped))
    return {**arrays, "skipped": np.array(skipped, str)}


def _read(
    builder: PublishedBuilder, splits: Iterable[str], listed: list[tuple[str, int]]
) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the pictures of several splits; (name, label) are added to `listed`."""
    for split in splits:
        for record in _records(builder, split):
            name = record["file_name"].decode()
            listed.append((name, int(record["label"])))
            yield name, record["image"]


def _records(builder: PublishedBuilder, split: str) -> Iterator[dict[str, Any]]:
    """One split's pictures, encoded as they came, with their labels and names."""
    # Left to us to decode, because TFDS's decoder warns that OpenCV is not installed.
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        source: Any = builder.as_data_source(split, decoders=decoders)  # pyright: ignore[reportCallIssue]
        for start in range(0, len(source), _CHUNK):
            yield from source.__getitems__(range(start, min(start + _CHUNK, len(source))))
    except (OSError, RuntimeError, ValueError) as error:
        raise DataDamagedError(
            f"the prepared data set in {builder.data_path} cannot be read ({error}); remove that "
            "folder and run the same command again"
        ) from error
