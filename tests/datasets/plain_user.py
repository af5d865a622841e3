"""Runs a function as a user whom file permissions bind, also where the tests run as root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

LINUX_CAPABILITY_VERSION_3 = 0x20080522


def as_plain_user(function: Callable[[], Result]) -> Result:
    """What the function gives in a thread without root's privileges, which its own threads inherit."""
    with ThreadPoolExecutor(1, initializer=_drop_privileges) as pool:
        return pool.submit(function).result()


def _drop_privileges() -> None:
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)  # only Linux has capset, and it only affects the calling thread
    header, none = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")
