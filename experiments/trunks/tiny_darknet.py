"""Tiny Darknet, up to the last convolution before its classifier."""

import flax.linen as nn
import jax

from experiments.trunks import preprocessing
from experiments.trunks.pooling import ceil_max_pool

BATCH_NORM_EPSILON = 1e-3
"""What the published weights' batch norm adds to the variance."""

# After these convolutions the picture is halved; a row or column left over is a window itself.
_POOLED = (1, 2, 6, 10)


class TinyDarknet(nn.Module):
    """Fifteen convolutions with leaky ReLU; the features are the means of the last one's outputs.

    Redmon, pjreddie.com/darknet/tiny-darknet, 2016. There each convolution has no bias, and a
    batch norm after it. The sets that are learned here are too small to measure a batch norm's
    mean and variance, which would drift from task to task besides, so these stay as published:
    a batch norm with fixed statistics is a factor and a summand for each channel, and converting
    the weights multiplies the one into the kernel and makes the other the bias. No dropout.

    Attributes:
      channels: of the fifteen convolutions.
      sides: of their kernels.
    """

    channels: tuple[int, ...] = (
        16, 32, 16, 128, 16, 128, 32, 256, 32, 256, 64, 512, 64, 512, 128,
    )  # fmt: skip
    sides: tuple[int, ...] = (3, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Features of pictures.

        Args:
          images: (B, H, W, 3) float32, RGB 0 … 255, of any size; 224×224 in training.
          train: changes nothing.

        Returns:
          (B, 128) float32.

        Raises:
          ValueError: the pictures are not RGB.
        """
        del train
        x = preprocessing.darknet(preprocessing.checked(images, 1, "Tiny Darknet"))
        for number, (channels, side) in enumerate(zip(self.channels, self.sides, strict=True), 1):
            x = nn.Conv(channels, (side, side), name=f"conv{number}")(x)
            x = nn.leaky_relu(x, 0.1)
            x = ceil_max_pool(x, 2) if number in _POOLED else x
        return x.mean((1, 2))
