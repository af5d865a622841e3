"""The policy gradient of label maps against automatic differentiation of its definition in float64."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.ops import library, policy_gradient, torch_ops

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = [  # B, K, C, H, W
    (2, 3, 5, 7, 9),
    (1, 2, 2, 16, 17),
    (2, 1, 21, 13, 11),
    (1, 2, 150, 5, 30),
    (1, 1, 255, 3, 43),
    (3, 4, 3, 1, 1),
    (1, 3, 4, 23, 25),
]
CASES = [(size, torch.float32) for size in SIZES]
CASES += [(size, dtype) for size in SIZES[::3] for dtype in (torch.float64, torch.bfloat16, torch.float16)]
Size = tuple[int, int, int, int, int]
OUTPUTS = {"loss": (1, 0), "entropy": (0, 1), "both": (0.7, 0.4)}
Values = tuple[torch.Tensor, torch.Tensor]
levels = pytest.mark.parametrize("pixel_level", [False, True], ids=["image level", "pixel level"])


def draw(
    size: Size, pixel_level: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, label maps and advantages."""
    batch, samples, classes, height, width = size
    generator = torch.Generator().manual_seed(sum(size))
    logits = 3 * torch.randn((batch, classes, height, width), generator=generator, dtype=torch.float64)
    label_maps = torch.randint(classes, (batch, samples, height, width), generator=generator, dtype=torch.uint8)
    shape = (batch, samples, height, width) if pixel_level else (batch, samples, 1, 1)
    advantages = torch.randn(shape, generator=generator, dtype=torch.float64)
    if dtype != torch.float64:
        advantages = advantages.float()
    return logits.to(DEVICE, dtype), label_maps.to(DEVICE), advantages.to(DEVICE)


def oracle(logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor) -> Values:
    """The definitions, in float64, with the one-hot tensor that the agent never forms."""
    log_p = logits.double().log_softmax(dim=1)
    one_hot = torch.nn.functional.one_hot(label_maps.long(), logits.shape[1]).movedim(-1, 2)  # (B, K, C, H, W)
    chosen = (one_hot.double() * log_p[:, None]).sum(dim=2)  # (B, K, H, W)
    entropy = torch.distributions.Categorical(logits=logits.double().movedim(1, -1)).entropy()
    return -(advantages.double() * chosen).mean(), entropy.mean()


def gradient(function: Callable[..., Values], logits: torch.Tensor, *rest: torch.Tensor, output: str) -> torch.Tensor:
    """Gradient of the logits; outputs that do not count are left out, not multiplied by 0."""
    logits = logits.detach().requires_grad_()
    values = function(logits, *rest)
    total = sum(factor * value for factor, value in zip(OUTPUTS[output], values, strict=True) if factor)
    (result,) = torch.autograd.grad(total, logits)
    return result


def check(logits: torch.Tensor, label_maps: torch.Tensor, advantages: torch.Tensor) -> None:
    """Values and gradients are those of the oracle, to the rounding of the logits' dtype."""
    double = logits.dtype == torch.float64
    values = policy_gradient(logits, label_maps, advantages)
    for value, expected in zip(values, oracle(logits, label_maps, advantages), strict=True):
        assert value.dtype == (torch.float64 if double else torch.float32)
        assert value.shape == ()
        tolerance = 1e-12 if double else 2e-6
        torch.testing.assert_close(value.double(), expected, rtol=tolerance, atol=tolerance)
    for output in OUTPUTS:
        result = gradient(policy_gradient, logits, label_maps, advantages, output=output)
        expected = gradient(oracle, logits.double(), label_maps, advantages, output=output)
        assert result.dtype == logits.dtype
        # Rounded once, at the end; Triton's interpreter cuts bfloat16 off instead.
        units = 1.01 if os.environ["RSS_OPS"] == "triton" and DEVICE.type == "cpu" else 0.51
        relative = units * torch.finfo(logits.dtype).eps if logits.dtype.itemsize == 2 else 0
        tiny = 6e-8 if logits.dtype == torch.float16 else 0  # its smallest number
        largest = expected.abs().max().item()
        absolute = largest * (1e-12 if double else 3e-6) + tiny
        torch.testing.assert_close(
            result.double(), expected, rtol=relative, atol=absolute, msg=lambda text, output=output: f"{output}: {text}"
        )


@levels
@pytest.mark.parametrize(("size", "dtype"), CASES, ids=str)
def test_values_and_gradients_are_those_of_the_definition(
    backend: str, size: Size, dtype: torch.dtype, pixel_level: bool
) -> None:
    check(*draw(size, pixel_level, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided", "expanded"])
def test_any_memory_layout_will_do(backend: str, layout: str, dtype: torch.dtype) -> None:
    logits, label_maps, advantages = draw((2, 3, 6, 5, 8), True, dtype)
    if layout == "channels_last":
        logits = logits.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        logits, label_maps = (t.transpose(2, 3).contiguous().transpose(2, 3) for t in (logits, label_maps))
    elif layout == "strided":
        logits, label_maps, advantages = (torch.stack([t, t], dim=-1)[..., 0] for t in (logits, label_maps, advantages))
    else:
        logits, advantages = logits[:1].expand(2, 6, 5, 8), advantages[:, :1, :1, :1].expand(2, 3, 1, 1)
    assert not logits.is_contiguous()
    check(logits, label_maps, advantages)
    last = gradient(policy_gradient, logits, label_maps, advantages, output="loss")
    assert last.is_contiguous() == (layout != "channels_last")
    assert last.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")


def test_under_autocast_the_outputs_are_float32_and_the_gradient_is_that_of_the_logits(backend: str) -> None:
    features, label_maps, advantages = draw((2, 3, 4, 6, 5))
    layer = torch.nn.Conv2d(4, 4, 1, device=DEVICE)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        logits = layer(features)
        assert logits.dtype == torch.bfloat16
        values = policy_gradient(logits, label_maps, advantages)
        check(logits.detach(), label_maps, advantages)
    assert [value.dtype for value in values] == [torch.float32] * 2
    sum(values).backward()
    expected = torch.autograd.grad(sum(oracle(layer(features), label_maps, advantages)), layer.weight)[0]
    torch.testing.assert_close(layer.weight.grad, expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


def test_the_derivative_is_right_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSS_OPS", "torch")
    logits, label_maps, advantages = draw((2, 3, 4, 2, 3), True, torch.float64)
    assert torch.autograd.gradcheck(lambda z: policy_gradient(z, label_maps, advantages), logits.requires_grad_())


def test_a_policy_that_is_sure_of_itself_has_no_entropy_and_no_gradient(backend: str) -> None:
    _, label_maps, advantages = draw((1, 2, 3, 4, 5))
    logits = torch.full((1, 3, 4, 5), -1e4, device=DEVICE)
    logits[:, 1] = 1e4
    loss, entropy = policy_gradient(logits, torch.ones_like(label_maps), advantages)
    assert loss == entropy == 0
    assert policy_gradient(logits, torch.zeros_like(label_maps), torch.ones_like(advantages))[0] == 2e4
    assert not gradient(policy_gradient, logits, torch.ones_like(label_maps), advantages, output="both").any()


def test_a_uniform_policy_has_the_logarithm_of_the_number_of_classes_as_its_entropy(backend: str) -> None:
    _, label_maps, advantages = draw((2, 3, 7, 4, 5))
    uniform = torch.zeros(2, 7, 4, 5, device=DEVICE)
    loss, entropy = policy_gradient(uniform, label_maps, torch.ones_like(advantages))
    assert entropy.item() == pytest.approx(math.log(7), rel=1e-6)
    assert loss.item() == pytest.approx(math.log(7), rel=1e-6)


def test_no_gradient_flows_into_the_advantages(backend: str) -> None:
    logits, label_maps, advantages = draw((2, 3, 5, 4, 6))
    advantages.requires_grad_()
    assert not any(value.requires_grad for value in policy_gradient(logits, label_maps, advantages))
    policy_gradient(logits.requires_grad_(), label_maps, advantages)[0].backward()
    assert advantages.grad is None


def test_only_logits_and_credit_are_kept_for_the_backward_pass(backend: str) -> None:
    logits, label_maps, advantages = draw((2, 3, 5, 4, 6))
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        values = policy_gradient(logits.requires_grad_(), label_maps, advantages)
        sum(values)
    shapes = [tuple(tensor.shape) for tensor in kept if tensor.numel() > 1]
    assert shapes == [(2, 5, 4, 6), (2, 5, 4, 6)]
    assert kept[0].data_ptr() == logits.data_ptr()


@pytest.mark.parametrize("backend", ["numba", "triton"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_compiled_code_takes_all_dtypes_but_float64(
    backend: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    original = torch_ops.policy_gradient
    monkeypatch.setattr(torch_ops, "policy_gradient", lambda *args: called.append(1) or original(*args))
    policy_gradient(*draw((2, 3, 5, 4, 6), dtype=dtype))
    assert bool(called) == (dtype == torch.float64)


# The credit, which the forward pass hands to the backward pass


def one_hot_credit(label_maps: np.ndarray, advantages: np.ndarray, classes: int) -> np.ndarray:
    """The definition, (1/K) Σ_k Aᵏ [aᵏ = c], in float64 with the one-hot tensor that the agent never forms."""
    one_hot = (label_maps[:, :, None] == np.arange(classes)[:, None, None]).astype(np.float64)  # (B, K, C, H, W)
    return (one_hot * advantages.astype(np.float64)[:, :, None]).mean(axis=1)


def credit(label_maps: torch.Tensor, advantages: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """What the implementation that is chosen for these logits credits."""
    return library.policy_gradient(logits, label_maps, advantages)[2]


@pytest.fixture(params=["torch", "numba"])
def every_example(request: pytest.FixtureRequest) -> Iterator[None]:
    """The two implementations that are fast enough on a CPU for many examples."""
    if request.param == "numba":
        pytest.importorskip("numba", reason="needs numba: pip install 'rss-env[fast]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSS_OPS", request.param)
        yield


@pytest.mark.usefixtures("every_example")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(*(st.integers(1, most) for most in (3, 6, 5, 7))),
    classes=st.integers(2, 255),
    seed=st.integers(0, 2**32 - 1),
    pixel_level=st.booleans(),
)
def test_credit_is_the_mean_advantage_of_the_samples_that_chose_the_class(
    size: tuple[int, int, int, int], classes: int, seed: int, pixel_level: bool
) -> None:
    rng = np.random.default_rng(seed)
    label_maps = rng.integers(0, classes, size).astype(np.uint8)
    advantages = rng.normal(0, 3, size if pixel_level else (*size[:2], 1, 1)).astype(np.float32)
    logits = torch.zeros(size[0], classes, *size[2:])
    result = credit(torch.from_numpy(label_maps), torch.from_numpy(advantages), logits)
    assert result.dtype == torch.float32
    assert result.shape == logits.shape
    np.testing.assert_allclose(result, one_hot_credit(label_maps, advantages, classes), rtol=0, atol=1e-5)


@levels
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_implementation_credits_awkward_sizes(backend: str, size: Size, pixel_level: bool) -> None:
    logits, label_maps, advantages = draw(size, pixel_level)
    expected = one_hot_credit(label_maps.cpu().numpy(), advantages.cpu().numpy(), size[2])
    np.testing.assert_allclose(credit(label_maps, advantages, logits).cpu(), expected, rtol=0, atol=1e-6)


@levels
def test_credit_in_float64_is_exact_to_rounding(backend: str, pixel_level: bool) -> None:
    logits, label_maps, advantages = draw((2, 4, 3, 3, 5), pixel_level, torch.float64)
    advantages = 1 + 1e-12 * advantages
    result = credit(label_maps, advantages, logits).cpu()
    assert result.dtype == torch.float64
    expected = one_hot_credit(label_maps.cpu().numpy(), advantages.cpu().numpy(), 3)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-15)


def test_credit_takes_any_memory_layout(backend: str) -> None:
    rng = np.random.default_rng(0)
    label_maps = torch.from_numpy(rng.integers(0, 4, (6, 5, 3, 2)).astype(np.uint8))
    advantages = torch.from_numpy(rng.normal(size=(6, 5, 3, 2)).astype(np.float32))
    # (2, 3, 6, 5) seen through transposed axes, and one number a label map seen through a broadcast
    maps, logits = label_maps.permute(3, 2, 0, 1), torch.zeros(2, 4, 6, 5, device=DEVICE)
    for values in (
        advantages.permute(3, 2, 0, 1),
        advantages[0, 0].T[:, :, None, None],
        torch.tensor(0.5).expand(2, 3, 1, 1),
    ):
        expected = one_hot_credit(maps.numpy(), np.broadcast_to(values.numpy(), maps.shape), 4)
        result = credit(maps.to(DEVICE), values.to(DEVICE), logits).cpu()
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


# As torch knows it


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_results_have_the_shapes_and_layouts_that_the_fake_kernels_promise(
    backend: str, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    logits, label_maps, advantages = draw((2, 3, 5, 4, 6), dtype=dtype)
    logits = logits.to(memory_format=layout)
    torch.library.opcheck(library.policy_gradient, (logits.clone().requires_grad_(), label_maps, advantages))
    weights = credit(label_maps, advantages, logits)
    torch.library.opcheck(library.policy_gradient_backward, (logits, weights, weights.new_tensor([1.0, -2.0])))


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_loss_compiles_into_one_graph_with_the_same_gradient(backend: str, output: str, compiler: str) -> None:
    torch.compiler.reset()
    arguments = draw((2, 3, 5, 4, 6))
    compiled = torch.compile(policy_gradient, fullgraph=True, backend=compiler)
    torch.testing.assert_close(compiled(*arguments), policy_gradient(*arguments), rtol=0, atol=0)
    result = gradient(compiled, *arguments, output=output)
    expected = gradient(policy_gradient, *arguments, output=output)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-9)
