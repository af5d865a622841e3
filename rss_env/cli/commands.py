"""The subcommands and their arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tyro

from rss_env.cli.check import check
from rss_env.cli.convert import convert
from rss_env.cli.download import download
from rss_env.cli.info import info
from rss_env.cli.list_ids import list_ids
from rss_env.cli.render import render

COMMANDS: dict[str, Callable[..., int]] = {
    "list": list_ids,
    "info": info,
    "check": check,
    "convert": convert,
    "render": render,
    "download": download,
}


def run(command: Sequence[str]) -> int:
    """Parses the words after ``rss-env`` and runs their command; returns the exit code."""
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="rss-env",
        description="The environments of semantic segmentation from rewards: what there is, and the data they need.",
        args=list(command),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
