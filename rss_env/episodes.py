"""Which image each episode shows, and by which chances: a stream per environment of (key, episode number) alone.

Counting instead of storing generator state makes single and vector environments agree by construction, costs one
vectorised hash a step, and lets a resumed run jump to any episode.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from rss_env.arguments import check_choice

ORDERS = ("random", "sequential", "epochs")
AHEAD = 64  # episodes computed at once: the hash of one costs as much as that of many
EPOCHS = 8  # orders that are remembered
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=4)
def even_choice(images: int, of: int) -> np.ndarray:
    """Numbers of some of ``of`` images, spread evenly over them: uint64 (images,), ascending.

    Those of a smaller choice are among those of a larger one. They are the first in the order of van der Corput: that
    of their numbers with the bits reversed, in which every beginning is spread evenly.
    """
    bits = max(1, (of - 1).bit_length())
    # At least half of the reversed numbers are below ``of``, but for the logarithm of their number.
    numbers = np.arange(min(1 << bits, 2 * images + 256), dtype=np.uint64)
    turned = np.zeros_like(numbers)
    for bit in range(bits):
        turned |= (numbers >> np.uint64(bit) & np.uint64(1)) << np.uint64(bits - 1 - bit)
    return np.sort(turned[turned < np.uint64(of)][:images])


def check_order(order: str) -> None:
    """Raises ``OptionError`` that lists the valid orders if ``order`` is not among them."""
    check_choice("order", order, ORDERS)


class EpisodeStream:
    """The image of every episode of B environments.

    Args:
        order: ``"random"``: environment b shows independent uniform draws decided by its key; ``"sequential"``:
            together the B environments walk the data set in order, again and again; ``"epochs"``: together they walk it
            again and again, every time in another order, which the key of the first environment decides.
        num_images: n, the size of the data set.
        num_envs: B.
    """

    def __init__(self, order: str, num_images: int, num_envs: int) -> None:
        check_order(order)
        self.order = order
        self.num_images = num_images
        self.num_envs = num_envs
        self.keys: np.ndarray = np.zeros(num_envs, np.uint64)
        self.episodes: np.ndarray = np.zeros(num_envs, np.uint64)  # episodes begun so far
        self.limits: np.ndarray = np.full(num_envs, num_images, np.uint64)  # number of images that may be shown
        self._ahead: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # the next draws of all, last first
        self._permutations: dict[tuple[int, int, int], np.ndarray] = {}  # of the last epochs: key, number and limit

    def restart(self, keys: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Starts the environments in ``mask``, bool (B,), at episode 0 with the new keys, uint64 (B,); None: all."""
        chosen = np.True_ if mask is None else mask
        self.keys = np.where(chosen, keys, self.keys)
        self.episodes = np.where(chosen, np.uint64(0), self.episodes)
        self.limits = np.where(chosen, np.uint64(self.num_images), self.limits)
        self._ahead = []

    def show_only(self, images: int, mask: np.ndarray | None = None) -> None:
        """Makes the environments in ``mask``, bool (B,), show an even choice of so many images; None: all.

        Environments that walk the data set together show as many as the first of them.
        """
        self.limits = np.where(np.True_ if mask is None else mask, np.uint64(images), self.limits)
        self._ahead = []

    def jump(self, episode: int, mask: np.ndarray | None = None) -> None:
        """Makes ``episode`` (counted from 0) the next one of the environments in ``mask``, bool (B,); None: all."""
        self.episodes = np.where(np.True_ if mask is None else mask, np.uint64(episode), self.episodes)
        self._ahead = []

    def draw(self, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Begins the next episode of the environments in ``mask``, bool (B,); None means all.

        Returns:
            int64 (B,) image indices, bool (B,) coin tosses, and uint64 (B,) uniform bits that have nothing to do with
            either; entries outside the mask mean nothing.
        """
        if mask is not None:
            self._ahead = []
            drawn = self._look(self.episodes)
            self.episodes = self.episodes + mask.astype(np.uint64)
            return drawn
        if not self._ahead:
            steps = np.arange(AHEAD, dtype=np.uint64)[:, None]
            self._ahead = list(zip(*self._look(self.episodes + steps), strict=True))[::-1]
        self.episodes = self.episodes + np.uint64(1)
        return self._ahead.pop()

    def _look(self, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices, coins and further bits of the episodes with these numbers, uint64 (..., B)."""
        bits = mix(self.keys + (episodes + np.uint64(1)) * GOLDEN)
        coins = (bits >> np.uint64(63)).astype(bool)
        limits = self.limits if self.order == "random" else np.full_like(self.limits, self.limits[0])
        if self.order == "random":
            indices = (bits & np.uint64((1 << 62) - 1)) % limits
        else:
            place = episodes * np.uint64(self.num_envs) + np.arange(self.num_envs, dtype=np.uint64)
            epochs, indices = np.divmod(place, limits)
            if self.order == "epochs":
                for epoch in np.unique(epochs):
                    within = epochs == epoch
                    indices[within] = self._permutation(int(epoch), int(limits[0]))[indices[within]]
        for limit in np.unique(limits[limits < self.num_images]):
            among = limits == limit
            indices[..., among] = even_choice(int(limit), self.num_images)[indices[..., among]]
        return indices.astype(np.int64), coins, mix(bits + GOLDEN)

    def _permutation(self, epoch: int, images: int) -> np.ndarray:
        """An order of so many images, uint64 (images,), in an epoch: that of their hashes under the first key."""
        key = int(self.keys[0]), epoch, images
        if key not in self._permutations:
            salt = mix(mix(self.keys[:1]) + np.array([epoch], np.uint64) * GOLDEN)
            hashes = mix(salt + np.arange(1, images + 1, dtype=np.uint64) * GOLDEN)
            if len(self._permutations) >= EPOCHS:
                self._permutations.clear()
            self._permutations[key] = np.argsort(hashes, kind="stable").astype(np.uint64)
        return self._permutations[key]


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): uint64 -> uint64, a bijection."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
