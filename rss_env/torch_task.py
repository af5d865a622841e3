"""The images, the check of an action and its score on one torch device, without waiting for the device."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from rss_env.errors import InvalidAction, OptionError
from rss_env.task import SegmentationTask

CACHES = ("device", "host")
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


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
        if cache not in CACHES:
            raise OptionError(f"Unknown cache {cache!r}; valid: {', '.join(CACHES)}.")
        self.cache = cache
        super().__init__(dataset, level, **options)

    def _attach(self) -> None:
        super()._attach()
        self._waits = self.device.type == "cpu"  # there a check of values costs no wait for the device
        self._sent: tuple[np.ndarray, torch.Tensor] | None = None
        self._images, self._targets = (None if a is None else _wrap(a) for a in (self._images, self._targets))
        self._target_counts = torch.from_numpy(self._target_counts).to(self.device)
        self._outside_seen = torch.zeros((), dtype=torch.bool, device=self.device)
        self._outside_known = torch.zeros((), dtype=torch.bool, pin_memory=not self._waits)
        if self.cache == "device" and not self._waits:
            self._check_memory()
            self._images, self._targets = (
                None if a is None else a.to(self.device) for a in (self._images, self._targets)
            )

    def __getstate__(self) -> dict[str, Any]:
        derived = ("_waits", "_sent", "_outside_seen", "_outside_known")
        return {name: value for name, value in super().__getstate__().items() if name not in derived}

    def _check_memory(self) -> None:
        needed = sum(array.nbytes for array in (self._images, self._targets) if array is not None)
        free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else needed
        if needed > free:
            raise OptionError(
                f"{self.dataset.name} takes {needed / 2**30:.1f} GiB decoded, but {self.device} has "
                f"{free / 2**30:.1f} GiB free. Pass cache='host' to keep it in host memory, or a smaller image_size."
            )

    def send(self, array: np.ndarray) -> torch.Tensor:
        """A host array on the device, copied asynchronously; the one sent last is not sent again."""
        if self._sent is None or self._sent[0] is not array:
            self._sent = array, self.to_device(torch.from_numpy(array.copy()))
        return self._sent[1]

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """A host tensor on the device, copied asynchronously."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _gather(self, data: torch.Tensor, indices: np.ndarray, flipped: np.ndarray) -> torch.Tensor:
        if self._waits:
            return torch.from_numpy(super()._gather(data.numpy(), indices, flipped))
        if data.device == self.device:
            batch = data.index_select(0, self.send(indices))
        else:
            pinned = torch.empty((len(indices), *data.shape[1:]), dtype=data.dtype, pin_memory=True)
            torch.index_select(data, 0, torch.from_numpy(indices), out=pinned)
            batch = pinned.to(self.device, non_blocking=True)
        if flipped.any():
            mirrored = self.to_device(torch.from_numpy(flipped.copy())).view(-1, *[1] * (batch.ndim - 1))
            batch = torch.where(mirrored, batch.flip(2), batch)
        return batch

    def final_images(self, indices: np.ndarray, flipped: np.ndarray) -> torch.Tensor:
        """The images as final observations: a tensor of their own, uint8 (B, H, W, 3)."""
        return self.images(indices, flipped)

    def _remember_counts(self, indices: np.ndarray, counts: torch.Tensor) -> None:
        self._target_counts.index_copy_(0, self.send(indices), counts)

    def _known_counts(self, indices: np.ndarray) -> torch.Tensor:
        return self._target_counts.index_select(0, self.send(indices))

    def check_label_maps(self, actions: Any, batch: tuple[int, ...]) -> torch.Tensor:
        """Turns actions of shape ``batch + map_shape`` into label maps, uint8 (B, K, H, W), on the device.

        On an accelerator nothing waits for the values: labels outside 0..C-1 are scored as the nearest class, and the
        error comes with a later call.

        Raises:
            InvalidAction: wrong shape, a dtype that is not integer, or a value outside 0..C-1, here or before.
        """
        self.check_earlier()
        maps = actions if isinstance(actions, torch.Tensor) else torch.as_tensor(np.asarray(actions))
        self._check_form(maps.shape, maps.dtype, maps.dtype in INTEGERS, batch)
        if self._waits:
            return torch.from_numpy(super().check_label_maps(maps.cpu().numpy(), batch))
        maps = maps.to(self.device, non_blocking=True)
        last = self.dataset.num_classes - 1
        self._outside_seen |= ((maps < 0) | (maps > last)).any()
        self._outside_known.copy_(self._outside_seen, non_blocking=True)
        maps = maps.clamp(0, last)
        return maps.to(torch.uint8).reshape(-1, self.samples_per_image or 1, *self.dataset.image_size)

    def check_earlier(self) -> None:
        """Raises ``InvalidAction`` if the labels of an earlier step are known to have been outside 0..C-1."""
        if self._outside_known:
            self._outside_seen.zero_()
            self._outside_known.zero_()
            raise InvalidAction(
                f"A label map of an earlier step held values outside 0..{self.dataset.num_classes - 1}. "
                'Make the environment with device="cpu" to see which.'
            )


def _check_device(device: Any) -> torch.device:
    try:
        checked = torch.device(device)
        torch.empty(0, device=checked)
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"device={device!r} cannot be used here: {reason}") from None
    if checked.type == "cuda" and checked.index is None:
        checked = torch.device("cuda", torch.cuda.current_device())
    return checked


def _wrap(array: np.ndarray) -> torch.Tensor:
    """A tensor over the memory of a read-only array; nothing here writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)
