from __future__ import annotations

import pytest
import torch

from agents.plugins import leave_one_out
from rss_env.errors import OptionError


@pytest.mark.parametrize("shape", [(3, 1), (3, 1, 4, 5), (3, 0)])
def test_a_sample_with_nothing_to_compare_it_with_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=rf"at least 2 samples of each image, got {shape[1]}\."):
        leave_one_out(torch.zeros(shape))
