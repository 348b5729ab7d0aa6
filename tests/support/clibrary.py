"""libdefectrt from Python, by ctypes: builds it, or finds it, and mirrors its header."""

from __future__ import annotations

import ctypes as c
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
FORMATS = {1: 0, 2: 1, 3: 2, 4: 3}
CODES = {"UsageError": 2, "InputError": 3, "EngineError": 4}


class UnavailableError(Exception):
    """There is neither a library nor what it takes to build one."""


class EngineOptions(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("threads", c.c_int32),
        ("trust", c.c_char_p),
        ("onnxruntime", c.c_char_p),
    ]


class EngineInfo(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        *[(name, c.c_int32) for name in ("format_version", "window")],
        *[(f"latent_{name}", c.c_int32) for name in ("channels", "height", "width")],
        *[(name, c.c_int32) for name in ("defect_types", "default_steps", "schedules")],
    ]


class Options(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("defect", c.c_char_p),
        *[(name, c.c_int32) for name in ("steps", "background", "blend", "refine")],
        *[
            (name, c.c_double)
            for name in ("refine_threshold", "min_change", "min_grain", "refine_smooth")
        ],
        ("refine_min_area", c.c_int32),
        *[(name, c.c_double) for name in ("min_coverage", "max_leak", "grow", "feather")],
        *[(name, c.c_int32) for name in ("context", "batch_size", "workers", "queue", "retries")],
    ]


class Image(c.Structure):
    _fields_ = [
        ("data", c.c_void_p),
        ("stride", c.c_ssize_t),
        ("width", c.c_uint32),
        ("height", c.c_uint32),
        ("format", c.c_int32),
        ("depth", c.c_int32),
    ]


class MaskView(c.Structure):
    _fields_ = [("data", c.c_void_p), ("stride", c.c_ssize_t)]


class Request(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("image", Image),
        ("mask", MaskView),
        ("seed", c.c_uint64),
        ("candidates", c.c_uint32),
        ("progress", c.c_void_p),
        ("user", c.c_void_p),
        ("instances", c.POINTER(MaskView)),
        ("instance_count", c.c_uint32),
        ("split", c.c_int32),
        ("strength", c.c_double),
        ("release", c.c_void_p),
        ("defects", c.POINTER(c.c_char_p)),
        ("strengths", c.POINTER(c.c_double)),
        ("within", MaskView),
    ]


class Result(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("image", c.c_void_p),
        ("image_stride", c.c_ssize_t),
        ("mask", c.c_void_p),
        ("mask_stride", c.c_ssize_t),
        ("band", c.c_void_p),
        ("band_stride", c.c_ssize_t),
        ("latent", c.c_void_p),
        ("latent_size", c.c_size_t),
        *[(f"window_{name}", c.c_int64) for name in ("y", "x", "side")],
        *[(f"{name}_area", c.c_int64) for name in ("mask", "refined", "changed")],
        *[(name, c.c_double) for name in ("visibility", "coverage", "seam")],
        *[(name, c.c_double) for name in ("latent_outside_error", "seconds")],
        *[(name, c.c_uint32) for name in ("tiles", "candidate", "rejected")],
        ("message", c.c_char * 256),
        ("strength", c.c_double),
    ]


class StatusError(Exception):
    """A status other than OK."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def onnxruntime_sdk():
    """Where ONNX Runtime's headers and library are, or are put."""
    return Path(os.environ.get("ONNXRUNTIME_ROOT", ROOT / ".cache" / "onnxruntime-sdk"))


def build():
    """The shared library; DEFECTRT_LIBRARY names one that is there already."""
    if given := os.environ.get("DEFECTRT_LIBRARY"):
        return Path(given)
    needed = [name for name in ("cmake", "c++") if not shutil.which(name)]
    sdk = onnxruntime_sdk()
    if not (sdk / "include" / "onnxruntime_c_api.h").exists() and not shutil.which("npm"):
        needed.append("npm")
    if needed:
        raise UnavailableError(f"building libdefectrt needs {', '.join(needed)}")
    fetch = subprocess.run(
        [ROOT / "cpp" / "cmake" / "fetch-onnxruntime.sh", sdk, sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    if fetch.returncode:
        raise UnavailableError(f"no ONNX Runtime SDK: {fetch.stderr.strip()}")
    out = ROOT / ".cache" / "cpp"
    options = ["-DDEFECTRT_TESTS=OFF", "-DDEFECTRT_EXAMPLES=OFF", f"-DONNXRUNTIME_ROOT={sdk}"]
    configure = ["cmake", "-S", ROOT, "-B", out]
    for command in ([*configure, *options], ["cmake", "--build", out, "--parallel", "2"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return out / "cpp" / "libdefectrt.so"


class Library:
    """The functions, with handles as numbers."""

    def __init__(self, path):
        self.c = c.CDLL(str(path))
        for name in ("engine", "session"):
            getattr(self.c, f"defectrt_{name}_error").restype = c.c_size_t
            getattr(self.c, f"defectrt_{name}_destroy").restype = None
        self.c.defectrt_task_record.restype = c.c_size_t
        self.c.defectrt_sample_seed.restype = c.c_uint64
        self.c.defectrt_sample_seed.argtypes = [c.c_uint64, c.c_char_p, c.c_uint32]

    def sample_seed(self, seed, name, sample):
        return self.c.defectrt_sample_seed(seed, name.encode(), sample)

    def check(self, status, kind, handle):
        if status:
            text = c.create_string_buffer(1 << 20)
            getattr(self.c, f"defectrt_{kind}_error")(handle, text, c.c_size_t(len(text)))
            raise StatusError(status, text.value.decode())

    def open(self, directory, threads=0, trust=None, onnxruntime=None):
        engine = c.c_void_p()
        assert self.c.defectrt_engine_create(c.byref(engine)) == 0
        try:
            options = EngineOptions(c.sizeof(EngineOptions), threads, (trust or "").encode())
            options.onnxruntime = str(onnxruntime).encode() if onnxruntime else None
            path = str(directory).encode()
            status = self.c.defectrt_engine_open(engine, path, c.byref(options))
            self.check(status, "engine", engine)
        except StatusError:
            self.c.defectrt_engine_destroy(engine)
            raise
        return engine

    def session(self, engine, **options):
        given = Options()
        size = c.c_size_t(c.sizeof(Options))
        assert self.c.defectrt_session_options_init(c.byref(given), size) == 0
        for name, value in options.items():
            assert hasattr(given, name), f"the options have no {name}"
            setattr(given, name, value)
        session = c.c_void_p()
        status = self.c.defectrt_session_create(engine, c.byref(given), c.byref(session))
        self.check(status, "engine", engine)
        return session

    def synthesize(self, session, image, masks, seed, candidates=1, latent=0, **more):
        """(image, label, band, latent, result) for [H,W,C] and instances [N,H,W]; see `request`."""
        image = np.ascontiguousarray(image)
        request = self.request(image, masks, seed, candidates, **more)
        z = np.empty(latent, np.float32)
        result, *made = self.result(image, z)
        status = self.c.defectrt_synthesize(session, c.byref(request), c.byref(result))
        if status:
            raise StatusError(status, result.message.decode())
        return *made, z, result

    def submit(self, session, image, masks, seed, candidates=1, **more):
        """(image, label, band, record) of a task."""
        image = np.ascontiguousarray(image)
        request = self.request(image, masks, seed, candidates, **more)
        task = c.c_void_p()
        status = self.c.defectrt_submit(session, c.byref(request), -1, c.byref(task))
        self.check(status, "session", session)
        try:
            self.c.defectrt_task_wait(task, -1)
            result, *made = self.result(image)
            if status := self.c.defectrt_task_result(task, c.byref(result)):
                raise StatusError(status, result.message.decode())
            text = c.create_string_buffer(1 << 16)
            self.c.defectrt_task_record(task, text, c.c_size_t(len(text)))
            return *made, json.loads(text.value)
        finally:
            self.c.defectrt_task_release(task)

    def request(
        self,
        image,
        masks,
        seed,
        candidates=1,
        *,
        split=False,
        strength=0.0,
        defects=None,
        strengths=None,
        within=None,
    ):
        """For an image that is contiguous; keeps what it points to."""
        masks = [np.ascontiguousarray(mask, np.uint8) for mask in masks]
        height, width, channels = image.shape
        request = Request(c.sizeof(Request), seed=seed, candidates=candidates)
        request.split, request.strength = split, strength
        depth, data = image.itemsize * 8, image.ctypes.data
        request.image = Image(data, image.strides[0], width, height, FORMATS[channels], depth)
        views = [MaskView(mask.ctypes.data, mask.strides[0]) for mask in masks]
        request.mask, request.instance_count = views[0], len(views) - 1
        request.instances = (MaskView * (len(views) - 1))(*views[1:])
        if defects:
            request.defects = (c.c_char_p * len(masks))(*(d and d.encode() for d in defects))
        if strengths:
            request.strengths = (c.c_double * len(masks))(*strengths)
        if within is not None:
            masks.append(np.ascontiguousarray(within, np.uint8))
            request.within = MaskView(masks[-1].ctypes.data, 0)
        request.kept = masks
        return request

    def result(self, image, latent=None):
        """A result for an image, and the arrays that it fills: image, label, band."""
        out = np.empty_like(image)
        label, band = np.empty((2, *image.shape[:2]), np.uint8)
        result = Result(c.sizeof(Result))
        result.image, result.mask = out.ctypes.data, label.ctypes.data
        result.band = band.ctypes.data
        if latent is not None and latent.size:
            result.latent, result.latent_size = latent.ctypes.data, latent.size
        return result, out, label, band


class Recorder:
    """An engine that keeps the latents it decodes."""

    def __init__(self, engine):
        self.engine, self.latents = engine, []
        self.manifest, self.encode, self.step = engine.manifest, engine.encode, engine.step
        self.calls, self.stop = engine.calls, engine.stop

    def decode(self, latent):
        self.latents.append(latent.copy())
        return self.engine.decode(latent)


def in_python(
    directory,
    image,
    instances,
    seed,
    config,
    *,
    strength=None,
    strengths=None,
    defects=None,
    **options,
):
    """The sample as Python makes it, and all latents that were decoded.

    Imported here: a process that holds the library alone shall not have Python's runtime too.
    """
    from defectrt.engines.loading import load_engine
    from defectrt.synthesis.pipeline import Pipeline, SourceImage
    from defectrt.synthesis.scheduler import Scheduler, Task

    with load_engine(directory, **options) as engine:
        recorder = Recorder(engine)
        wanted = strengths or [strength] * len(instances)
        pipeline = Pipeline(recorder, config, defects[0] if defects else None)
        work = pipeline.sample(
            SourceImage("x", image), 0, instances, seed, strengths=wanted, defects=defects
        )
        (task,) = Scheduler(recorder).run([Task(work)])
        return task.result(), recorder.latents
