"""One call at a time: what tells two threads that they are using one environment."""

from __future__ import annotations

from rss_env.errors import AlreadyPendingCallError


class Turn:
    """Lets one call of ``reset`` or ``step`` into an environment at a time; used as ``with turn:``.

    A token that is taken and given back, as ``list.pop`` and ``list.append`` are atomic. A ``threading.Lock`` would do
    the same, but environments are copied and pickled, and a lock cannot be.
    """

    def __init__(self) -> None:
        self._token = [True]

    def __enter__(self) -> None:
        try:
            self._token.pop()
        except IndexError:
            raise AlreadyPendingCallError(
                "reset() or step() was called while another call was at work in the same environment: two threads share"
                " it, or a reward callable uses it. Make an environment for each thread; one that is shared needs a"
                " lock held from reset() to step(), as the score is that of the image shown last.",
                "turn",
            ) from None

    def __exit__(self, *_: object) -> None:
        self._token.append(True)
