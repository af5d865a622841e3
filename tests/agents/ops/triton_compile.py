"""Compiles every Triton kernel for an H100, which needs no GPU; ``test_triton_compiles.py`` runs it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from agents.ops import triton_ops
from rss_env.rewards.counting import triton as count_triton

TARGET = GPUTarget("cuda", 90, 32)
POINTERS = {
    "maps": "*u8",
    "truth": "*u8",
    "rows": "*u8",
    "seed": "*i64",
    "offset": "*i64",
    "owner": "*i64",
    "order": "*i64",
    "begin": "*i64",
}
FLOATS = {"coldness": "fp32"}
INTEGERS = ("samples", "classes", "pixels", "width", "cell", "columns", "blocks", "per_pixel")
CASES: list[tuple[Any, str, dict[str, int]]] = [  # kernel, type of what it writes, constants
    (triton_ops._draw, "*u8", {"BLOCK": 128, "GROUPS": 8}),
    (triton_ops._draw, "*u8", {"BLOCK": 128, "GROUPS": 4}),
    (triton_ops._soft_counts, "*fp32", {"BLOCK": 128, "CLASSES": 32}),
    (triton_ops._class_credit, "*fp32", {"BLOCK": 128, "CLASSES": 32}),
    (triton_ops._policy_gradient, "*fp32", triton_ops._tile(21)),
    (triton_ops._policy_gradient, "*fp32", triton_ops._tile(150)),
    (triton_ops._policy_gradient_backward, "logits", triton_ops._tile(21)),
    (triton_ops._policy_gradient_backward, "logits", triton_ops._tile(150)),
    (count_triton._count, "*i64", {"BLOCK": count_triton.MOST, "BINS": 64}),
    (count_triton._count, "*i64", {"BLOCK": count_triton.MOST, "BINS": 512}),
]


def compile_kernel(kernel: Any, out: str, constants: dict[str, int], logits: str) -> None:
    """Compiles a kernel whose arguments have the types that the wrappers give them."""
    constants = dict(constants)
    options = {"num_warps": constants.pop("num_warps", 4)}
    out = logits if out == "logits" else out
    types = {"out": out, "codes": out, "logits": logits, **POINTERS, **FLOATS}
    names = [name for name in kernel.arg_names if name not in constants]
    signature = {
        name: types.get(name, "i32" if name in INTEGERS or name.endswith("stride") else "*fp32") for name in names
    }
    source = ASTSource(fn=kernel, signature=signature | dict.fromkeys(constants, "constexpr"), constexprs=constants)
    binary = triton.compile(source, target=TARGET, options=options).asm["cubin"]
    assert len(binary) > 1000
    registers, stack, local = resources(binary)
    assert stack == local == 0  # nothing is spilled
    print(f"{kernel.__name__} {logits if 'logits' in names else ''} {constants} {registers} registers a thread")


def resources(binary: bytes) -> list[int]:
    """Registers, stack and local memory of a thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [int(re.findall(rf"{name}:(\d+)", said)[-1]) for name in ("REG", "STACK", "LOCAL")]


if __name__ == "__main__":
    for kernel, out, constants in CASES:
        for logits in ("*fp32", "*bf16", "*fp16") if "logits" in kernel.arg_names else ("",):
            compile_kernel(kernel, out, constants, logits)
