"""Published weights as the parameters of a trunk, with account of every array."""

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from experiments import trunks
from experiments.files import write_whole
from experiments.weights.files import read_weights
from experiments.weights.layouts import Layout, Source, layouts

TRUNK_KEY = "__trunk__"
"""The array, in a file that was converted, that holds the trunk's name."""


class Taken(NamedTuple):
    """An array and the layer that took it."""

    layer: str
    array: str
    shape: tuple[int, ...]


class Report(NamedTuple):
    """Which layer took which array. `print` it for a table.

    Attributes:
      trunk: its name.
      layout: whose layout the file is in.
      taken: in the network's order.
      left_out: the classifier's arrays, name and shape; none where the file has none.
    """

    trunk: str
    layout: str
    taken: tuple[Taken, ...]
    left_out: tuple[tuple[str, tuple[int, ...]], ...]

    def __str__(self) -> str:
        rows = [("layer", "array", "shape in the file")]
        rows += [(taken.layer, taken.array, _text(taken.shape)) for taken in self.taken]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        arrays = ", ".join(f"{name} {_text(shape)}" for name, shape in self.left_out) or "none"
        layers = len({taken.layer for taken in self.taken})
        lines.append(
            f"{self.trunk}, in the layout of {self.layout}: {layers} layers took "
            f"{len(self.taken)} arrays; left out on purpose, as the classifier: {arrays}"
        )
        return "\n".join(lines)


def convert(
    name: str, arrays: Mapping[str, np.ndarray], trunk: nn.Module | None = None
) -> tuple[dict[str, Any], Report]:
    """Make a trunk's parameters of the arrays of a published file.

    Every array must be used, or belong to the classifier, which tasks replace by their own heads.
    Kernels become (H, W, in, out) and (in, out); a dense layer on pictures gets its rows in the
    order in which Flax flattens them; a batch norm goes into the convolution before it.

    Args:
      name: of the trunk; a key of `trunks.TRUNKS`.
      arrays: by their names in the file.
      trunk: instead of TRUNKS[name], one of its kind with other numbers of channels.

    Returns:
      Parameters, nested dicts of float32 arrays, and which layer took which array.

    Raises:
      ValueError: `name` is no trunk's; or the arrays are of another architecture: names the first
        layer that differs, what it wants and what the file has, and the trunk that they do fit;
        or they were converted for another trunk; or one is not of finite floating-point numbers.
    """
    trunk = trunk or trunks.find(name)
    arrays = dict(arrays)
    saved_for = str(arrays.pop(TRUNK_KEY, name))
    layout = max(layouts(name, trunk), key=lambda layout: _names_in(layout, arrays))
    if difference := _difference(layout, arrays):
        raise ValueError(
            f"these are not weights of {name}, looked for in the layout of {layout.name}: "
            f"{difference}. {_fitting(arrays)}"
        )
    if saved_for != name:
        raise ValueError(f"these weights were converted for {saved_for}, not for {name}")
    made = {path: leaf for source in layout.sources for path, leaf in _leaves(source, arrays)}
    taken = [
        Taken(source.layer, array, shape)
        for source in layout.sources
        for array, shape in source.arrays.items()
    ]
    left_out = [(array, arrays[array].shape) for array in layout.classifier if array in arrays]
    report = Report(name, layout.name, tuple(taken), tuple(left_out))
    return traverse_util.unflatten_dict(made, sep="/"), report


def load_params(name: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The parameters of the trunk `name` from a file, published or converted, as NumPy arrays.

    Raises:
      ValueError: as `convert`, and names the file.
      DataNotFoundError: there is no such file.
      DataDamagedError: it cannot be read.
    """
    return _read(name, path)[0]


def convert_file(name: str, file: Path, out: Path) -> Report:
    """Write the parameters of the trunk `name`, from a published file, as an npz.

    Raises:
      ValueError: as `load_params`; or `out` is no .npz.
    """
    if out.suffix != ".npz":
        raise ValueError(f"what is converted is written as .npz; got {out}")
    params, report = _read(name, file)
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **{TRUNK_KEY: np.array(name)}, **flat)
    write_whole(out, content.getvalue())
    return report


def _read(name: str, path: str | os.PathLike[str]) -> tuple[dict[str, Any], Report]:
    """What `convert` makes of a file."""
    trunks.find(name)
    arrays = read_weights(path)
    try:
        return convert(name, arrays)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _names_in(layout: Layout, arrays: Mapping[str, np.ndarray]) -> int:
    """How many of the names that a layout wants are there."""
    return sum(name in arrays for source in layout.sources for name in source.arrays)


def _difference(layout: Layout, arrays: Mapping[str, np.ndarray]) -> str:
    """The first layer for which the arrays are not what the layout wants; "" if there is none."""
    for source in layout.sources:
        for name, shape in source.arrays.items():
            wants = f"the first layer that differs is {source.layer}, which wants {name} of shape"
            if name not in arrays:
                return f"{wants} {_text(shape)}; the file has no {name}"
            if arrays[name].shape != shape:
                return f"{wants} {_text(shape)}; the file's is {_text(arrays[name].shape)}"
    known = {name for source in layout.sources for name in source.arrays} | {*layout.classifier}
    left = [f"{name} {_text(array.shape)}" for name, array in arrays.items() if name not in known]
    if not left:
        return ""
    more = f" (and {len(left) - 1} more)" if left[1:] else ""
    return f"each layer has its arrays, but none takes {left[0]}{more}"


def _fitting(arrays: Mapping[str, np.ndarray]) -> str:
    """Which trunks the arrays are of."""
    fitting = [
        name
        for name, trunk in trunks.TRUNKS.items()
        if any(not _difference(layout, arrays) for layout in layouts(name, trunk))
    ]
    if fitting:
        return f"They fit {' and '.join(fitting)}"
    return f"They fit none of {', '.join(trunks.TRUNKS)}"


def _leaves(source: Source, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """(path, leaf) of a layer's kernel and bias."""
    given = [arrays[name] for name in source.arrays]
    for name, array in zip(source.arrays, given, strict=True):
        # jnp's, because NumPy does not count bfloat16 among the floating-point numbers.
        if not jnp.issubdtype(array.dtype, jnp.floating) or not np.isfinite(array).all():
            raise ValueError(
                f"layer {source.layer} wants finite floating-point numbers; {name} is "
                f"{array.dtype}{' with NaN or infinity' if array.dtype.kind == 'f' else ''}"
            )
    for leaf, made in zip(("kernel", "bias"), source.make(*given), strict=True):
        yield f"{source.layer}/{leaf}", np.ascontiguousarray(made, np.float32)


def _text(shape: tuple[int, ...]) -> str:
    """(64, 3, 11, 11) as 64×3×11×11."""
    return "×".join(map(str, shape)) or "scalar"
