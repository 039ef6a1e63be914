"""Pictures as the networks' authors gave them to their networks."""

import jax
import jax.numpy as jnp

# Of ImageNet's training pixels as fractions of 255, red, green, blue; torchvision's documentation
# of its classification weights.
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)

# Blue, green, red: the mean that Caffe's model zoo, SqueezeNet's release among it, takes off.
CAFFE_MEAN = (104.0, 117.0, 123.0)


def checked(images: jax.Array, smallest: int, name: str) -> jax.Array:
    """`images` as float32; a network needs them at least `smallest` pixels high and wide.

    Raises:
      ValueError: they are not (B, H, W, 3), or smaller.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"{name} wants images (B, H, W, 3), RGB 0 … 255; got {images.shape}")
    if min(images.shape[1:3]) < smallest:
        raise ValueError(
            f"{name} wants images of at least {smallest}×{smallest} pixels, since its pooling "
            f"leaves nothing of smaller ones; got {images.shape[1]}×{images.shape[2]}"
        )
    return jnp.asarray(images, jnp.float32)


def torchvision(images: jax.Array) -> jax.Array:
    """RGB 0 … 255 as torchvision normalises: (x/255 − mean)/standard deviation of each colour."""
    mean, std = (
        jnp.reshape(jnp.array(v), (1, 1, 1, 3)) for v in (TORCHVISION_MEAN, TORCHVISION_STD)
    )
    return (images / 255 - mean) / std


def caffe(images: jax.Array) -> jax.Array:
    """RGB 0 … 255 as Caffe's networks take them: blue first, less each colour's mean."""
    return images[..., ::-1] - jnp.reshape(jnp.array(CAFFE_MEAN), (1, 1, 1, 3))


def darknet(images: jax.Array) -> jax.Array:
    """RGB 0 … 255 as Darknet takes them: 0 … 1."""
    return images / 255
