"""How a picture is looked at: its middle, or in training another part of it, mirrored or not."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Views:
    """The part of a picture that a network sees.

    Attributes:
      side: pixels of the square that is cut out; None leaves inputs as they are.
      shifted: whether in training it is cut out anywhere, not from the middle.
      mirrored: for each task whether in training half of its pictures are mirrored, which letters
        and digits must not be; empty for none.
    """

    side: int | None = None
    shifted: bool = False
    mirrored: tuple[bool, ...] = ()

    def middle(self, inputs: jax.Array) -> jax.Array:
        """(B, S, S, 3) of (B, H, W, 3) pictures."""
        if self.side is None:
            return inputs
        top, left = ((size - self.side) // 2 for size in inputs.shape[1:3])
        return inputs[:, top : top + self.side, left : left + self.side]

    def drawn(self, key: jax.Array, inputs: jax.Array, tasks: jax.Array) -> jax.Array:
        """(B, S, S, 3) of (B, H, W, 3) pictures of `tasks` (B,), each drawn for itself."""
        if self.side is None:
            return inputs
        for_place, for_mirror = jax.random.split(key)
        side, size = self.side, len(inputs)
        if self.shifted:
            room = jnp.array(inputs.shape[1:3]) - side + 1
            corners = jax.random.randint(for_place, (size, 2), 0, room[None])
            inputs = jax.vmap(
                lambda picture, corner: jax.lax.dynamic_slice(
                    picture, (*corner, 0), (side, side, picture.shape[-1])
                )
            )(inputs, corners)
        else:
            inputs = self.middle(inputs)
        if any(self.mirrored):
            turned = jnp.array(self.mirrored)[tasks] & jax.random.bernoulli(
                for_mirror, 0.5, (size,)
            )
            inputs = jnp.where(turned[:, None, None, None], inputs[:, :, ::-1], inputs)
        return inputs


WHOLE = Views()
"""Inputs as they are."""
