"""The vector environment on a torch device: tensors in and out, and the decoded data set on the same device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rss_env.torch_task import TorchSegmentationTask
from rss_env.vector import SegmentationVectorEnv


class TorchSegmentationVectorEnv(SegmentationVectorEnv):
    """``SegmentationVectorEnv`` with torch tensors: under the same seed the same images, and rewards equal to the bit.

    ``gym.make_vec(id, num_envs=B, device="cuda")`` makes it. Observations, rewards, terminations and all arrays in
    ``infos`` are tensors on ``device``; ``infos["final_obs"]`` is one too, uint8 (B, H, W, 3). Only ``index``,
    ``flipped`` and ``crop`` (and their masks ``_index`` and so on) are always CPU tensors: the host decides which
    images come next, and an agent that remembers something of each image reads them without waiting. Label maps may be
    tensors of any device or NumPy arrays; those that are already on the device and uint8 cost least. No step waits for
    the device, and torch's random generators are neither used nor changed. Hence labels outside 0..C-1 in tensors on an
    accelerator raise ``InvalidAction`` in a later call; those of host arrays do at once. Only ``close``, pictures (a
    ``render_mode``) and callable rewards wait. All work goes to the stream that is current; whoever changes it between
    calls has to order the streams, as with any module. ``envs.metadata["device"]`` is the device's name, such as
    ``"cuda:0"``.

    Args:
        dataset: name of the data set.
        level: ``"image"`` or ``"pixel"``.
        device: torch device, such as ``"cuda"`` or ``"cpu"``.
        cache: ``"device"`` keeps the decoded data set on the device; ``"host"`` keeps it in host memory and copies each
            step's images through pinned memory, for data sets larger than the device's memory.
        **options: as for ``SegmentationVectorEnv``.

    Raises:
        UnknownArgumentError: there is no argument of that name; an ``OptionError`` and a ``TypeError``.
        OptionError: an argument is not among the valid values, no such device, or no room on it for the data set.
        DatasetError: the data set is missing, incomplete or corrupt.

    Example:
        >>> envs = gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=3, device="cpu", image_size=(32, 32))
        >>> images, _ = envs.reset(seed=0)
        >>> images, rewards, *_ = envs.step(torch.zeros(3, 32, 32, dtype=torch.uint8))
        >>> images.shape, rewards.dtype
        (torch.Size([3, 32, 32, 3]), torch.float64)
    """

    task_class = TorchSegmentationTask
    _task: TorchSegmentationTask

    def __init__(self, dataset: str = "Shapes", level: str = "image", *, device: str = "cpu", **options: Any) -> None:
        super().__init__(dataset, level, device=device, **options)
        self.device = self._task.device

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As ``SegmentationVectorEnv.reset``; seeds and options may be tensors, which are copied to the host."""
        self._task.check_earlier()
        if isinstance(options, Mapping):
            options = {key: _host(value) for key, value in options.items()}
        return super().reset(seed=_host(seed), options=options)

    def close(self, **kwargs: Any) -> None:
        """Closes, waits for the device, and raises ``InvalidAction`` for labels outside 0..C-1 not yet reported."""
        super().close(**kwargs)
        self._task.check_earlier(wait=True)

    def _give(self, array: np.ndarray) -> torch.Tensor:
        if array.dtype == bool and (array.all() or not array.any()):
            return torch.full(array.shape, bool(array[0]), device=self.device)  # cheaper than a copy from the host
        return self._task.to_device(array)

    def _give_on_host(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array.copy())

    def _host_copy(self, array: torch.Tensor) -> np.ndarray:
        return super()._host_copy(array.cpu().numpy())


def _host(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value
