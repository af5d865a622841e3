"""The command line, ``rss-env``; importing this needs none of the libraries of the extra ``cli``, running it does."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence

from rss_env.errors import DatasetError, InvalidAction, JudgeError, OptionError

EXTRA = ("docstring_parser", "pooch", "requests", "rich", "tqdm", "tyro")


def main(command: Sequence[str] | None = None) -> int:
    """Runs one command; an error on the user's side is a message on stderr, never a traceback.

    Args:
        command: the words after ``rss-env``; None: those of the process.

    Returns:
        Exit code: 0 done, 1 ``check`` found problems, 2 the command cannot run as given, 130 interrupted, 141 the
        reader of the output has gone.

    Raises:
        SystemExit: with 0 after ``--help``, with 2 if the words are not understood.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show must not fail the command
    if "" not in sys.path:
        sys.path.append("")  # the current folder, where python -m looks too: for a reward given as module:function
    try:
        from rss_env.cli.commands import run

        code = run(sys.argv[1:] if command is None else command)
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in EXTRA:
            raise
        return _fail(f"rss-env needs {error.name.split('.')[0]}, which is not installed: pip install 'rss-env[cli]'")
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # the interpreter flushes once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (
        OptionError,
        DatasetError,
        InvalidAction,
        JudgeError,
        OSError,
    ) as error:  # OSError: a file that may not be written
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
