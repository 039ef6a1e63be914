"""The networks that importance is measured on, as flax.linen modules in evaluation mode."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import mas_jax


class MLP(nn.Module):
    """Dense layers with ReLU, and a linear one of `outputs`."""

    hidden_sizes: tuple[int, ...]
    outputs: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for size in self.hidden_sizes:
            x = nn.relu(nn.Dense(size)(x))
        return nn.Dense(self.outputs)(x)


class CNN(nn.Module):
    """Per entry of `channels` a 3×3 convolution, ReLU and 2×2 max pooling; then a dense layer."""

    channels: tuple[int, ...]
    outputs: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for channels in self.channels:
            x = nn.relu(nn.Conv(channels, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(self.outputs)(_flat(x))


class ViT(nn.Module):
    """A Vision Transformer: norms before attention and MLP, learned positions.

    What the last layer sees is the class token, or without one the mean over the patches.

    Source: Dosovitskiy et al., ICLR 2021, arXiv 2010.11929, section 3.1.
    """

    width: int
    depth: int
    heads: int
    patch: int
    outputs: int = 10
    class_token: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(self.width, (self.patch, self.patch), strides=self.patch)(x)
        x = x.reshape(x.shape[0], -1, self.width)
        if self.class_token:
            token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], axis=1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for _ in range(self.depth):
            x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
            h = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(h)
        x = nn.LayerNorm()(x)
        return nn.Dense(self.outputs)(x[:, 0] if self.class_token else x.mean(axis=1))


class Fire(nn.Module):
    """SqueezeNet's module: few channels, then 1×1 and 3×3 convolutions of them side by side."""

    squeezed: int
    expanded: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(self.squeezed, (1, 1))(x))
        sides = [nn.relu(nn.Conv(self.expanded, size)(x)) for size in ((1, 1), (3, 3))]
        return jnp.concatenate(sides, axis=-1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.0; as in the authors' code, a pooling's last window may reach over the edge.

    Source: Iandola et al., arXiv 1602.07360, table 1.
    """

    outputs: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(96, (7, 7), strides=2, padding="VALID")(x))
        for stage in (
            ((16, 64), (16, 64), (32, 128)),
            ((32, 128), (48, 192), (48, 192), (64, 256)),
        ):
            x = _pool(x, 0, 1)
            for squeezed, expanded in stage:
                x = Fire(squeezed, expanded)(x)
        x = Fire(64, 256)(_pool(x, 0, 1))
        return nn.relu(nn.Conv(self.outputs, (1, 1))(x)).mean(axis=(1, 2))


class VGG16(nn.Module):
    """Configuration D of VGG. Source: Simonyan and Zisserman, ICLR 2015, table 1."""

    outputs: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for channels, layers in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(layers):
                x = nn.relu(nn.Conv(channels, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return MLP((4096, 4096), self.outputs)(_flat(x))


class Bottleneck(nn.Module):
    """ResNet's block of three convolutions; the stride is at the second one, as is now usual."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(_norm()(_conv(self.channels, 1)(x)))
        y = nn.relu(_norm()(_conv(self.channels, 3, self.stride)(y)))
        y = _norm()(_conv(4 * self.channels, 1)(y))
        if x.shape != y.shape:
            x = _norm()(_conv(4 * self.channels, 1, self.stride)(x))
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """ResNet-50, batch norm in evaluation mode. Source: He et al., CVPR 2016, table 1."""

    outputs: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(_norm()(_conv(64, 7, 2)(x)))
        x = _pool(x, 1, 1)
        for stage, layers in enumerate((3, 4, 6, 3)):
            for layer in range(layers):
                x = Bottleneck(64 * 2**stage, 2 if stage > 0 and layer == 0 else 1)(x)
        return nn.Dense(self.outputs)(x.mean(axis=(1, 2)))


def _conv(channels: int, size: int, stride: int = 1) -> nn.Conv:
    """ResNet's convolution: as much padding at both ends, no bias."""
    return nn.Conv(channels, (size, size), stride, padding=size // 2, use_bias=False)


def _norm() -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=True)


def _pool(x: jax.Array, low: int, high: int) -> jax.Array:
    """3×3 max pooling with stride 2, padded by so much at the ends of each axis."""
    padding: Any = ((low, high), (low, high))
    return nn.max_pool(x, (3, 3), (2, 2), padding)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)


class Network(NamedTuple):
    """A module, the shape of one sample, and the batch that it is measured at."""

    title: str
    module: nn.Module
    sample_shape: tuple[int, ...]
    batch_size: int

    def init(self) -> tuple[Any, Any]:
        """(apply_fn, params), as `mas_jax.from_linen` returns them."""
        sample = jnp.zeros((1, *self.sample_shape))
        return mas_jax.from_linen(self.module, jax.jit(self.module.init)(jax.random.key(0), sample))

    def batch(self) -> jax.Array:
        """Random numbers: what they are makes no difference to time and memory."""
        return jax.random.normal(jax.random.key(1), (self.batch_size, *self.sample_shape))


SMALL = {
    "mlp": Network("MLP 784-1024-1024-10", MLP((1024, 1024)), (784,), 128),
    "cnn32": Network("CNN 32-64-128, 32×32", CNN((32, 64, 128)), (32, 32, 3), 128),
    "cnn96": Network("CNN 96-256-384, 64×64", CNN((96, 256, 384)), (64, 64, 3), 32),
    "vit": Network("ViT 192×4, 64 tokens", ViT(192, 4, 3, 4), (32, 32, 3), 32),
    "squeezenet": Network("SqueezeNet 1.0, 72 px", SqueezeNet(), (72, 72, 3), 32),
}
"""What a CPU of two cores computes in a second at most."""

LARGE = {
    "vgg16": Network("VGG-16, 224 px", VGG16(), (224, 224, 3), 128),
    "resnet50": Network("ResNet-50, 224 px", ResNet50(), (224, 224, 3), 256),
    "vit_b16": Network(
        "ViT-B/16, 224 px", ViT(768, 12, 12, 16, 1000, class_token=True), (224, 224, 3), 128
    ),
}
"""What fills an accelerator of 80 GiB."""


def num_parameters(params: Any) -> int:
    """How many parameters there are."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
