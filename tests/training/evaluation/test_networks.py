"""Networks by name: their weights are data, and their names say whose they are."""

from __future__ import annotations

import os
import pickle

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from defectrt.errors import InputError, UsageError
from defectrt.training import pretrained
from defectrt.training.evaluation.networks import opening
from defectrt.training.evaluation.networks.alexnet import AlexNet
from defectrt.training.evaluation.networks.inception import Inception
from defectrt.training.evaluation.networks.opening import like_tensorflow, open_network
from defectrt.training.evaluation.perception import Perceived

PICTURES = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def test_the_default_is_offline_and_sees_imagenet_features():
    network = open_network("efficientnet-lite0")
    features, maps = network(PICTURES)
    assert features.shape == (2, 1280)
    assert [m.shape[1:] for m in maps] == [(24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7)]
    assert network.sha256.startswith("57934424")
    again, _ = network(PICTURES)
    assert torch.equal(features, again)
    # random weights would not tell black from white by so much
    black, white = network(torch.stack([torch.zeros(3, 48, 48), torch.ones(3, 48, 48)]))[0]
    assert torch.nn.functional.cosine_similarity(black, white, dim=0) < 0.95


def test_weights_that_were_changed_are_refused(monkeypatch):
    monkeypatch.setattr(pretrained, "_SHA256", "0" * 64)
    with pytest.raises(InputError, match="install its package again"):
        open_network("efficientnet-lite0")


@pytest.fixture
def alexnet(tmp_path):
    torch.manual_seed(0)
    weights = AlexNet().state_dict() | {"classifier.1.weight": torch.zeros(1)}
    torch.save(weights, tmp_path / "alexnet.pth")
    return tmp_path / "alexnet.pth"


def test_alexnet_by_path_with_the_published_weights_of_lpips(alexnet):
    network = open_network(f"alexnet={alexnet}")
    assert network.name == f"AlexNet (ImageNet), other weights {network.sha256[:8]}"
    assert network.distance == "LPIPS"
    features, maps = network(PICTURES)
    assert features is None
    assert [len(w) for w in network.weights] == [m.shape[1] for m in maps]
    assert all((w >= 0).all() for w in network.weights)
    own = Perceived(maps, network.weights)
    distances = own.distances(own)
    assert distances[0, 0] == pytest.approx(0, abs=1e-6)
    assert distances[0, 1] > 1e-3


def test_lpips_weights_that_were_changed_are_refused(alexnet, monkeypatch):
    monkeypatch.setattr(opening, "_LPIPS", "0" * 64)
    with pytest.raises(InputError, match="install torchmetrics again"):
        open_network(f"alexnet={alexnet}")


@pytest.mark.slow
def test_inception_by_path_has_the_names_of_its_published_weights(tmp_path):
    torch.manual_seed(0)
    weights = Inception().state_dict()
    counted = [n for n in weights if not n.endswith("num_batches_tracked")]
    assert len(counted) == 94 * 5 + 2  # convolutions with their normalisation, the classifier
    assert {"Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch3x3dbl_3b.bn.running_var"} <= set(counted)
    torch.save(weights, tmp_path / "inception.pth")
    network = open_network(f"inception={tmp_path / 'inception.pth'}")
    features, maps = network(PICTURES[:1])
    assert features.shape == (1, 2048)
    assert not maps
    assert not network.distance


def test_resizing_as_tensorflow_did():
    row = torch.tensor([0.0, 1]).view(1, 1, 1, 2)
    assert like_tensorflow(row, 4)[0, 0, 0].tolist() == [0, 0.5, 1, 1]
    assert like_tensorflow(row, 2)[0, 0, 0].tolist() == [0, 1]


class _Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def test_a_file_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"features.0.weight": _Attack()}))
    with pytest.raises(InputError, match="not the weights of AlexNet"):
        open_network("alexnet=evil.pth")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "file.pth"
    if content is None:
        torch.save({"features.0.weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"file\.pth: not the weights of AlexNet"):
        open_network(f"alexnet={path}")
    with pytest.raises(InputError, match="cannot be read"):
        open_network(f"alexnet={tmp_path / 'none.pth'}")


@pytest.mark.parametrize("name", ["vgg", "alexnet", "efficientnet-lite0=file", "inception=", ""])
def test_names_that_are_none(name):
    with pytest.raises(UsageError, match="one of efficientnet-lite0, inception=FILE"):
        open_network(name)


def _graph(path, ranks=(2, 4)):
    """The mean of each channel, and the picture itself."""
    made = [
        helper.make_node("GlobalAveragePool", ["x"], ["m"]),
        helper.make_node("Flatten", ["m"], ["out2"]),
        helper.make_node("Identity", ["x"], ["out4"]),
    ]
    shapes = {2: ["b", 3], 4: ["b", 3, 8, 8]}
    outputs = [
        helper.make_tensor_value_info(f"out{rank}", TensorProto.FLOAT, shapes[rank])
        for rank in ranks
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 8, 8])
    graph = helper.make_graph(made, "see", [given], outputs)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_a_graph_of_ones_own(tmp_path):
    network = open_network(f"onnx={_graph(tmp_path / 'net.onnx')}")
    features, maps = network(torch.full((3, 3, 20, 20), 0.485))
    assert network.side == 8
    assert network.name.startswith("net.onnx (")
    assert features[:, 0].numpy() == pytest.approx(np.zeros(3), abs=1e-5)
    assert maps[0].shape == (3, 3, 8, 8)
    only = open_network(f"onnx={_graph(tmp_path / 'maps.onnx', ranks=(4,))}")
    assert not only.features
    assert only(PICTURES)[0] is None


def test_a_graph_that_is_none(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="not a graph"):
        open_network(f"onnx={tmp_path / 'net.onnx'}")
