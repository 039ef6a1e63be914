"""The settings that experiments on photographs share, on convolutional networks trained before."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn

from experiments import trunks
from experiments.config import SequenceConfig
from experiments.data import archives, stand_ins
from experiments.data.types import Task
from experiments.networks import Network
from experiments.views import Views
from experiments.weights import found


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConfig(SequenceConfig):
    """A sequence of tasks on photographs."""

    backbone: str = "tiny_darknet"
    """The network: alexnet, vgg16, squeezenet1_0, squeezenet1_0_caffe, squeezenet1_1,
    tiny_darknet."""
    weights: Literal["published", "random"] = "published"
    """What it starts from: ImageNet's weights, looked for beside the data, or none."""
    side: int = 64
    """Pixels of the square that the network sees."""
    kept_side: int = 72
    """Pixels of the squares that pictures are kept as; training sees parts of them."""
    augmented: bool = True
    """Whether training draws which part it sees, and mirrors half of the pictures of sets where
    that changes nothing. Test and importance see the middle."""
    skip_damaged: bool = False
    """Whether pictures that cannot be read are left out, and counted, rather than refused."""
    any_copy: bool = False
    """Whether a stand-in's archive may be another than the one that is known here."""
    head_rate: float = 1e-2
    """Learning rate of heads that are warmed up."""
    head_warmup_epochs: int = 20
    """Passes in which the new task's head alone is trained on what the trunk makes of pictures."""
    epochs: int = 3
    batch_size: int = 64
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 5e-5
    seeds: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        trunks.find(self.backbone)
        if not 1 <= self.side <= self.kept_side:
            raise ValueError(
                f"--side must be from 1 to --kept-side, which is {self.kept_side}, got {self.side}"
            )
        if not 0 < self.head_rate < float("inf"):
            raise ValueError(f"--head-rate must be above 0, and finite, got {self.head_rate}")

    def mirrored(self) -> tuple[bool, ...]:
        """For each task whether its pictures mean the same in a mirror."""
        return ()

    def views(self) -> Views:
        """How pictures are cut before the network sees them."""
        mirrored = self.mirrored() if self.augmented else ()
        return Views(self.side, shifted=self.augmented, mirrored=mirrored)

    def trunk(self) -> nn.Module:
        return trunks.find(self.backbone)

    def pretrained(self) -> Any:
        return found.load(self.backbone, self.data_dir) if self.weights == "published" else None

    def digests(self) -> dict[str, str]:
        if self.weights == "random":
            return {}
        return {"weights": digest(found.path_of(self.backbone, self.data_dir))}

    def unknown_archive(self, name: str) -> bool:
        """Whether the archive of a stand-in may be another than the one that is known."""
        return name in stand_ins.ARCHIVES and (self.any_copy or self.skip_damaged)

    def network(self, heads: tuple[tuple[bool, ...], ...], tasks: Sequence[Task]) -> Network:
        del tasks
        return Network(self.trunk(), heads, self.scenario, self.views(), stepwise=True)

    def head_learning_rate(self, learning_rate: float) -> float:
        del learning_rate
        return self.head_rate


def digest(path: Path) -> str:
    """The file's sha256, computed again only where the file has changed."""
    seen = path.stat()
    return _digest(path, seen.st_size, seen.st_mtime_ns)


@functools.cache
def _digest(path: Path, _size: int, _changed: int) -> str:
    return archives.digest(path)
