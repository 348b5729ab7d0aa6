"""What is installed here, and what of it works: `defectrt doctor`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from packaging.requirements import Requirement

from . import __version__
from .cores import cores
from .errors import DefectRTError, EngineError, MissingExtraError

if TYPE_CHECKING:
    from .engines.manifest import Manifest

__all__ = ["Finding", "examine"]

Level = Literal["ok", "note", "fault"]

#: y = x + x on two numbers, as ONNX: too small to depend on anything but the provider itself.
_TINY = bytes.fromhex(
    "08083a350a0e0a01780a017812017922034164641201675a0f0a0178120a0a08080112040a020802"
    "620f0a0179120a0a08080112040a02080242040a00100d"
)
#: Asks a service in the cloud; nothing that runs here.
_REMOTE = {"AzureExecutionProvider"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    level    ``ok``; ``note`` for what is missing and may be; ``fault`` for what must be mended
    topic    what it is about
    text     what was found
    advice   what to do, if anything
    """

    level: Level
    topic: str
    text: str
    advice: str = ""


def examine(
    engine: Path | None = None,
    trust: str | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Iterator[Finding]:
    """Look at everything, one finding after another; raises nothing.

    ``engine`` is the one to test, by default the bundled one; ``trust`` as in
    `defectrt.engines.loading.load_engine`. ``say`` is told what comes next, where it takes a while.
    """
    yield _system()
    yield from _packages()
    yield from _extras()
    yield from _runtime()
    say("trying every provider on a tiny graph")
    yield from _providers()
    yield from _plans()
    yield from _engine(engine, trust, say)


def _system() -> Finding:
    python = f"Python {platform.python_version()} in {sys.prefix}"
    system = f"{platform.system()} {platform.release()} {platform.machine()}, {cores()} cores"
    return Finding("ok", "system", f"defectrt {__version__}, {python}; {system}")


def _packages() -> Iterator[Finding]:
    """What the program cannot do without."""
    for name in _requirements()[""]:
        version = _version(name)
        if version:
            yield Finding("ok", "package", f"{name} {version}")
        elif name == "onnxruntime" and _owners("onnxruntime"):
            continue  # another build of it is there
        else:
            yield Finding("fault", "package", f"{name} is missing", f"pip install {name}")


def _extras() -> Iterator[Finding]:
    requirements = _requirements()
    for extra, names in requirements.items():
        if not extra or extra == "test":
            continue
        missing = [name for name in names if not _version(name)]
        if missing:
            text = f"{extra}: not installed ({', '.join(missing)} missing)"
            yield Finding("note", "extra", text, f"pip install 'defectrt[{extra}]'")
        else:
            versions = ", ".join(f"{name} {_version(name)}" for name in names)
            yield Finding("ok", "extra", f"{extra}: {versions}")


def _requirements() -> dict[str, list[str]]:
    """Names of the packages that this machine needs, by extra; those without one under ""."""
    every = [Requirement(line) for line in metadata.requires("defectrt") or []]
    extras = metadata.metadata("defectrt").get_all("Provides-Extra") or []
    return {extra: list(dict.fromkeys(_names(every, extra))) for extra in ("", *extras)}


def _names(every: list[Requirement], extra: str) -> Iterator[str]:
    """What ``extra`` asks for beside what is needed anyway, and the extras that it builds on."""
    for requirement in every:
        if not _applies(requirement, extra) or (extra and _applies(requirement, "")):
            continue
        if requirement.name == "defectrt":
            for part in sorted(requirement.extras):
                yield from _names(every, part)
        else:
            yield requirement.name


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _owners(module: str) -> list[str]:
    """The installed packages that bring a module."""
    return sorted(set(metadata.packages_distributions().get(module, [])))


def _runtime() -> Iterator[Finding]:
    """Two builds of ONNX Runtime overwrite each other's files."""
    owners = _owners("onnxruntime")
    if len(owners) > 1:
        text = f"{' and '.join(owners)} are both installed and overwrite each other's files"
        keep = next(name for name in reversed(owners) if name != "onnxruntime")
        advice = f"pip uninstall -y {' '.join(owners)} && pip install {keep}"
        yield Finding("fault", "onnxruntime", text, advice)


def _providers() -> Iterator[Finding]:
    """Every provider of this ONNX Runtime on a tiny graph: being listed is not working."""
    try:
        import onnxruntime as ort

        from .engines.providers import PROVIDERS, outdated, upgrade

        names = [name for name in ort.get_available_providers() if name not in _REMOTE]
    except Exception as error:  # a broken build fails in whatever way
        yield Finding("fault", "onnxruntime", f"cannot be used: {_short(error)}")
        return
    if "CUDAExecutionProvider" not in names and Path("/dev/nvidiactl").exists():
        text = "an NVIDIA GPU is here, and this ONNX Runtime has no provider for it"
        advice = f"pip uninstall -y {ort.package_name} && pip install onnxruntime-gpu"
        yield Finding("note", "provider", text, advice)
    for name in names:
        try:
            yield Finding("ok", "provider", f"{name} works ({1e3 * _try(ort, name):.1f} ms)")
        except Exception as error:  # ONNX Runtime's own errors share no narrower base
            level: Level = "fault" if name == "CPUExecutionProvider" else "note"
            yield Finding(level, "provider", f"{name} is there and does not work: {_short(error)}")
    for provider in PROVIDERS.values():
        if provider.ort in names and (fault := outdated(provider)):
            yield Finding("note", "provider", fault, upgrade(provider))


def _plans() -> Iterator[Finding]:
    """TensorRT and TensorRT-RTX, where they are installed: what they could run on here."""
    try:
        from .engines.tensorrt_engine import Card, library
    except ImportError:  # numpy, which was found missing above
        return
    for backend in ("tensorrt-rtx", "tensorrt"):
        try:
            name = f"{backend} {library(backend).__version__}"
            capability = Card().capability()
        except (MissingExtraError, ImportError):
            continue  # said above, among the extras
        except EngineError as error:
            yield Finding("note", "backend", f"{name} can build engines and run none: {error}")
        else:
            text = f"{name}, a card of compute capability {capability}; never tried on hardware yet"
            yield Finding("ok", "backend", text)


def _try(ort: Any, provider: str) -> float:
    """Seconds of one run of a tiny graph; raises whatever goes wrong, a wrong sum too."""
    import numpy as np

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if provider != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(_TINY, sess_options=options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError("ONNX Runtime fell back to another provider")
    start = perf_counter()
    (y,) = session.run(None, {"x": np.array([1, 2], np.float32)})
    if y.tolist() != [2, 4]:
        raise RuntimeError(f"1 + 1, 2 + 2 is {y.tolist()}")
    return perf_counter() - start


def _engine(
    directory: Path | None, trust: str | None, say: Callable[[str], object]
) -> Iterator[Finding]:
    """Verify an engine and make one defect with it."""
    try:
        from .engines.loading import BUNDLED_ENGINE
        from .engines.manifest import verify
    except ImportError as error:  # a package that was found missing above
        yield Finding("fault", "engine", f"cannot be tested: {_short(error)}")
        return
    where = directory or BUNDLED_ENGINE
    name = str(directory) if directory else "the bundled engine"
    try:
        say(f"verifying {name}")
        manifest = verify(where)
        defect_types = ", ".join(manifest.defect_types)
        yield Finding(
            "ok", "engine", f"{name} is intact ({manifest.backend}); it makes: {defect_types}"
        )
        steps = min(map(int, manifest.schedule.tables))
        say("making one defect with it")
        yield _self_test(where, manifest.defect_types[0], steps, trust)
        if manifest.backend == "onnx":
            say("timing it on every provider")
            yield from _trials(where, manifest)
    except DefectRTError as error:
        yield Finding("fault", "engine", str(error), "pip install --force-reinstall defectrt")


def _self_test(directory: Path, defect: str, steps: int, trust: str | None) -> Finding:
    """One defect on a drawn image: it must show, and nothing else may change."""
    import numpy as np

    from .synthesis.synthesizer import Synthesizer

    image = np.random.default_rng(0).normal(150, 6, (96, 96, 3)).clip(0, 255).astype(np.uint8)
    start = perf_counter()
    with Synthesizer(
        engine=directory, trust=trust, defect=defect, steps=steps, candidates=2
    ) as synthesizer:
        result = synthesizer(image)
    seconds = perf_counter() - start
    if result.fault:
        return Finding("fault", "self-test", f"{defect}: {result.fault}")
    outside = (result.image != image)[~result.band].any()
    if outside:
        return Finding("fault", "self-test", f"{defect}: pixels outside the mask changed")
    text = f"one {defect} in {steps} steps, {result.label.sum()} px, {seconds:.1f} s"
    return Finding("ok", "self-test", text)


def _trials(directory: Path, manifest: Manifest) -> Iterator[Finding]:
    """Every provider on the engine itself, and which one to use."""
    from .engines.trials import choose, try_providers

    trials = []
    for trial in try_providers(directory, manifest):
        trials.append(trial)
        if trial.fault:
            yield Finding("note", "speed", f"{trial.provider} cannot run it: {trial.fault}")
        else:
            text = (
                f"{trial.provider}: {trial.rate:.1f} rows/s, open after {trial.start:.1f} s, "
                f"{trial.error:.0e} off the CPU"
            )
            yield Finding("ok", "speed", text)
    best = choose(trials)
    why = "the only one here" if len(trials) == 1 else "the fastest here by a clear margin"
    if best.provider == "cpu" and len(trials) > 1:
        why = "no other is clearly faster"
    yield Finding("ok", "provider", f"use --provider {best.provider}: {why}")


def _short(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
