"""ResNet18 with Swish, in two dimensions for pictures and in one for samples, as Auto-AVSR's teacher has it.

He et al. 2016 (https://arxiv.org/abs/1512.03385); for lips and for raw sound: Petridis et al. 2018, End-to-end
Audiovisual Speech Recognition (https://arxiv.org/abs/1802.06424).
"""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS_PER_STAGE = 2


class BasicBlock(nn.Module):
    """(B, C, …) -> (B, C', … / stride): convolution, norm, Swish, convolution, norm, plus the input, Swish.

    Where the shape changes, the input passes through a 1x1 convolution and a norm (`shortcut.0`, `shortcut.1`). In the
    teacher's checkpoints: conv1, bn1, conv2, bn2, downsample.0, downsample.1.
    """

    def __init__(self, dimensions: int, inputs: int, outputs: int, stride: int, inner: int) -> None:
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dimensions == 1 else (nn.Conv2d, nn.BatchNorm2d)
        self.stride = stride
        self.conv_1, self.norm_1 = conv(inputs, inner, 3, stride, 1, bias=False), norm(inner)
        self.conv_2, self.norm_2 = conv(inner, outputs, 3, 1, 1, bias=False), norm(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride, bias=False), norm(outputs))
        self.activation = nn.SiLU()

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """`valid` (B, 1, T), in one dimension: 0 where a convolution over time must find zeros."""
        x = x if valid is None else x * valid
        y = self.activation(self.norm_1(self.conv_1(x)))
        y = y if valid is None else y * valid[..., :: self.stride]
        return self.activation(self.norm_2(self.conv_2(y)) + self.shortcut(x))


def residual_blocks(
    dimensions: int, channels: tuple[int, ...], inner: tuple[int, ...] | None = None
) -> list[BasicBlock]:
    """Two blocks a stage; each stage but the first halves the rate. The input has the first stage's channels.

    `inner`: channels between the two convolutions of each block; None for as many as its stage has.

    Block `i` of the list is `layer{1 + i // 2}.{i % 2}` of the teacher's checkpoints.
    """
    blocks, inputs = [], channels[0]
    for stage, outputs in enumerate(channels):
        for place in range(BLOCKS_PER_STAGE):
            stride = 2 if stage > 0 and place == 0 else 1
            between = outputs if inner is None else inner[len(blocks)]
            blocks.append(BasicBlock(dimensions, inputs, outputs, stride, between))
            inputs = outputs
    return blocks
