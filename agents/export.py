"""Write a checkpoint for other programs.

    python -m agents.export RUN_DIR --format onnx --out policy.onnx

``torchscript`` and ``onnx`` are one file, ``folder`` is what the Hugging Face hub shows as a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from .networks.policy import load
from .training.command import run_command


@dataclass
class ExportArguments:
    """Write a checkpoint for other programs."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """run folder (its newest checkpoint), checkpoint or exported folder, .safetensors file, or hub:USER/NAME"""
    out: str
    """file, or new folder, that is written"""
    format: Literal["torchscript", "onnx", "folder"] = "folder"
    """TorchScript, ONNX, or a folder with weights, description and model card"""
    balance: float | None = None
    """how much rare classes are favoured, 0 or more: 0.5 for a higher mean IoU; default: as it was exported, or 0"""


def main() -> int:
    """Runs the command line."""
    args = tyro.cli(ExportArguments, prog="python -m agents.export")
    print(load(args.checkpoint, balance=args.balance).export(args.out, args.format))
    return 0


if __name__ == "__main__":
    run_command(main)
