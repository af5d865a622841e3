"""What the Triton kernels need of an H100, found by compiling them for it; no GPU is needed.

    python -m benchmarks.kernel_resources

For every kernel and number of classes: registers of a thread, the bytes of its stack and of its local memory, which are
0 where nothing is spilled, and the shared memory of a program. What is compiled is what the operations launch for 16
images of 512×512 pixels with 32 label maps each: they get tensors without memory, and in place of each kernel a record
of its launches.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import tyro

from agents.scores.packing import packed_bytes
from agents.training.command import run_command
from benchmarks.results_file import RESULTS, Table, add_rows, check_writable, commit, read_rows
from rss_env.errors import OptionError

Size = tuple[int, int, int, int, int]  # B, K, C, H, W
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TYPES = {torch.uint8: "*u8", torch.int32: "*i32", torch.int64: "*i64"} | {
    dtype: f"*{name}" for name, dtype in DTYPES.items()
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
RESULTS_FILE = RESULTS / "kernels_sm90.csv"


@dataclass
class ResourceArguments:
    """Compile the Triton kernels for an H100 and write what they need of it."""

    classes: tuple[int, ...] = (5, 21, 64, 150, 255)
    """numbers of classes"""
    dtypes: tuple[str, ...] = tuple(DTYPES)
    """dtypes of the logits"""
    out: str = str(RESULTS_FILE)
    """results file"""


@dataclass
class Launch:
    """A launch of a kernel that was recorded in its place.

    Attributes:
        kernel: what would have run.
        grid: programs along each axis.
        arguments: by name, constants included.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]


@contextlib.contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches of the kernels, none of which runs meanwhile."""
    from agents.ops import triton_ops
    from rss_env.rewards.counting import triton as count_triton

    launches: list[Launch] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            def launch(*positional: Any, **constants: Any) -> None:
                named = dict(zip(self.kernel.arg_names, positional, strict=False))
                launches.append(Launch(self.kernel, grid, named | constants))

            return launch

    with contextlib.ExitStack() as stack:
        for name in OPERATIONS:
            module = count_triton if name == "count" else triton_ops
            kernel = getattr(module, f"_{name}")
            stack.enter_context(mock.patch.object(module, f"_{name}", Recorder(kernel)))
        yield launches


def empty(*shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def draw(size: Size, logits: torch.Tensor) -> Any:
    """Draws label maps."""
    from agents.ops import triton_ops

    seed, offset = empty(1, dtype=torch.int64), empty(2, dtype=torch.int64)
    return triton_ops.sample_label_maps(logits, size[1], seed, 2.0, 1, offset)


def soft_counts(size: Size, logits: torch.Tensor) -> Any:
    """Counts what probabilities expect."""
    from agents.ops import triton_ops

    rows = size[0] * size[1]
    return triton_ops.soft_counts(logits.float(), empty(rows, *size[3:]), empty(rows, dtype=torch.int64))


def class_credit(size: Size, logits: torch.Tensor) -> Any:
    """Credits classes."""
    from agents.ops import triton_ops

    rows = size[0] * size[1]
    weights = empty(rows, size[2], dtype=torch.float32)
    return triton_ops.class_credit(empty(rows, *size[3:]), empty(rows, dtype=torch.int64), weights, size[0])


def policy_gradient(size: Size, logits: torch.Tensor) -> Any:
    """The loss, its advantages one a pixel."""
    from agents.ops import triton_ops

    maps = empty(size[0], size[1], *size[3:])
    return triton_ops.policy_gradient(logits, maps, torch.empty_like(maps, dtype=torch.float32))


def policy_gradient_backward(size: Size, logits: torch.Tensor) -> Any:
    """Its gradient."""
    from agents.ops import triton_ops

    weights = empty(size[0], *size[2:], dtype=torch.float32)
    return triton_ops.policy_gradient_backward(logits, weights, empty(2, dtype=torch.float32))


def count(size: Size, logits: torch.Tensor) -> Any:
    """Counts label maps and targets."""
    from rss_env.rewards.counting import triton as count_triton

    batch, samples, classes, height, width = size
    return count_triton.count_labels(empty(batch, samples, height * width), empty(batch, height * width), classes)


def pack_labels(size: Size, logits: torch.Tensor) -> Any:
    """Packs the label maps of an image."""
    from agents.ops import triton_ops

    return triton_ops.pack_labels(empty(size[1], *size[3:]), size[2])


def unpack_labels(size: Size, logits: torch.Tensor) -> Any:
    """Unpacks the label maps of every image."""
    from agents.ops import triton_ops

    batch, samples, classes, height, width = size
    numbers = empty(packed_bytes(samples * height * width, classes) // 4, dtype=torch.int32)
    return triton_ops.unpack_labels(empty(batch, samples, height, width), [numbers] * batch, classes)


OPERATIONS: dict[str, Callable[[Size, torch.Tensor], Any]] = {  # by the name of the kernel
    "draw": draw,
    "soft_counts": soft_counts,
    "class_credit": class_credit,
    "policy_gradient": policy_gradient,
    "policy_gradient_backward": policy_gradient_backward,
    "count": count,
    "pack_labels": pack_labels,
    "unpack_labels": unpack_labels,
}
NO_LOGITS = ("class_credit", "count", "pack_labels", "unpack_labels")


def variants(name: str, dtypes: Sequence[str]) -> list[tuple[str, str]]:
    """Dtypes and memory formats of the (B, C, H, W) tensor that an operation reads; empty words if it reads none."""
    if name in NO_LOGITS:
        return [("", "")]
    return list(itertools.product(("fp32",) if name == "soft_counts" else dtypes, FORMATS))


def launch_of(name: str, size: Size, dtype: str = "fp32", layout: str = "contiguous") -> Launch:
    """What an operation launches for logits of a dtype and memory format."""
    logits = empty(size[0], *size[2:], dtype=DTYPES[dtype]).to(memory_format=FORMATS[layout])
    with recorded() as launches:
        OPERATIONS[name](size, logits)
    (launch,) = launches
    return launch


def compile_launch(launch: Launch) -> dict[str, int]:
    """Compiles a kernel with what Triton knows of its arguments at a launch: types, ones, and multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, multiples = {}, {}, {}
    for number, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr or (isinstance(value, int) and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32" if value < 2**31 else "i64"
        if isinstance(value, torch.Tensor) or value % 16 == 0:  # the allocator begins every tensor at such a multiple
            multiples[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=multiples)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = (int(re.findall(rf"{name}:(\d+)", said)[-1]) for name in ("REG", "STACK", "LOCAL"))
    return {
        "registers": registers,
        "stack_bytes": stack,
        "local_bytes": local,
        "shared_bytes": compiled.metadata.shared,
    }


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(ResourceArguments, prog="python -m benchmarks.kernel_resources")
    if not set(args.dtypes) <= set(DTYPES):
        raise OptionError(f"dtypes are {', '.join(DTYPES)}, got {', '.join(args.dtypes)}.")
    if not all(2 <= classes <= 255 for classes in args.classes):
        raise OptionError(f"classes are 2 to 255, got {', '.join(map(str, args.classes))}.")
    check_writable(Path(args.out))
    import triton

    rows = []
    for name, classes in itertools.product(OPERATIONS, args.classes):
        for dtype, layout in variants(name, args.dtypes):
            launch = launch_of(name, (16, 32, classes, 512, 512), dtype or "fp32", layout or "contiguous")
            what = {"kernel": name, "classes": classes, "logits": dtype, "layout": layout}
            rows.append(what | compile_launch(launch) | {"triton": triton.__version__, "commit": commit()})
            print(*rows[-1].values(), flush=True)
    add_rows(Path(args.out), rows, ["kernel", "classes", "logits", "layout"])


def resources_table() -> Table:
    """Of every kernel the registers of a thread by number of classes, and the most stack and shared memory."""
    rows = read_rows(RESULTS_FILE)
    numbers = sorted({int(row["classes"]) for row in rows})
    lines = [["kernel", *(f"C = {number}" for number in numbers), "stack, bytes", "shared memory, KiB"]]
    for name in dict.fromkeys(row["kernel"] for row in rows):
        mine = [row for row in rows if row["kernel"] == name]
        registers = [max(int(row["registers"]) for row in mine if int(row["classes"]) == number) for number in numbers]
        spilled = max(int(row["stack_bytes"]) + int(row["local_bytes"]) for row in mine)
        shared = max(int(row["shared_bytes"]) for row in mine) / 1024
        lines.append([name.replace("_", " "), *map(str, registers), str(spilled), f"{shared:.1f}"])
    return lines


if __name__ == "__main__":
    run_command(main)
