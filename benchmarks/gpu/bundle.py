"""Make the folder that is carried to a machine without a network: wheels, pictures, the commit.

    benchmarks/gpu.sh bundle

The wheels are those of `ALONE` and `WHOLE` and our own; that nothing else is needed is checked
against what the machine has (`stack.txt`).
"""

from __future__ import annotations

import argparse
import email
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from .conditions import commit

ROOT = Path(__file__).parents[2]
STACK = Path(__file__).with_name("stack.txt")
#: What the machine lacks, beside ourselves: without what it needs in turn, and with it.
ALONE = ("diffusers", "filelock", "platformdirs")
WHOLE = ("importlib_metadata", "pydantic")
#: Extras of ours that the stages use.
EXTRAS = ("train", "export", "gpu")
#: Folders and files that make our wheel.
_SOURCES = (
    "runtime", "kernels", "training", "export", "apps", "pyproject.toml", "README.md", "LICENSE",
)  # fmt: skip
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
#: Carried files in all must stay under 64 MiB with the checkout.
MOST_BYTES = 36 << 20


def main(argv: Sequence[str] | None = None) -> int:
    """Make it and print its size; 1 if something is missing or it is too large."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh bundle", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".gpu"))
    parser.add_argument("--python", default="3.12", help="the machine's version of Python")
    parser.add_argument("--pictures", type=int, default=60, help="of every type of defect")
    parser.add_argument("--good", type=int, default=240, help="good pictures")
    parser.add_argument("--side", type=int, default=320, help="of a picture, in px")
    parser.add_argument("--window", type=int, default=256, help="that the model will see, in px")
    given = parser.parse_args(argv)
    for name in ("wheels", "images"):
        shutil.rmtree(given.out / name, ignore_errors=True)
    collect(given.out / "wheels", given.python)
    draw(given.out / "images", given.good, given.pictures, given.side, given.window)
    (given.out / "commit").write_text(commit() + "\n")
    size = sum(path.stat().st_size for path in given.out.rglob("*") if path.is_file())
    print(f"{given.out}: {size / (1 << 20):.1f} MiB")
    missing = unmet(given.out / "wheels", STACK.read_text().splitlines(), given.python)
    for fault in missing:
        print(f"missing: {fault}", file=sys.stderr)
    if size > MOST_BYTES:
        print(f"larger than {MOST_BYTES >> 20} MiB; carry fewer pictures", file=sys.stderr)
    return int(bool(missing) or size > MOST_BYTES)


def collect(wheels: Path, python: str) -> None:
    """Our wheel, and what the machine lacks in the versions that are tested here."""
    wheels.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    own(wheels, pip)
    target = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    target += [f"--platform={name}" for name in _PLATFORMS]
    pinned = ["--constraint", str(ROOT / "constraints.txt")]
    command = [*pip, "download", "--quiet", *pinned, *target, "--dest", str(wheels)]
    subprocess.run([*command, "--no-deps", *ALONE], check=True)
    subprocess.run([*command, *WHOLE], check=True)


def own(wheels: Path, pip: Sequence[str]) -> None:
    """Build our wheel from a copy: what lies in ``build/`` from another day is left out."""
    with TemporaryDirectory() as folder:
        for name in _SOURCES:
            source, copy = ROOT / name, Path(folder, name)
            skip = shutil.ignore_patterns("__pycache__", "bundled")  # no stage asks for that engine
            if source.is_dir():
                shutil.copytree(source, copy, ignore=skip)
            else:
                shutil.copy(source, copy)
        command = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), folder]
        subprocess.run(command, check=True)


def unmet(wheels: Path, stack: Sequence[str], python: str) -> list[str]:
    """Requirements of the wheels that neither a wheel nor the machine's ``stack`` meets."""
    have: dict[str, str] = {}
    for text in stack:
        if text and not text.startswith("#"):
            name, _, version = text.partition("==")
            have[canonicalize_name(name)] = version
    metadata = [_metadata(path) for path in sorted(wheels.glob("*.whl"))]
    have |= {canonicalize_name(str(found["Name"])): str(found["Version"]) for found in metadata}
    faults = []
    for found in metadata:
        extras = EXTRAS if found["Name"] == "defectrt" else ()
        for needed in _requirements(found, extras, python):
            name = canonicalize_name(needed.name)
            if name not in have:
                faults.append(f"{found['Name']} needs {needed}")
            elif have[name] and not needed.specifier.contains(have[name], prereleases=True):
                faults.append(f"{found['Name']} needs {needed}, and there is {have[name]}")
    return faults


def _metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        return email.message_from_bytes(archive.read(name))


def _requirements(
    metadata: email.message.Message, extras: Sequence[str], python: str
) -> Iterator[Requirement]:
    for text in metadata.get_all("Requires-Dist", []):
        needed = Requirement(text)
        place = {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
        }
        chosen = [place | {"extra": extra} for extra in ("", *extras)]
        if needed.name == "defectrt":
            continue
        if needed.marker is None or any(needed.marker.evaluate(where) for where in chosen):
            yield needed


def draw(out: Path, good: int, defects: int, side: int, window: int) -> None:
    """Surfaces to train on: JPEG at high quality, a third of the bytes, with exact masks."""
    from defectrt.training.surfaces import DEFECT_TYPES, FAMILIES
    from defectrt.training.surfaces import draw as surface

    families = sorted(FAMILIES)
    for group, defect in enumerate([None, *DEFECT_TYPES]):
        folder = out / (defect or "good")
        folder.mkdir(parents=True)
        for i in range(defects if defect else good):
            family = families[i % len(families)]
            image, mask = surface(group * 1_000_000 + i, family, side, defect, window=window)
            Image.fromarray(image).save(folder / f"{i:04}.jpg", quality=92)
            if defect:
                Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(folder / f"{i:04}.png")


if __name__ == "__main__":
    sys.exit(main())
