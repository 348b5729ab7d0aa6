"""The ports of other methods: each keeps the mechanism that it is named for, and its promises."""

from __future__ import annotations

import functools
import shutil
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from support.built import ROOT
from torch import Tensor, nn

from defectrt.errors import InputError
from defectrt.training.data.crops import Crops
from defectrt.training.data.samples import Sample, read_pairs
from defectrt.training.models.attention import Masking

pytest.importorskip("diffusers")

SIDE = 120


@pytest.fixture(scope="module")
def ports() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        for name in ("common", "o2mag", "anomaly_diffusion", "dfmgan"):
            import_module(f"benchmarks.arena.ports.{name}")
        yield import_module("benchmarks.arena.ports")


@pytest.fixture(scope="module")
def base(ports: ModuleType):
    return ports.common.Base(2)


def surface(seed: int) -> np.ndarray:
    grey = np.random.default_rng(seed).normal(140, 8, (SIDE, SIDE, 1))
    return np.repeat(grey.clip(0, 255).astype(np.uint8), 3, axis=2)


@pytest.fixture(scope="module")
def good() -> list[Sample]:
    return [
        Sample(Path(f"g{i}.png"), "good", surface(i), np.zeros((SIDE, SIDE), bool))
        for i in range(3)
    ]


@pytest.fixture(scope="module")
def shots() -> list[Sample]:
    made = []
    for i, name in enumerate(("dot", "line")):
        image, mask = surface(10 + i), np.zeros((SIDE, SIDE), bool)
        mask[50:62, 50 : 62 if name == "dot" else 90] = True
        image[mask] //= 3
        made.append(Sample(Path(f"s{i}.png"), name, image, mask))
    return made


class Spot(nn.Module):
    """In place of a branch that was trained for long: a dark spot somewhere in the middle."""

    def forward(self, backbone: nn.Module, z: Tensor, noise, defect: Tensor, own):
        y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        at = 32 + 6 * defect[0, :2].tanh()
        mask = (100 - (y - at[0]) ** 2 - (x - at[1]) ** 2)[None, None]
        return backbone(z, noise) - (mask >= 0).float(), mask


@pytest.fixture
def quick(
    ports: ModuleType, base, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Callable[..., None]]:
    """Each port with settings that take a second or two, and one base for all."""
    for port in (ports.o2mag, ports.anomaly_diffusion):
        monkeypatch.setattr(port, "Base", lambda steps: base)
    monkeypatch.setattr(base, "nearest_prompt", lambda *_: base.prompt("hole"))
    monkeypatch.setattr(ports.dfmgan, "learn_defects", lambda *_: Spot())
    monkeypatch.setattr(ports.dfmgan, "_BANK", 4)
    return {
        "o2mag": functools.partial(ports.o2mag.make, fit=1),
        "anomaly_diffusion": functools.partial(ports.anomaly_diffusion.make, steps=1, batch=1),
        "dfmgan": functools.partial(ports.dfmgan.make, good_steps=1, batch=1),
    }


def written(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.png"))}


@pytest.mark.slow
@pytest.mark.parametrize("port", ["o2mag", "anomaly_diffusion", "dfmgan"])
def test_it_writes_labelled_pictures_that_follow_from_the_seed(
    port: str, quick, shots: list[Sample], good: list[Sample], tmp_path: Path
) -> None:
    once, again, other = tmp_path / "once", tmp_path / "again", tmp_path / "other"
    quick[port](shots, good, 1, 5, once)
    known = {sample.path.stem: sample.image for sample in good}
    for name in ("dot", "line"):
        made = read_pairs(once / name, name)
        assert len(made) == 1
        for sample in made:
            before = known[sample.path.stem[:-4]]
            assert sample.image.shape == before.shape
            changed = (sample.image != before).any(axis=2)
            assert sample.mask.any()
            assert changed[sample.mask].mean() > 0.5
            ys, xs = np.nonzero(changed)
            near = [
                sample.mask[max(0, y - 6) : y + 7, max(0, x - 6) : x + 7].any()
                for y, x in zip(ys, xs, strict=True)
            ]
            assert all(near)
    # what was made stays, what is missing is made again as it was
    shutil.copytree(once, again)
    gone = next(p for p in again.rglob("*.png") if not p.stem.endswith("_mask"))
    gone.unlink()
    stays = next(p for p in again.rglob("*.png") if not p.stem.endswith("_mask"))
    stays.write_bytes(b"as it was")
    quick[port](shots, good, 1, 5, again)
    assert gone.read_bytes() == (once / gone.relative_to(again)).read_bytes()
    assert stays.read_bytes() == b"as it was"
    quick[port](shots[:1], good, 1, 6, other)
    assert not set(written(other).values()) & set(written(once).values())


@pytest.mark.parametrize("port", ["o2mag", "anomaly_diffusion", "dfmgan"])
def test_shots_without_defects_are_refused(port: str, quick, good, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no real defects"):
        quick[port]([], good, 1, 0, tmp_path)
    bare = [Sample(Path("bare.png"), "dot", good[0].image, good[0].mask)]
    with pytest.raises(InputError, match=r"bare\.png: shows no defect"):
        quick[port](bare, good, 1, 0, tmp_path)


def test_ctrl_c_lets_the_picture_at_hand_finish(ports: ModuleType) -> None:
    done = []

    def work() -> None:
        for item in ports.common.each(range(5), "work"):
            if item == 1:
                signal.raise_signal(signal.SIGINT)
            done.append(item)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [0, 1]


# O2MAG


def test_the_graft_takes_the_example_inside_the_mask_and_the_good_picture_outside(
    ports: ModuleType,
) -> None:
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    attention = Attention(8, heads=2, dim_head=4).eval()
    graft = ports.o2mag.Graft()
    process = ports.o2mag._GraftedAttention(graft, 0)
    seen, inside = torch.zeros(2, 1, 1, 2, 2)
    seen[..., 0, 1], inside[..., 1, 0] = 1, 1
    x, keys, example, good = torch.randn(4, 1, 2, 4, 4)
    hidden = torch.randn(1, 4, 8)

    def out(example_values: Tensor, good_values: Tensor) -> Tensor:
        graft.loan = ports.o2mag._Loan(
            {0: (keys, example_values)}, {0: (x, good_values)}, seen, inside
        )
        with torch.inference_mode():
            return process(attention, hidden)[0]

    plain = out(example, good)
    moved = example.clone()
    moved[:, :, 1] += 1  # the one cell of the example that is defect
    assert ((out(moved, good) - plain).abs().sum(dim=1) > 1e-6).tolist() == [
        False,
        False,
        True,
        False,
    ]
    hidden_cell = example.clone()
    hidden_cell[:, :, 0] += 1  # one that is not
    assert torch.equal(out(hidden_cell, good), plain)
    assert ((out(example, good + 1) - plain).abs().sum(dim=1) > 1e-6).tolist() == [
        True, True, False, True,
    ]  # fmt: skip


@pytest.mark.slow
def test_without_the_graft_pictures_are_others(quick, shots, good, tmp_path: Path) -> None:
    for name, grafted in (("with", True), ("without", False)):
        quick["o2mag"](shots[:1], good, 1, 5, tmp_path / name, grafted=grafted)
    with_, without = (written(tmp_path / name) for name in ("with", "without"))
    differing = {name for name in with_ if with_[name] != without[name]}
    assert {"_mask" in name for name in differing} == {False}  # the same mask, another picture


# AnomalyDiffusion


def test_what_does_not_show_yet_weighs_more(ports: ModuleType) -> None:
    mask = np.zeros((1, 1, 4, 4), np.float32)
    mask[0, 0, 1, :3] = 1
    good = np.zeros((1, 2, 4, 4), np.float32)
    foreseen = good.copy()
    foreseen[0, :, 1, 0], foreseen[0, :, 1, 1], foreseen[0, :, 3, 3] = 2.0, 0.5, 9.0
    found = ports.anomaly_diffusion.weights(mask, good, foreseen)[0, 0]
    assert found[1, 2] > found[1, 1] > found[1, 0] > 0
    assert found[1, :3].mean() == pytest.approx(1)
    assert (found[mask[0, 0] == 0] == 1).all()


def test_weights_scale_the_attention_inside_the_mask_alone(ports: ModuleType) -> None:
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    attention = Attention(8, cross_attention_dim=6, heads=2, dim_head=4).eval()
    given = ports.anomaly_diffusion.Reweighting()
    process = ports.anomaly_diffusion._Reweighted(given)
    mask = torch.zeros(1, 1, 2, 2)
    mask[..., 0, :] = 1
    hidden, prompts = torch.randn(1, 4, 8), torch.randn(1, 6, 6)

    def out() -> Tensor:
        with torch.inference_mode():
            return process(attention, hidden, prompts, masking=Masking(mask))[0]

    plain, bias = out(), attention.to_out[0].bias
    given.weights = torch.tensor([[[[0.5, 2.0], [3.0, 3.0]]]])
    torch.testing.assert_close(out()[:2] - bias, (plain[:2] - bias) * torch.tensor([[0.5], [2.0]]))
    torch.testing.assert_close(out()[2:], plain[2:])


def test_the_words_that_explain_a_defect_best_come_first(base, monkeypatch) -> None:
    names = ["crack", "dent", "hole", "particle", "scratch", "stain"]
    known = [base.prompt(name) for name in names]

    def loss(batch: object, prompt: Tensor, draw: object) -> Tensor:
        return torch.tensor([float(not torch.equal(prompt, one)) for one in known])[2]

    monkeypatch.setattr(base, "masked_loss", loss)
    assert torch.equal(base.nearest_prompt(None, 0), known[2])


def test_only_words_and_the_encoder_of_masks_learn(
    ports: ModuleType, base, shots, good, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "nearest_prompt", lambda *_: base.prompt("hole"))
    before = {name: p.clone() for name, p in base.net.named_parameters()}
    learned = ports.anomaly_diffusion.learn(base, shots, good, 0, steps=3, batch=1, rate=0.01)
    assert all(torch.equal(p, before[name]) for name, p in base.net.named_parameters())
    start = learned._starts["dot"]
    one, other = torch.zeros(2, 1, 1, 24, 24)
    one[..., 2:4, 2:4], other[..., 15:20, 4:20] = 1, 1
    words = learned(["dot", "dot", "line"], torch.cat([one, other, one]))
    assert words.shape == (3, *start.shape[1:])
    assert not torch.equal(words[0, :8], start[0, :8])
    assert torch.equal(words[0, :8], words[1, :8])  # the looks are the type's
    assert not torch.equal(words[0, :8], words[2, :8])
    assert not torch.equal(words[0, 8:12], words[1, 8:12])  # the place is the mask's
    assert torch.equal(words[0, 12:], start[0, 12:])


@pytest.mark.slow
def test_without_weights_pictures_are_others(quick, shots, good, tmp_path: Path) -> None:
    for name, reweighted in (("with", True), ("without", False)):
        quick["anomaly_diffusion"](shots[:1], good, 1, 5, tmp_path / name, reweighted=reweighted)
    with_, without = (written(tmp_path / name) for name in ("with", "without"))
    assert {name for name in with_ if with_[name] != without[name]} == {
        name for name in with_ if "_mask" not in name
    }


# DFMGAN


@pytest.fixture
def drawn(ports: ModuleType):
    """A backbone, a branch that adds much, and one window's inputs of both."""
    gan = ports.dfmgan
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    inputs = gan._z(1, draw), gan._noise(1, list(gan._CHANNELS), draw)
    own = gan._z(1, draw), gan._noise(1, gan._FINE, draw)
    return gan.Backbone(), gan.Branch(), inputs, own


@torch.inference_mode()
def test_a_defect_changes_the_picture_where_its_mask_is(drawn) -> None:
    backbone, branch, inputs, own = drawn
    plain = backbone(*inputs)
    branch.mask.weight.zero_()
    branch.mask.bias.fill_(-1.0)
    assert torch.equal(branch(backbone, *inputs, *own)[0], plain)  # no mask, no defect
    branch.mask.bias.fill_(1.0)
    image, mask = branch(backbone, *inputs, *own)
    assert (mask >= 0).all()
    assert ((image - plain).abs() > 1e-4).float().mean() > 0.9
    half = torch.full((1, 1, 32, 32), -1.0)
    half[..., :8] = 1.0
    branch.mask.forward = lambda _: half
    image, mask = branch(backbone, *inputs, *own)
    assert (mask[..., :14] >= 0).all()
    assert (mask[..., 18:] < 0).all()
    apart = (image - plain).abs().amax(dim=(0, 1, 2))
    assert (apart[:14] > 1e-3).all()
    assert (apart[26:] == 0).all()  # past the reach of the convolutions after it


def test_stage_two_leaves_the_good_generator_as_it_is(ports: ModuleType, shots) -> None:
    gan = ports.dfmgan
    torch.manual_seed(0)
    backbone, judge = gan.Backbone().requires_grad_(False), gan._Judge(3)
    before = [p.clone() for m in (backbone, judge) for p in m.parameters()]
    crops = Crops(shots[:1], gan.WINDOW, good=0.0)
    branch = gan.learn_defects(backbone, judge, crops, 0, 2, 1, "dot")
    after = [p for m in (backbone, judge) for p in m.parameters()]
    assert all(map(torch.equal, before, after))
    assert all(p.isfinite().all() for p in branch.parameters())  # of a batch of one, too
    torch.manual_seed(0)
    fresh = gan.Branch()
    assert any(
        not torch.equal(a, b) for a, b in zip(branch.parameters(), fresh.parameters(), strict=True)
    )
    again = gan.learn_defects(backbone, judge, crops, 0, 2, 1, "dot")
    assert all(map(torch.equal, branch.parameters(), again.parameters()))


def test_the_good_window_most_like_the_place_is_taken(ports: ModuleType, monkeypatch) -> None:
    gan = ports.dfmgan
    monkeypatch.setattr(gan, "_BANK", 4)
    torch.manual_seed(0)
    bank = gan._Bank(gan.Backbone().requires_grad_(False), 3)
    assert [bank.like(bank._good(number)[0]) for number in range(4)] == [0, 1, 2, 3]
