"""torchvision beside a torch that was built elsewhere."""

from __future__ import annotations

#: Beside a torch from elsewhere torchvision's compiled part does not load; this stands for what of
#: it is used.
WITHOUT_COMPILED = """
import torch
try:
    import torchvision
except RuntimeError:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
    torchvision.extension._has_ops = lambda: True

    def nms(boxes, scores, limit):
        left, kept = scores.argsort(descending=True), []
        while len(left):
            kept.append(left[0])
            left = left[torchvision.ops.box_iou(boxes[left[:1]], boxes[left])[0] <= limit]
        return torch.stack(kept) if kept else left

    library.impl("nms", nms, "CPU")
"""
