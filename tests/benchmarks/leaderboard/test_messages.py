from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.leaderboard import messages
from benchmarks.leaderboard.messages import BadMessage, Channel

DAMAGED = 300  # damaged messages; 20,000 were tried once


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


def exchange(kind: str, value: Any) -> tuple[str, Any]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sending = threading.Thread(target=Channel(ours).send, args=(kind, value))
        sending.start()
        received = Channel(theirs).receive(seconds=20)
        sending.join()
        return received


def message(kind: str, value: Any) -> bytes:
    """The bytes of a small message."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(ours).send(kind, value)
        return theirs.recv(1 << 20)


@given(
    hnp.arrays(
        st.sampled_from([np.dtype(name).newbyteorder(order) for name in messages.DTYPES for order in "<>"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_an_array_arrives_as_it_was(array: np.ndarray) -> None:
    kind, value = exchange("step", {"a": [array.T, 1, None], "b": "text"})
    assert kind == "step"
    assert value["b"] == "text"
    given, *others = value["a"]
    assert others == [1, None]
    assert given.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(given, array.T)
    assert given.flags.writeable


def test_large_arrays_pass_through_a_small_buffer() -> None:
    array = np.random.default_rng(0).integers(0, 255, (64, 300, 301), np.uint8)[:, ::2]
    np.testing.assert_array_equal(exchange("images", (array, {"index": np.arange(3)}))[1][0], array)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "A object cannot be sent"),
        (np.array([None]), "An array of object cannot be sent"),
        (np.array(["a"]), "An array of <U1 cannot be sent"),
        (1j, "A complex cannot be sent"),
        (np.datetime64("2020-01-01"), "A date cannot be sent"),
        ({1, 2}, "A set cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_named_and_nothing_is_sent(
    ends: tuple[Channel, socket.socket], value: object, said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        ends[0].send("step", value)
    with pytest.raises(BlockingIOError):
        ends[1].recv(1, socket.MSG_DONTWAIT)


def test_no_bytes_are_more_than_no_message() -> None:
    """A message that is damaged, cut, or made of noise gives a value or one of three errors, in a limited time."""
    whole = message("step", {"maps": np.arange(24, dtype=np.int16).reshape(2, 3, 4), "seed": [1, None, "x"]})
    rng = random.Random(0)
    for _ in range(DAMAGED):
        data = bytearray(whole)
        if rng.random() < 0.2:
            data = bytearray(rng.randbytes(rng.randrange(1, 200)))
            data[:3] = bytes(3)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.choice([rng.randrange(256), *b'0123456789[]{}",:-'])
        data = data[: rng.randrange(1, len(data) + 1)] if rng.random() < 0.3 else data
        ours, theirs = socket.socketpair()
        with theirs, ours:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            try:
                kind, _ = Channel(ours).receive(seconds=5, largest=4096)
                assert isinstance(kind, str)
            except (BadMessage, ConnectionError):
                pass


@pytest.mark.parametrize(
    "head",
    [
        {"kind": "step", "value": {"__array__": 1}, "arrays": [["int8", [1]]]},
        {"kind": "step", "value": {"__array__": "x"}, "arrays": [["int8", [1]]]},
        {"kind": "step", "value": None, "arrays": [["int8", [-1]]]},
        {"kind": "step", "value": None, "arrays": [["int8", [True]]]},
        {"kind": "step", "value": None, "arrays": [["int8", [1.0]]]},
        {"kind": "step", "value": None, "arrays": [["int8", "1"]]},
        {"kind": "step", "value": None, "arrays": [["object", [1]]]},
        {"kind": "step", "value": None, "arrays": [["V8", [1]]]},
        {"kind": "step", "value": None, "arrays": [[["int8"], [1]]]},
        {"kind": "step", "value": None, "arrays": [["int8"]]},
        {"kind": "step", "value": None, "arrays": [["int8", [1] * 65]]},
        {"kind": "step", "value": None, "arrays": [["int64", [(1 << 48) - 1, 0]]]},
        {"kind": "step", "value": None, "arrays": [["int8", [1 << 47, 1 << 47]]]},
        {"kind": "step", "value": None, "arrays": 3},
        {"kind": None, "value": None, "arrays": []},
        {"kind": "step", "arrays": []},
        ["step", None, []],
        7,
    ],
    ids=json.dumps,
)
def test_a_head_that_lies_is_no_message(ends: tuple[Channel, socket.socket], head: object) -> None:
    text = json.dumps(head).encode()
    ends[1].sendall(len(text).to_bytes(4, "big") + text + bytes(64))
    if isinstance(head, dict) and head.get("arrays") == [["int64", [(1 << 48) - 1, 0]]]:
        ends[0].receive(seconds=1, largest=64)  # nothing in it
        return
    with pytest.raises(BadMessage):
        ends[0].receive(seconds=1, largest=64)


def times_out(call: Callable[[], object]) -> bool:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        call()
    return time.monotonic() - began < 10


def test_every_wait_has_a_limit(ends: tuple[Channel, socket.socket]) -> None:
    channel, stream = ends
    assert times_out(lambda: channel.receive(seconds=0.05))
    assert times_out(lambda: channel.send("images", np.zeros(1 << 24, np.uint8), seconds=0.05))
    whole = message("step", np.zeros(100))
    for cut in (2, 4, 20, len(whole) - 1):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(whole[:cut])
            assert times_out(lambda end=ours: Channel(end).receive(seconds=0.05))  # type: ignore[misc]
    stream.close()
    with pytest.raises(ConnectionError):
        channel.receive()
    with pytest.raises(ConnectionError):
        channel.send("more")


def test_what_was_sent_before_the_end_is_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:  # something else holds the other end open
        Channel(theirs).send("done")
        channel = Channel(ours, is_gone=lambda: True)
        assert channel.receive() == ("done", None)
        with pytest.raises(ConnectionError):
            channel.receive()
