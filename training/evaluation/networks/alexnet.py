"""The convolutions of AlexNet, with the names that torchvision's weights have."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["AlexNet"]

#: Places of the rectifiers whose maps LPIPS compares.
_SEEN = (1, 4, 7, 9, 11)


class AlexNet(nn.Module):
    """[B,3,H,W], normalised -> five maps, of 64, 192, 384, 256 and 256 channels.

    Krizhevsky 2014 as torchvision has it; its file is ``alexnet-owt-7be5be79.pth``, of which the
    classifier is not used.
    """

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps after each convolution."""
        seen = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in _SEEN:
                seen.append(x)
        return seen
