"""A nine-layer residual network for small pictures (after He et al. 2016, "Deep Residual Learning"; layout of
David Page's DAWNBench entry, 2018)."""

from torch import Tensor, nn


def convolution(inputs: int, outputs: int, *, pool: bool = False) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU, and a 2x2 maximum if `pool`."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


class Residual(nn.Module):
    """Two convolutions around which the input is added back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResNet9(nn.Module):
    """Pictures (batch, 3, 32, 32), float32, normalised, to logits (batch, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            convolution(3, width),
            convolution(width, 2 * width, pool=True), Residual(2 * width),
            convolution(2 * width, 4 * width, pool=True),
            convolution(4 * width, 8 * width, pool=True), Residual(8 * width),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.classify = nn.Linear(8 * width, classes)
        self.scale = 0.125  # keeps the first logits small, so that a high learning rate starts calmly

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.features(pixels)) * self.scale
        return logits


class Mirrored(nn.Module):
    """The mean of a network's logits for a picture and for its mirror image (Krizhevsky et al. 2012, "ImageNet
    Classification with Deep Convolutional Neural Networks", section 4.1), float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = (self.model(pixels) + self.model(pixels.flip(-1))) / 2
        return logits
