"""A server that sends bytes as they are, whether they are HTTP or not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


class RawServer:
    """Sends bytes as they come from a generator, which gets the number of the connection, and a pause between them."""

    def __init__(self, pieces: Callable[[int], Iterator[bytes]], pause: float) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/voc.tar"
        self.pieces, self.pause, self.connections = pieces, pause, 0
        self.closed = threading.Event()
        self.threads = [threading.Thread(target=self._listen)]
        self.threads[0].start()

    def _listen(self) -> None:
        while not self.closed.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self._serve, args=(connection, self.connections)))
            self.connections += 1
            self.threads[-1].start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            try:
                connection.settimeout(5.0)
                connection.recv(1 << 16)
                for piece in self.pieces(number):
                    connection.sendall(piece)
                    if self.closed.wait(self.pause):
                        return
            except OSError:
                pass  # the client has gone

    def close(self) -> None:
        self.closed.set()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join()
