"""Policies on the Hugging Face hub, through its own library, which is imported when it is asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rss_env.errors import OptionError

from ..checksums import CHECKSUMS
from ..errors import CheckpointError
from .checkpoints import EXPORTED
from .exporting import to_folder
from .libraries import import_library, one_line

if TYPE_CHECKING:
    from .policy import Policy

HUB = "hub:"


def push(policy: Policy, repo_id: str, *, private: bool = False) -> str:
    """Puts a policy on the hub, as the folder that ``policy.export(path, "folder")`` writes.

    Args:
        policy: such as ``load("runs/voc")`` or ``result.policy``.
        repo_id: ``"USER/NAME"``; made if it is not there. You are who ``hf auth login`` says.
        private: whether a new one is for you only.

    Returns:
        What ``agents.load`` takes: ``"hub:USER/NAME"``.

    Raises:
        OptionError: ``huggingface_hub`` is not installed, or the hub refuses.
    """
    hub = import_library("huggingface_hub", "hub")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / repo_id.rpartition("/")[2]
        to_folder(policy, folder)
        try:
            hub.create_repo(repo_id, private=private, exist_ok=True)
            hub.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message="Policy of rss-env")
        except Exception as error:  # of the hub, of the network, of a name: the library has many
            raise OptionError(f"Cannot push to {repo_id}: {one_line(error)}") from error
    return HUB + repo_id


def fetch(name: str) -> Path:
    """The folder of ``"hub:USER/NAME"`` or ``"hub:USER/NAME@REVISION"``, in the hub library's cache.

    Raises:
        CheckpointError: there is no such model, or the hub cannot be reached.
        OptionError: ``huggingface_hub`` is not installed.
    """
    hub = import_library("huggingface_hub", "hub")
    repo_id, _, revision = name.removeprefix(HUB).partition("@")
    try:
        files = [EXPORTED, CHECKSUMS, "config.json"]
        return Path(hub.snapshot_download(repo_id, revision=revision or None, allow_patterns=files))
    except Exception as error:  # of the hub, of the network, of a name: the library has many
        raise CheckpointError(f"Cannot fetch {name}: {one_line(error)}") from error
