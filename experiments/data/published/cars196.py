"""Stanford Cars: 16,185 photographs of 196 makes, models and years."""

import io
from pathlib import Path

from tensorflow_datasets.image_classification.cars196 import Cars196 as Stock

from experiments.data.published import contents, fetching
from experiments.data.published.builder import Part, PublishedBuilder
from experiments.data.types import DataDamagedError

_URL = "http://ai.stanford.edu/~jkrause/car196/"
_DEVKIT_URL = "https://ai.stanford.edu/~jkrause/cars/"
_TRAIN_LIST = "cars_train_annos.mat"
_TEST_LIST = "cars_test_annos_withlabels.mat"
_LIST = "annotations"


def _file(name: str, holds: str, url: str = _URL) -> fetching.File:
    """A file as the stock builder knows it."""
    return fetching.stock_file(Stock.url_infos, url + name, name, holds)


class Cars196(PublishedBuilder, skip_registration=True):
    """The stock builder's pictures, labels and split, without boxes.

    8,144 training pictures and 8,041 test pictures.

    Source: Krause et al., 3D object representations for fine-grained categorization, 3dRR 2013.
    """

    name = "cars196"
    VERSION = Stock.VERSION
    title = "Stanford Cars"
    folder = "cars196"
    files = (
        _file("cars_train.tgz", "training pictures, cars_train/00001.jpg and so on"),
        _file("cars_test.tgz", "test pictures, cars_test/00001.jpg and so on"),
        _file("car_devkit.tgz", f"classes of the training pictures, {_TRAIN_LIST}", _DEVKIT_URL),
        _file(_TEST_LIST, "classes of the test pictures"),
    )
    classes = 196

    def splits(self, paths: dict[str, Path]) -> dict[str, Part]:
        """Labels by cars_train/00001.jpg and so on."""
        devkit = paths["car_devkit.tgz"]
        found = dict(contents.pictures(devkit, rf"devkit/({_TRAIN_LIST})"))
        if _TRAIN_LIST not in found:
            raise DataDamagedError(f"{devkit} has no devkit/{_TRAIN_LIST}; fetch it again")
        content, where = io.BytesIO(found[_TRAIN_LIST]), f"{_TRAIN_LIST} in {devkit}"
        train = contents.mat(content, _LIST, where=where)
        test = contents.mat(paths[_TEST_LIST], _LIST)
        return {
            split: Part(
                {f"cars_{split}/{row['fname'].item()}": row["class"].item() - 1 for row in rows[0]},
                contents.pictures(paths[f"cars_{split}.tgz"], rf"(cars_{split}/\d+\.jpg)"),
            )
            for split, (rows,) in (("train", train), ("test", test))
        }
