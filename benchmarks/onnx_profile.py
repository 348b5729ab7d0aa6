"""What an ONNX engine's denoiser spends its time on, operator by operator, beside a floor.

    python benchmarks/onnx_profile.py [--engine DIR] [--rows 4] >> results/onnx_profile.csv

ONNX Runtime's own profile, of which every operator keeps its best run: on a shared machine the
others hold what it waited. ``cpu_ms`` is the process's own time for a run without the profile,
which waiting does not touch; the parts should add up to it. The floor of products is their FLOPs
over the rate of a large product here, that of the rest its bytes over the rate of a large copy.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort

from defectrt.engines.loading import BUNDLED_ENGINE
from defectrt.engines.manifest import verify
from defectrt.engines.trials import draw_rows

ROOT = Path(__file__).parent
FIELDS = ["part", "operators", "ms", "share", "floor_ms", "GFLOP_s", "cpu_ms", "rows", "repeats",
          "commit", "onnxruntime", "GFLOP_s_ceiling", "GB_s_copy", "note"]  # fmt: skip
PRODUCTS = {"Conv": "convolution", "MatMul": "matrix product", "Gemm": "matrix product",
            "FusedMatMul": "matrix product", "Attention": "attention"}  # fmt: skip
MOVES = {"Transpose", "ReorderInput", "ReorderOutput", "Reshape", "Concat", "Expand", "Split",
         "Slice", "Gather", "Cast", "Unsqueeze", "Squeeze", "Shape"}  # fmt: skip


def part_of(kind):
    """The line of the table that an operator belongs to."""
    if kind in PRODUCTS:
        return PRODUCTS[kind]
    if kind == "LayerNormalization":
        return "layer norm"
    if kind in ("Gelu", "QuickGelu", "Sigmoid"):
        return "gelu and silu"
    return "moving and sizes" if kind in MOVES else "group norm and other arithmetic"


def flops(kind, inputs, outputs):
    """Of one operator from the shapes in its profile; 0 for what is no product."""
    if kind == "Conv":
        return 2 * np.prod(outputs[0]) * np.prod(inputs[1][1:])
    if kind in ("MatMul", "FusedMatMul", "Gemm"):
        return 2 * np.prod(outputs[0]) * inputs[0][-1]
    if kind == "Attention":
        (b, h, n, d), keys = inputs[0], inputs[1][2]
        return 4 * b * h * n * keys * d
    return 0


def profile(path, feeds, repeats):
    """Of every operator its kind, the shapes of its inputs and outputs, and its best seconds."""
    with TemporaryDirectory() as folder:
        options = one_thread()
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/run"
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(repeats):
            session.run(None, feeds)
            time.sleep(0.01)  # else the scheduler cuts in at the same operator every time
        events = json.loads(Path(session.end_profiling()).read_text())
    runs, about = defaultdict(list), {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name, given = event["name"].removesuffix("_kernel_time"), event["args"]
            runs[name].append(event["dur"] / 1e6)
            about[name] = (
                given["op_name"],
                *([s for x in given[k] for s in x.values()]
                  for k in ("input_type_shape", "output_type_shape")),
            )  # fmt: skip
    return [(*about[name], min(seconds)) for name, seconds in runs.items()]


def ceilings():
    """FLOP/s of ONNX Runtime's own product of 1024 and bytes/s of a copy of 64 MB, one thread."""
    kind = onnx.TensorProto.FLOAT
    shapes = {"a": [1024, 1024], "b": [1024, 1024], "c": [1024, 1024]}
    a, b, c = (onnx.helper.make_tensor_value_info(n, kind, s) for n, s in shapes.items())
    node = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph([node], "product", [a, b], [c])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)])
    model.ir_version = 10
    session = ort.InferenceSession(
        model.SerializeToString(), one_thread(), providers=["CPUExecutionProvider"]
    )
    feeds = {n: np.random.default_rng(0).normal(size=shapes[n]).astype(np.float32) for n in "ab"}
    source = np.ones(2**24, np.float32)
    target = np.empty_like(source)
    product = min(timed(lambda: session.run(None, feeds)) for _ in range(15))
    copy = min(timed(lambda: np.copyto(target, source)) for _ in range(15))
    return 2 * 1024**3 / product, 2 * source.nbytes / copy


def one_thread():
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return options


def timed(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", type=Path, default=BUNDLED_ENGINE)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--note", default="")
    parser.add_argument("--head", action="store_true", help="the line of names too")
    options = parser.parse_args()
    rows = draw_rows(verify(options.engine), options.rows)
    feeds = {f.name: getattr(rows, f.name) for f in fields(rows)}
    path = options.engine / "denoiser.onnx"
    peak, copy = ceilings()
    session = ort.InferenceSession(str(path), one_thread(), providers=["CPUExecutionProvider"])
    cpu = statistics.median(timed(lambda: session.run(None, feeds)) for _ in range(10))
    parts = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for kind, inputs, outputs, seconds in profile(path, feeds, options.repeats):
        work = flops(kind, inputs, outputs)
        moved = 4 * sum(np.prod(s) for s in (*inputs, *outputs))
        line = parts[part_of(kind)]
        for i, value in enumerate((1, seconds, work / peak if work else moved / copy, work)):
            line[i] += value
    total = sum(line[1] for line in parts.values())
    commit = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, text=True,
                            capture_output=True, check=False).stdout.strip()  # fmt: skip
    writer = csv.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
    if options.head:
        writer.writeheader()
    for part, (count, seconds, floor, work) in sorted(parts.items(), key=lambda x: -x[1][1]):
        writer.writerow(dict(zip(FIELDS, (
            part, count, f"{1e3 * seconds:.2f}", f"{seconds / total:.3f}", f"{1e3 * floor:.2f}",
            f"{work / seconds / 1e9:.0f}" if work else "", f"{1e3 * cpu:.1f}", options.rows,
            options.repeats, commit, ort.__version__, f"{peak / 1e9:.0f}", f"{copy / 1e9:.1f}",
            options.note), strict=True)))  # fmt: skip


if __name__ == "__main__":
    main()
