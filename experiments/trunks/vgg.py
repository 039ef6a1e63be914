"""VGG-16, up to the layer before its classifier."""

import flax.linen as nn
import jax

from experiments.trunks import preprocessing
from experiments.trunks.pooling import adaptive_mean_pool, max_pool

SMALLEST = 32


class VGG16(nn.Module):
    """Thirteen 3×3 convolutions in five blocks and two dense layers; the features are fc7's.

    Configuration D of Simonyan and Zisserman, ICLR 2015 (arXiv 1409.1556), without batch norm, as
    torchvision has it: means over 7×7 windows bring every size of picture to fc6, and dropout, 0.5,
    stands after fc6 and after fc7. Neither grouped convolutions nor local normalisation are in it.

    Attributes:
      blocks: channels of the convolutions, block by block.
      hidden: outputs of fc6 and of fc7.
    """

    blocks: tuple[tuple[int, ...], ...] = (
        (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512),
    )  # fmt: skip
    hidden: int = 4096

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Features of pictures.

        Args:
          images: (B, H, W, 3) float32, RGB 0 … 255, at least 32×32; 224×224 in training.
          train: whether dropout acts, which then needs the rng "dropout".

        Returns:
          (B, hidden) float32.

        Raises:
          ValueError: the pictures are too small, or not RGB.
        """
        x = preprocessing.torchvision(preprocessing.checked(images, SMALLEST, "VGG-16"))
        for block, widths in enumerate(self.blocks, 1):
            for number, channels in enumerate(widths, 1):
                x = nn.relu(nn.Conv(channels, (3, 3), name=f"conv{block}_{number}")(x))
            x = max_pool(x, 2)
        x = adaptive_mean_pool(x, 7).reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            x = nn.relu(nn.Dense(self.hidden, name=name)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return x
