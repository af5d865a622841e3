"""Messages between the judge and an entry: JSON and the raw numbers of arrays, so reading one never runs anything.

A message is four bytes, the length of its head (big-endian); the head, a JSON object of ``kind``, ``value`` and
``arrays``, a list of [dtype, shape]; then the numbers of these arrays, one after the other in C order and in the byte
order of the machine. Where the value holds the i-th array, it has ``{"__array__": i}``.
"""

from __future__ import annotations

import json
import math
import select
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

HEAD = 1 << 20  # bytes, the longest head
DTYPES = {"bool", "float16", "float32", "float64"} | {f"{sign}int{8 << i}" for sign in ("", "u") for i in range(4)}
SLICE = 0.25  # seconds between two looks at how the other side is


class BadMessage(ValueError):
    """What came is no message; the text says what it is."""


class Channel:
    """One end of a stream socket between two processes.

    Args:
        stream: the socket.
        is_gone: called a few times a second while waiting: whether the other side has ended; it may also raise.
    """

    def __init__(self, stream: socket.socket, is_gone: Callable[[], bool] = lambda: False) -> None:
        stream.setblocking(False)
        self._stream, self._is_gone = stream, is_gone

    def send(self, kind: str, value: Any = None, seconds: float = math.inf) -> None:
        """Sends a message.

        Args:
            kind: of message.
            value: what JSON can hold, and arrays of numbers or bools.
            seconds: longest time that this may take.

        Raises:
            TypeError: the value cannot be sent.
            TimeoutError: the other side does not read it in time.
            ConnectionError: the other side has closed.
        """
        until = time.monotonic() + seconds
        arrays: list[np.ndarray] = []
        plain = json.dumps(value, default=lambda found: _plain(found, arrays))
        described = json.dumps([[array.dtype.name, array.shape] for array in arrays])
        head = f'{{"kind": {json.dumps(kind)}, "value": {plain}, "arrays": {described}}}'.encode()
        for part in (memoryview(len(head).to_bytes(4, "big") + head), *map(_bytes, arrays)):
            self._move(self._stream.send, select.POLLOUT, part, until)

    def receive(self, seconds: float = math.inf, largest: float = math.inf) -> tuple[str, Any]:
        """The next message, its kind and its value.

        Args:
            seconds: longest time until the whole of it is there.
            largest: bytes that its arrays may have.

        Raises:
            BadMessage: what came is no message, or its arrays are too large.
            TimeoutError: no whole message came in time.
            ConnectionError: the other side has closed.
        """
        until = time.monotonic() + seconds
        size = bytearray(4)
        self._read(memoryview(size), until)
        length = int.from_bytes(size, "big")
        if length > HEAD:
            raise BadMessage(f"a head of {length:,} bytes")
        text = bytearray(length)
        self._read(memoryview(text), until)
        try:
            head = json.loads(text)
            kind, value, described = head["kind"], head["value"], head["arrays"]
            forms = [(_dtype(name), _shape(shape)) for name, shape in described]
            if not isinstance(kind, str):
                raise TypeError
        except (ValueError, TypeError, LookupError, RecursionError):
            raise BadMessage("a head that is not JSON of a message") from None
        if sum(dtype.itemsize * math.prod(shape) for dtype, shape in forms) > largest:
            what = " and ".join(f"{dtype} {shape}" for dtype, shape in forms)
            raise BadMessage(f"{what}, which is more than {largest:,} bytes")
        try:
            arrays = [np.empty(shape, dtype) for dtype, shape in forms]
        except ValueError:  # 64 dimensions at most
            raise BadMessage("an array of an impossible shape") from None
        for array in arrays:
            self._read(_bytes(array), until)
        try:
            return kind, _filled(value, arrays)
        except (IndexError, TypeError, RecursionError):
            raise BadMessage("a value without its arrays") from None

    def _read(self, target: memoryview, until: float) -> None:
        self._move(self._receive_into, select.POLLIN, target, until)

    def _receive_into(self, view: memoryview) -> int:
        count = self._stream.recv_into(view)
        if not count:
            raise ConnectionError
        return count

    def _move(self, move: Callable[[memoryview], int], direction: int, view: memoryview, until: float) -> None:
        """Moves all bytes of a buffer through the socket."""
        done, gone = 0, False
        poll = select.poll()
        poll.register(self._stream, direction)
        while done < len(view):
            try:
                done += move(view[done:])
                continue
            except BlockingIOError:
                pass
            if gone:
                raise ConnectionError
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if not poll.poll(1000 * min(SLICE, left)):
                gone = self._is_gone()  # what it had written may still be there


def _plain(found: Any, arrays: list[np.ndarray]) -> Any:
    """JSON for what is none: NumPy's numbers, and a place for an array."""
    if isinstance(found, np.generic):
        return found.item()
    if not isinstance(found, np.ndarray):
        raise TypeError(f"A {type(found).__name__} cannot be sent: only numbers, text, lists, dicts and arrays.")
    if found.dtype.name not in DTYPES:
        raise TypeError(f"An array of {found.dtype} cannot be sent: only of numbers or bools.")
    arrays.append(np.asarray(found, found.dtype.newbyteorder("="), order="C"))
    return {"__array__": len(arrays) - 1}


def _bytes(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _dtype(name: Any) -> np.dtype:
    if name not in DTYPES:
        raise ValueError
    return np.dtype(name)


def _shape(shape: Any) -> tuple[int, ...]:
    if not all(type(side) is int and 0 <= side < 1 << 48 for side in shape):
        raise ValueError
    return tuple(shape)


def _filled(value: Any, arrays: list[np.ndarray]) -> Any:
    """The value with its arrays in their places."""
    if isinstance(value, list):
        return [_filled(item, arrays) for item in value]
    if isinstance(value, dict):
        if value.keys() == {"__array__"}:
            return arrays[value["__array__"]]
        return {name: _filled(item, arrays) for name, item in value.items()}
    return value


def uncopied(self: object, protocol: object) -> NoReturn:
    """``__reduce_ex__`` of what holds a channel: copies and pickles are refused."""
    raise TypeError(
        f"{type(self).__name__} is a connection to the judge and cannot be copied or pickled; give workers images and "
        "label maps, and call it where train(trial) runs."
    )
