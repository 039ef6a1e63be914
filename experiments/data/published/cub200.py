"""Caltech-UCSD Birds-200-2011: 11,788 photographs of 200 species."""

from pathlib import Path

from tensorflow_datasets.image_classification.caltech_birds import CaltechBirds2011 as Stock

from experiments.data.published import contents, fetching
from experiments.data.published.builder import Part, PublishedBuilder
from experiments.data.types import DataDamagedError

_ARCHIVE = "CUB_200_2011.tgz"
_URL = f"https://data.caltech.edu/records/65de6-vp158/files/{_ARCHIVE}?download=1"
_LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt")


class Cub200(PublishedBuilder, skip_registration=True):
    """The stock builder's pictures, labels and split, without boxes and masks.

    5,994 training pictures and 5,794 test pictures. The masks, which the stock builder has, are
    another archive that is not needed here.

    Source: Wah et al., The Caltech-UCSD Birds-200-2011 dataset, CNS-TR-2011-001.
    """

    name = "caltech_birds2011"
    VERSION = Stock.VERSION
    title = "CUB-200-2011"
    folder = "cub200"
    files = (
        fetching.stock_file(
            Stock.url_infos,
            _URL,
            _ARCHIVE,
            "pictures, CUB_200_2011/images/001.Black_footed_Albatross/… and so on, and their lists",
        ),
    )
    classes = 200

    def splits(self, paths: dict[str, Path]) -> dict[str, Part]:
        """Labels by 001.Black_footed_Albatross/….jpg and so on."""
        path = paths[_ARCHIVE]
        lists = contents.texts(path, rf"CUB_200_2011/({'|'.join(_LISTS)})")
        names, labels, is_train = (dict(contents.rows(lists, name, path, 2)) for name in _LISTS)
        if not names.keys() == labels.keys() == is_train.keys():
            raise DataDamagedError(
                f"{', '.join(_LISTS)} in {path} have {len(names)}, {len(labels)} and "
                f"{len(is_train)} pictures; wanted the same ones in all. Fetch it again"
            )
        return {
            split: Part(
                {names[i]: int(labels[i]) - 1 for i in names if is_train[i] == flag},
                contents.pictures(path, r"CUB_200_2011/images/(.+\.jpg)"),
            )
            for split, flag in (("train", "1"), ("test", "0"))
        }
