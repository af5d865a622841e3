"""The images, the check of an action and its score on one torch device, without waiting for the device."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from rss_env.arguments import check_choice
from rss_env.errors import InvalidAction, OptionError
from rss_env.spaces import check_form
from rss_env.task import SegmentationTask

CACHES = ("device", "host")
WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch stores and converts them, and does little else
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *WIDE_UNSIGNED)


class TorchSegmentationTask(SegmentationTask):
    """``SegmentationTask`` with tensors in and out.

    Args:
        dataset: name of the data set.
        level: ``"image"`` or ``"pixel"``.
        device: torch device on which label maps, scores and images are.
        cache: where the decoded data set stays: ``"device"``, or ``"host"`` for one larger than the device's memory:
            each step's images then are gathered in pinned host memory and copied asynchronously.
        **options: as for ``SegmentationTask``.

    Raises:
        OptionError: no such device here, an unknown ``cache``, or a data set that does not fit into its memory.
    """

    def __init__(self, dataset: str, level: str, *, device: str = "cpu", cache: str = "device", **options: Any) -> None:
        self.device = _check_device(device)
        check_choice("cache", cache, CACHES)
        self.cache = cache
        super().__init__(dataset, level, **options)

    @property
    def on_host(self) -> bool:
        """Whether the device is the CPU, where looking at values waits for nothing."""
        return self.device.type == "cpu"

    def metadata(self) -> dict[str, Any]:
        """As ``SegmentationTask.metadata``, with the name of the device."""
        return super().metadata() | {"device": str(self.device)}

    @torch.inference_mode(False)  # a tensor made in inference mode could not be changed outside it
    def _attach(self) -> None:
        super()._attach()
        self._sent: tuple[np.ndarray, torch.Tensor] | None = None
        self._images, self._targets = (None if a is None else _wrap(a) for a in (self._images, self._targets))
        self._target_counts = torch.from_numpy(self._target_counts).to(self.device)
        self._outside_seen = torch.zeros((), dtype=torch.bool, device=self.device)
        self._outside_known = self._staging((), torch.bool).fill_(False)
        if self.cache == "device" and not self.on_host:
            self._check_memory()
            self._images, self._targets = (
                None if a is None else a.to(self.device) for a in (self._images, self._targets)
            )

    def __getstate__(self) -> dict[str, Any]:
        derived = ("_sent", "_outside_seen", "_outside_known")
        return {name: value for name, value in super().__getstate__().items() if name not in derived}

    def _check_memory(self) -> None:
        if self.device.type != "cuda":
            return
        needed = sum(array.nbytes for array in (self._images, self._targets) if array is not None)
        free = torch.cuda.mem_get_info(self.device)[0]
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)  # kept by torch
        if needed > free:
            raise OptionError(
                f"{self.dataset.name} takes {needed / 2**30:.1f} GiB decoded, but {self.device} has "
                f"{free / 2**30:.1f} GiB free. Pass cache='host' to keep it in host memory, or a smaller image_size."
            )

    def _staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Fresh host memory from which, or to which, the device copies without anyone waiting."""
        return torch.empty(shape, dtype=dtype, device="cpu", pin_memory=self.device.type == "cuda")

    def to_device(self, array: np.ndarray) -> torch.Tensor:
        """A copy of a host array on the device; on CUDA nothing waits for it, and the array may change at once."""
        if self.on_host:
            return torch.from_numpy(np.array(array))
        host = _wrap(array)
        # Not pin_memory(): of memory that is pinned already it makes no copy, and the owner may overwrite it too early.
        return self._staging(host.shape, host.dtype).copy_(host).to(self.device, non_blocking=True)

    def send(self, array: np.ndarray) -> torch.Tensor:
        """As ``to_device``, for reading only: what equals the array sent last is not sent again."""
        if self._sent is None or not np.array_equal(self._sent[0], array):
            self._sent = array.copy(), self.to_device(array)
        return self._sent[1]

    def _gather(
        self, data: torch.Tensor, indices: np.ndarray, flipped: np.ndarray, crops: np.ndarray | None
    ) -> torch.Tensor:
        if self.on_host:
            return torch.from_numpy(super()._gather(data.numpy(), indices, flipped, crops))
        if self.cache == "device":
            index = self.send(indices)
            if crops is None:
                batch = data.index_select(0, index)
            else:
                batch = self.augmentation.cut(data, index, crops, self.to_device)
        elif crops is None:
            staged = self._staging((len(indices), *data.shape[1:]), data.dtype)
            torch.index_select(data, 0, torch.from_numpy(indices), out=staged)
            batch = staged.to(self.device, non_blocking=True)
        else:
            batch = self.to_device(self.augmentation.cut(data.numpy(), indices, crops))
        if flipped.any():
            mirrored = self.to_device(flipped).view(-1, *[1] * (batch.ndim - 1))
            batch = torch.where(mirrored, batch.flip(2), batch)
        return batch

    def final_images(self, indices: np.ndarray, flipped: np.ndarray, crops: np.ndarray | None = None) -> torch.Tensor:
        """The images as final observations: a tensor of their own, uint8 (B, H, W, 3)."""
        return self.images(indices, flipped, crops)

    def _remember_counts(self, indices: np.ndarray, counts: torch.Tensor) -> None:
        self._target_counts.index_copy_(0, self.send(indices), counts)

    def _known_counts(self, indices: np.ndarray) -> torch.Tensor:
        return self._target_counts.index_select(0, self.send(indices))

    def _grade(
        self, label_maps: torch.Tensor, indices: np.ndarray, flipped: np.ndarray, crops: np.ndarray | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        known = self._count_targets(indices) if crops is None else None
        targets = self.targets(indices, flipped, crops)
        if not self.on_host:
            return self._grade_against(label_maps, targets, known)
        # NumPy gives the same bits over the same memory, and costs less for each of these small operations.
        counts = None if known is None else known.numpy()
        scores, pixel_reward = self._grade_against(label_maps.numpy(), targets.numpy(), counts)
        return torch.from_numpy(scores), None if pixel_reward is None else torch.from_numpy(pixel_reward)

    def check_label_maps(self, actions: Any, batch: tuple[int, ...]) -> torch.Tensor:
        """Turns actions of shape ``batch + map_shape`` into label maps, uint8 (B, K, H, W), on the device.

        Nothing waits for the values of tensors on an accelerator: labels outside 0..C-1 are scored as the nearest
        class, and the error comes with a later call. Those on the host are checked at once.

        Raises:
            InvalidAction: wrong shape, a dtype that is not integer, or a value outside 0..C-1, here or before.
        """
        self.check_earlier()
        if isinstance(actions, torch.Tensor):
            check_form(actions.shape, actions.dtype, actions.dtype in INTEGERS, (*batch, *self.map_shape))
            if not self.on_host and not actions.is_cpu:
                return self._check_later(actions)
            actions = actions.cpu().numpy()
        label_maps = super().check_label_maps(actions, batch)
        return _wrap(label_maps) if self.on_host else self.to_device(label_maps)

    def _check_later(self, actions: torch.Tensor) -> torch.Tensor:
        maps = actions.to(self.device, non_blocking=True)
        if maps.dtype in WIDE_UNSIGNED:
            maps = maps.long()  # the highest uint64 become negative, so they stay outside
        last = min(self.dataset.num_classes - 1, torch.iinfo(maps.dtype).max)
        label_maps = maps.clamp(0, last)
        self._outside_seen |= (label_maps != maps).any()
        self._outside_known.copy_(self._outside_seen, non_blocking=True)
        return label_maps.to(torch.uint8).reshape(-1, self.samples_per_image or 1, *self.augmentation.size)

    def check_earlier(self, wait: bool = False) -> None:
        """Raises ``InvalidAction`` if the labels of an earlier step are known to have been outside 0..C-1.

        Args:
            wait: wait for the device, so that every earlier step is known.
        """
        if wait:
            self._outside_known.copy_(self._outside_seen)
        if self._outside_known:
            # Waits: a copy that is still under way would report the same labels again.
            self._outside_known.copy_(self._outside_seen.zero_())
            raise InvalidAction(
                f"A label map of an earlier step held values outside 0..{self.dataset.num_classes - 1}. "
                'Make the environment with device="cpu" to see which.'
            )


def _check_device(device: Any) -> torch.device:
    try:
        if isinstance(device, bool):
            raise TypeError("a device is a string such as 'cuda', or a torch.device")
        checked = torch.device(device)
        torch.zeros(1, dtype=torch.float64, device=checked).cpu()  # some hold no float64, and "meta" nothing at all
    except (RuntimeError, TypeError, ValueError, OverflowError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"device={device!r} cannot be used here (device='cpu' can): {reason}") from None
    if checked.type == "cuda" and checked.index is None:
        checked = torch.device("cuda", torch.cuda.current_device())
    return checked


def _wrap(array: np.ndarray) -> torch.Tensor:
    """A tensor over the memory of an array, which may be read-only: nothing here writes to it."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)
