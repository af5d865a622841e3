from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.networks.unet import UNet


def make_policy(num_classes: int = 4, width: int = 8) -> UNet:
    torch.manual_seed(0)
    return UNet(num_classes, width)


def draw_images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(2, 41), st.integers(2, 41), st.integers(2, 30), st.sampled_from([8, 16]))
def test_logits_have_the_size_of_the_image_whatever_it_is(
    batch: int, height: int, width: int, classes: int, channels: int
) -> None:
    with torch.inference_mode():
        logits = make_policy(classes, channels)(draw_images(batch, height, width))
    assert logits.shape == (batch, classes, height, width)
    assert logits.isfinite().all()


def test_an_odd_size_works_and_every_weight_learns_from_it() -> None:
    policy = make_policy()
    policy(draw_images(2, 17, 23)).square().mean().backward()
    still = [name for name, weights in policy.named_parameters() if weights.grad is None or not weights.grad.any()]
    assert not still


def test_an_image_has_the_same_logits_alone_and_in_a_batch() -> None:
    policy, images = make_policy(), draw_images(5, 17, 23)
    with torch.inference_mode():
        together = policy(images)
        alone = torch.cat([policy(image[None]) for image in images])
    assert together.std() > 0.1
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_black_and_white_reach_the_network_as_minus_one_and_one() -> None:
    policy, seen = make_policy(), []
    policy.down[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    images[0, 3, 5] = torch.tensor([255, 0, 255], dtype=torch.uint8)
    policy(images)
    expected = -torch.ones(1, 3, 8, 8)
    expected[0, [0, 2], 3, 5] = 1
    assert torch.equal(seen[0], expected)
