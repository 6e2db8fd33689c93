"""The network that scores attention maps, and what it reads.

Its layout is that of the released checkpoints of single-shot meta-pruning, to the names of their 26 tensors.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

SIDE = 128
"""Tokens that a map has on either side."""
WIDTHS = (8, 16, 32, 64, 128)
EPSILON = 1e-5
"""Of BatchNorm. Running variances of the released scorers are 1e-8 to 2e-6, so another epsilon gives other scores."""
CHUNK = 192
"""Maps that go through the network at once."""


class MapScorer(nn.Module):
    """A convolutional network that looks at one attention map and says how much its head matters.

    Shape:
        Input: (N, 1, 128, 128), float32, rows of padded queries 0. Output: (N, 2) in (0, 2): the score where a sample is a
        pair of sentences, and where it is a single one; higher = keep.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(1, WIDTHS[0]), nn.LeakyReLU(0.2)]
        for narrow, wide in pairwise(WIDTHS):
            layers += [_convolution(narrow, wide), nn.BatchNorm2d(wide, eps=EPSILON), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(WIDTHS[-1], 2, kernel_size=4, bias=False), nn.Sigmoid()]
        self.main = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """Return both scores of every map."""
        scores: Tensor = 2 * self.main(maps).flatten(1)
        return scores


def _convolution(narrow: int, wide: int) -> nn.Conv2d:
    return nn.Conv2d(narrow, wide, kernel_size=4, stride=2, padding=1, bias=False)


def fresh_scorer(generator: torch.Generator) -> MapScorer:
    """Return an untrained scorer, initialised as published: N(0, 0.01), scales of BatchNorm N(1, 0.01)."""
    scorer = MapScorer()
    for name, parameter in scorer.named_parameters():
        mean = float(parameter.ndim == 1)
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            parameter.data.normal_(mean, 0.01, generator=generator)
    return scorer


def score_maps(scorer: MapScorer, maps: Tensor, channel: int) -> Tensor:
    """Return the scores of maps, shape (N,), in float32 on every device.

    Args:
        scorer: in eval mode, or in train mode where statistics are of these maps together.
        maps: shape (N, 1, 128, 128).
        channel: 0 for pairs, 1 for single sentences.
    """
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        if scorer.training:
            found: Tensor = scorer(maps)[:, channel]
            return found
        return torch.cat([scorer(part)[:, channel] for part in torch.split(maps, CHUNK)])


def padded_maps(maps: Tensor, mask: Tensor) -> Tensor:
    """Return maps as the released scorers read them, shape (B * heads, 1, 128, 128): rows of padding 0, and so all beyond.

    Args:
        maps: shape (B, heads, T, T), T at most 128.
        mask: which tokens are real, shape (B, T).
    """
    margin = SIDE - maps.shape[3]
    real = maps * mask[:, None, :, None].to(maps)
    return nn.functional.pad(real, (0, margin, 0, margin)).flatten(0, 1).unsqueeze(1)


def resized_maps(maps: Tensor, mask: Tensor) -> Tensor:
    """Return maps of real tokens alone, stretched to 128 by area: a pattern then scores alike at any length.

    Rows still sum to one. Padding must be at the right.

    Args:
        maps: shape (B, heads, T, T).
        mask: which tokens are real, shape (B, T).
    """
    parts = []
    for own, length in zip(maps, mask.sum(dim=1).tolist(), strict=True):
        cropped = own[:, :length, :length]
        stretched = nn.functional.interpolate(cropped[:, None], size=(SIDE, SIDE), mode="area")
        parts.append(stretched / stretched.sum(dim=3, keepdim=True))
    return torch.cat(parts)
