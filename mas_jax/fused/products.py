"""Σ_k w_k red(g_k) where g_k is a sum of outer products over positions: dense layers, convolutions.

Sample k uses the kernel at P positions, in N independent blocks: g_k = Σ_p a_kp b_kpᵀ with a of
shape (N, P, I) and b of shape (N, P, O).

- One position: |a bᵀ| = |a| |b|ᵀ, so that the sum over samples is one matrix product, as it is
  for the plain gradient.
- More: one matrix product per sample, as many operations as the plain gradient takes, reduced
  and added up while it is in the cache. Never B × N × I × O numbers at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mas_jax.microbatches import fitting_size
from mas_jax.per_sample import ReduceFn, VectorMagnitude, weighted, weighted_sum

Factors: TypeAlias = tuple[jax.Array, jax.Array]
"""a (N, P, I) and b (N, P, O)."""

CHUNK_BYTES = {"cpu": 0, "gpu": 2**26, "tpu": 2**26}
"""Products of samples to hold at a time: on a CPU those of one. Not tuned on accelerators."""
PRODUCTS_PER_MOVE = 16
"""Multiplications done in the time in which one number is moved, for estimates."""
UNROLLED, UNROLLED_BYTES = 4, 2**22
"""Chunks per iteration of the loop, whose overhead shows where products are small, and what they
may hold together."""


class Work(NamedTuple):
    """An estimate, counted in numbers read or written: for Σ_k g_k, and for Σ_k w_k red(g_k)."""

    plain: float
    fused: float


class Products(NamedTuple):
    """The rule for one use of a kernel: how x and dy of a sample become factors."""

    name: str
    blocks: int  # N
    positions: int  # P
    rows: int  # I
    columns: int  # O
    precision: Any
    factors_fn: Callable[[jax.Array, jax.Array], Factors]
    kernel_fn: Callable[[jax.Array], jax.Array]  # (N, I, O) -> as the kernel
    gradient_fn: Callable[[jax.Array, jax.Array], jax.Array] | None = None  # depthwise only

    def sum_over_samples(
        self, reduce_fn: ReduceFn, dtype: Any, x_B: jax.Array, dy_B: jax.Array, weights_B: jax.Array
    ) -> jax.Array:
        """Σ_k w_k red(g_k), of the kernel's shape, accumulated in `dtype`."""
        if self.positions == 1:
            sums = self._one_product(reduce_fn, dtype, x_B, dy_B, weights_B)
        else:
            sums = self._product_per_sample(reduce_fn, dtype, x_B, dy_B, weights_B)
        return self.kernel_fn(sums)

    def sum_over_outputs(
        self,
        magnitude: VectorMagnitude,
        dtype: Any,
        x_B: jax.Array,
        dy_BxO: jax.Array,
        weights_B: jax.Array,
    ) -> jax.Array:
        """Σ_k w_k |(g_k1, …, g_kO)|, of the kernel's shape, accumulated in `dtype`.

        One position: the factor a is the same for all outputs, so that the magnitude over outputs
        is that of the cotangents. More: where it is a sum over outputs too, each (sample, output)
        counts as a sample.
        """
        if self.positions == 1:
            reduced_B = magnitude.of(dy_BxO.astype(dtype), axis=1)
            sums = self._one_product(
                magnitude.reduce_fn, dtype, x_B, reduced_B, weights_B, lambda b: b
            )
        elif magnitude.over_outputs == "sum":
            x, weights = (jnp.repeat(y, dy_BxO.shape[1], axis=0) for y in (x_B, weights_B))
            dy = dy_BxO.reshape(-1, *dy_BxO.shape[2:])
            sums = self._product_per_sample(magnitude.reduce_fn, dtype, x, dy, weights)
        else:
            sums = self._root_per_sample(magnitude, dtype, x_B, dy_BxO, weights_B)
        return self.kernel_fn(sums)

    def _root_per_sample(
        self,
        magnitude: VectorMagnitude,
        dtype: Any,
        x_B: jax.Array,
        dy_BxO: jax.Array,
        weights_B: jax.Array,
    ) -> jax.Array:
        """√Σ_o (A_kᵀ B_ko)² added up in a loop, sample by sample."""
        size = dy_BxO.shape[1]
        ones = jnp.ones(size, dtype)

        def step(k: jax.Array, total: jax.Array) -> jax.Array:
            x, dy_O = x_B[k], dy_BxO[k]
            x_O = jnp.broadcast_to(x, (size, *x.shape))
            terms = self._product_per_sample(magnitude.terms.reduce_fn, dtype, x_O, dy_O, ones)
            return total + weighted_sum(magnitude.root, terms[None], weights_B[k][None])

        zeros = jnp.zeros((self.blocks, self.rows, self.columns), dtype)
        return jax.lax.fori_loop(0, len(weights_B), step, zeros)

    def _one_product(
        self,
        reduce_fn: ReduceFn,
        dtype: Any,
        x_B: jax.Array,
        dy_B: jax.Array,
        weights_B: jax.Array,
        reduce_dy_fn: ReduceFn | None = None,
    ) -> jax.Array:
        """red(A)ᵀ (w red(B)), per block; with another red for B if that is given."""
        a, b = jax.vmap(self.factors_fn)(x_B, dy_B)
        size = len(weights_B)
        # Two axes, as a bias' gradient has them: XLA then computes w |dy| once for both.
        a = a.reshape(size, self.blocks * self.rows).astype(dtype)
        b = b.reshape(size, self.blocks * self.columns).astype(dtype)
        b = weighted(reduce_dy_fn or reduce_fn, b, weights_B)
        # A sample of weight 0 may hold NaN or infinity, and 0 · NaN is NaN. The second condition
        # always holds, which XLA does not see: on a CPU it would otherwise compute the |A| of all
        # layers before the first |B|, and hold them (it drops an optimization_barrier too early).
        live = (weights_B.reshape(-1, 1) > 0) & ~((b[:, :1] < 0) & (b[:, :1] > 0))
        a = jnp.where(live, reduce_fn(a), 0.0)
        if self.blocks == 1:  # spares XLA a batch axis of one
            return jnp.einsum("bi,bo->io", a, b, precision=self.precision)[None]
        a, b = a.reshape(size, self.blocks, self.rows), b.reshape(size, self.blocks, self.columns)
        return jnp.einsum("bni,bno->nio", a, b, precision=self.precision)

    def _product_per_sample(
        self, reduce_fn: ReduceFn, dtype: Any, x_B: jax.Array, dy_B: jax.Array, weights_B: jax.Array
    ) -> jax.Array:
        """red(A_kᵀ B_k) added up in a loop, a few samples at a time."""
        size, (chunk, unrolled) = len(weights_B), self._chunking(len(weights_B))

        def rows(start: Any, length: int) -> jax.Array:
            """Σ_k w_k red(g_k) over some samples."""
            x, dy, weights = (
                jax.lax.dynamic_slice_in_dim(y, start, length) for y in (x_B, dy_B, weights_B)
            )
            grads = jax.vmap(lambda x, dy: self._gradient(dtype, x, dy))(x, dy)
            return weighted_sum(reduce_fn, grads, weights)

        def step(i: jax.Array, total: jax.Array) -> jax.Array:
            for j in range(unrolled):
                total = total + rows((unrolled * i + j) * chunk, chunk)
            return total

        steps, left = divmod(size, unrolled * chunk)
        # A loop over numbers and not over the arrays themselves, which XLA would copy for it.
        zeros = jnp.zeros((self.blocks, self.rows, self.columns), dtype)
        total = jax.lax.fori_loop(0, steps, step, zeros)
        for start in range(size - left, size, chunk):
            total = total + rows(start, min(chunk, size - start))
        return total

    def _gradient(self, dtype: Any, x: jax.Array, dy: jax.Array) -> jax.Array:
        """g of one sample, (N, I, O)."""
        if self.gradient_fn is not None:
            return self.gradient_fn(x.astype(dtype), dy.astype(dtype))
        a, b = self.factors_fn(x, dy)
        common = a.dtype if a.dtype == b.dtype else dtype
        equation, a, b = ("npi,npo->nio", a, b) if self.blocks > 1 else ("pi,po->io", a[0], b[0])
        product = jnp.einsum(
            equation,
            a.astype(common),
            b.astype(common),
            precision=self.precision,
            preferred_element_type=dtype,
        )
        return product.reshape(self.blocks, self.rows, self.columns)

    def _chunking(self, size: int) -> tuple[int, int]:
        """How many samples' products are one operation, and how many of these one iteration."""
        budget = CHUNK_BYTES.get(jax.default_backend(), 2**26)
        chunk = min(size, fitting_size(self._sample_bytes(), budget))
        return chunk, min(UNROLLED, fitting_size(chunk * self._sample_bytes(), UNROLLED_BYTES))

    def _sample_bytes(self) -> int:
        """One sample's gradient, and the larger factor."""
        return 4 * self.blocks * (self.rows * self.columns + self.positions * self.rows)

    def bytes_held(self, size: int) -> int:
        """The magnitudes of the factors, or the products that are held at a time."""
        if self.positions == 1:
            return 4 * size * self.blocks * (self.rows + self.columns)
        chunk, unrolled = self._chunking(size)
        return min(size, chunk * unrolled) * self._sample_bytes()

    def work(self, size: int) -> Work:
        """The same multiplications; magnitudes, or a pass over each sample's gradient, on top."""
        kernel = self.blocks * self.rows * self.columns
        factors = size * self.blocks * self.positions * (self.rows + self.columns)
        plain = size * self.positions * kernel / PRODUCTS_PER_MOVE + factors + kernel
        return Work(plain, plain + (factors if self.positions == 1 else size * kernel))
