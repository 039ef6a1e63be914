"""SqueezeNet 1.0 and 1.1, up to the last layer before the classifier."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.trunks import preprocessing
from experiments.trunks.pooling import ceil_max_pool


class Fire(nn.Module):
    """A 1×1 convolution to few channels, and a 1×1 and a 3×3 one from these, side by side.

    Attributes:
      squeeze: channels between; each of the two outputs has four times as many.
    """

    squeeze: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 8 · squeeze)."""
        x = nn.relu(nn.Conv(self.squeeze, (1, 1), name="squeeze1x1")(x))
        # Each with its own ReLU, which one after the join would equal: l-MAS looks for a layer's
        # activation before the layers join.
        sides = [
            nn.relu(nn.Conv(4 * self.squeeze, (side, side), name=f"expand{side}x{side}")(x))
            for side in (1, 3)
        ]
        return jnp.concatenate(sides, -1)


class SqueezeNet(nn.Module):
    """A convolution and eight fire modules; the features are the means of the last one's outputs.

    Iandola et al., SqueezeNet, 2016 (arXiv 1602.07360). Three 3×3 pools, 2 apart, which may reach
    over the edge. Dropout, 0.5, stands between fire9 and the means, as in the original between
    fire9 and the convolution that is the classifier.

    Attributes:
      first: channels of the first convolution, which is 2 apart, without padding.
      first_side: its side.
      squeezes: of fire2 to fire9.
      pooled: after which layers the pools are; 1 is the first convolution.
      is_caffe: whether pictures are prepared as in the authors' release (BGR less the mean) or
        as in torchvision's.
    """

    first: int = 96
    first_side: int = 7
    squeezes: tuple[int, ...] = (16, 16, 32, 32, 48, 48, 64, 64)
    pooled: tuple[int, ...] = (1, 4, 8)
    is_caffe: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Features of pictures.

        Args:
          images: (B, H, W, 3) float32, RGB 0 … 255, at least 21×21, or 17×17 (1.1); 227×227 (the
            authors) or 224×224 (torchvision) in training.
          train: whether dropout acts, which then needs the rng "dropout".

        Returns:
          (B, 512) float32.

        Raises:
          ValueError: the pictures are too small, or not RGB.
        """
        x = preprocessing.checked(images, 14 + self.first_side, "SqueezeNet")
        x = preprocessing.caffe(x) if self.is_caffe else preprocessing.torchvision(x)
        side = (self.first_side, self.first_side)
        x = nn.relu(nn.Conv(self.first, side, 2, "VALID", name="conv1")(x))
        x = ceil_max_pool(x, 3) if 1 in self.pooled else x
        for number, squeeze in enumerate(self.squeezes, 2):
            x = Fire(squeeze, name=f"fire{number}")(x)
            x = ceil_max_pool(x, 3) if number in self.pooled else x
        return nn.Dropout(0.5, deterministic=not train)(x).mean((1, 2))


SQUEEZENET_1_0 = SqueezeNet()
"""Version 1.0 as torchvision trained it."""

SQUEEZENET_1_0_CAFFE = SqueezeNet(is_caffe=True)
"""Version 1.0 as its authors released it, the deep-compressed weights included."""

SQUEEZENET_1_1 = SqueezeNet(first=64, first_side=3, pooled=(1, 3, 5))
"""Version 1.1, with 2.4 times less work, as torchvision trained it."""
