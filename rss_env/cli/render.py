"""``rss-env render``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from PIL import Image

from rss_env.cli.ids import check_env_kwargs, dataset_root, parse_env_kwargs, resolve
from rss_env.datasets import DATASETS, IGNORE_INDEX
from rss_env.errors import OptionError
from rss_env.registration import env_id

# Arguments of the environment that --env-kwargs may hold: those that change the picture and have no flag.
FURTHER = ("augment", "crop_size", "scale_range", "resize", "reward", "reward_options")


def render(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")],
    /,
    *,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    root: str = "data",
    split: str = "train",
    image_size: tuple[int, int] | None = None,
    index: int | None = None,
    seed: int = 0,
    label_map: Literal["target", "random", "background", "none"] | None = None,
    expose_target: bool = True,
    env_kwargs: str = "{}",
) -> int:
    """Writes the picture that env.render() gives of one episode.

    Args:
        name: id of the environment, or the name of a data set for its image-level one
        output: file to write; its suffix, such as .png, sets the format
        root: folder of the data set; procedural ones need none
        split: name of the split
        image_size: height and width in pixels; default: the data set's
        index: number of the image in the split; default: drawn by the seed
        seed: seed of the image and of a random label map
        label_map: the action: the target itself (class 0 where it is ignored), independent random pixels, class 0
            everywhere, or none (the picture before the step); default: target, none where there are no masks
        expose_target: show the target and where the label map is right; photos without masks have none
        env_kwargs: further arguments of the environment as JSON, such as '{"num_classes": 3}'
    """
    if output.suffix.lower() not in Image.registered_extensions():
        raise OptionError(f"--output {output}: unknown suffix {output.suffix!r}; use .png.")
    dataset, level = resolve(name)
    options = parse_env_kwargs(env_kwargs)
    check_env_kwargs(options, (*FURTHER, *DATASETS[dataset].options))
    folder = dataset_root(dataset, root)
    without = _has_no_masks(dataset, folder, split, options)
    if without:
        if label_map == "target" or level == "pixel":
            needs = "--label-map target" if label_map == "target" else "a pixel-level id"
            raise OptionError(f"{needs} needs masks, and {dataset} in {folder} has none.")
        options = {"reward": _no_score, **options}
    label_map = label_map or ("none" if without else "target")
    if label_map == "target" and not expose_target:
        raise OptionError("--label-map target needs the target: leave out --no-expose-target, or choose another.")
    env = gym.make(
        env_id(dataset, level),
        disable_env_checker=True,
        render_mode="rgb_array",
        root=folder,
        split=split,
        image_size=image_size,
        expose_target=expose_target and not without,
        **options,
    )
    _, info = env.reset(seed=seed, options=None if index is None else {"index": index})
    if label_map != "none":
        env.step(_choose(label_map, env, info.get("target"), seed))
    frame = env.render()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(frame)).save(output)
    except OSError as error:
        raise OptionError(f"Cannot write {output}: {error.strerror or error}.") from None
    height, width, _ = np.asarray(frame).shape
    end = "; there are no masks, so no target is shown" if without else ""
    print(f"{output}: image {info['index']} of {dataset}'s split {split}, {width}×{height} pixels{end}")
    return 0


def _has_no_masks(dataset: str, root: str | None, split: str, options: dict[str, Any]) -> bool:
    if DATASETS[dataset].locate is None:
        return False
    own = {name: value for name, value in options.items() if name not in FURTHER}
    return not DATASETS[dataset].find(root, split, **own).masks


def _no_score(image: np.ndarray, label_map: np.ndarray, target: np.ndarray | None) -> float:
    """Stands for the reward where there are no masks; the picture shows none."""
    return 0.0


def _choose(label_map: str, env: gym.Env, target: np.ndarray | None, seed: int) -> np.ndarray:
    if label_map == "target":
        assert target is not None
        return np.where(target == IGNORE_INDEX, 0, target)
    if label_map == "background":
        return np.zeros(env.action_space.shape or (), np.int64)
    env.action_space.seed(seed)
    return env.action_space.sample()
