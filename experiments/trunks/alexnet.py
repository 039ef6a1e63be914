"""AlexNet in torchvision's layout, up to the layer before its classifier."""

import flax.linen as nn
import jax

from experiments.trunks import preprocessing
from experiments.trunks.pooling import adaptive_mean_pool, max_pool

SMALLEST = 63

# Side of the kernel, stride and padding of each convolution; and after which of them pools are.
_SHAPES = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
_POOLED = (1, 2, 5)


class AlexNet(nn.Module):
    """Five convolutions and two dense layers of 4096, each with ReLU; the features are fc7's.

    As torchvision has it, after Krizhevsky, One weird trick, 2014 (arXiv 1404.5997): the first
    network's grouped convolutions and its local response normalisation (Krizhevsky, Sutskever and
    Hinton, NeurIPS 2012) are not in it, so here is nothing in their place. Means over 6×6 windows
    bring every size of picture to fc6. Dropout, 0.5, stands before fc6 and before fc7.

    Attributes:
      channels: of the five convolutions.
      hidden: outputs of fc6 and of fc7.
    """

    channels: tuple[int, ...] = (64, 192, 384, 256, 256)
    hidden: int = 4096

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Features of pictures.

        Args:
          images: (B, H, W, 3) float32, RGB 0 … 255, at least 63×63; 224×224 in training.
          train: whether dropout acts, which then needs the rng "dropout".

        Returns:
          (B, hidden) float32.

        Raises:
          ValueError: the pictures are too small, or not RGB.
        """
        x = preprocessing.torchvision(preprocessing.checked(images, SMALLEST, "AlexNet"))
        for number, (channels, shape) in enumerate(zip(self.channels, _SHAPES, strict=True), 1):
            side, stride, padding = shape
            conv = nn.Conv(channels, (side, side), stride, padding, name=f"conv{number}")
            x = nn.relu(conv(x))
            x = max_pool(x, 3) if number in _POOLED else x
        x = adaptive_mean_pool(x, 6).reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            x = nn.Dropout(0.5, deterministic=not train)(x)
            x = nn.relu(nn.Dense(self.hidden, name=name)(x))
        return x
