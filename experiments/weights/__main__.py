"""`python -m experiments.weights NAME FILE OUT.npz`: published weights as a trunk's parameters."""

import sys
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape

from experiments.data.types import DataNotFoundError
from experiments.weights import convert_file


def convert(
    name: tyro.conf.Positional[str],
    file: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
) -> None:
    """Write published weights as a trunk's parameters, and say which layer took which array.

    Args:
      name: The trunk: alexnet, vgg16, squeezenet1_0, squeezenet1_0_caffe, squeezenet1_1 or
        tiny_darknet.
      file: The weights: .pth, .safetensors or .npz. Nothing in it is executed.
      out: Where the parameters go, as .npz.
    """
    print(convert_file(name, file, out))
    print(f"written: {out}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command; on bad input say what is wrong and exit with status 2."""
    try:
        tyro.cli(convert, prog="python -m experiments.weights", args=arguments)
    except (ValueError, OSError, DataNotFoundError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
