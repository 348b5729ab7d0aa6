"""Each way into libdefectrt that the guide has, run as it stands there, as an integrator would.

On an installed tree that was moved, in an environment that has nothing but a PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import clibrary, pages

pytestmark = pytest.mark.slow
ROOT = clibrary.ROOT
GUIDE = ROOT / "docs" / "integrators-guide.md"
ENGINE = ROOT / "cpp" / "tests" / "engine"
WITHOUT = 4
PROJECT = """
cmake_minimum_required(VERSION 3.22)
project(app LANGUAGES CXX)
add_executable(app main.cpp)
{block}
"""


def blocks(begins):
    """The guide's indented blocks of "Use" that begin so."""
    section = GUIDE.read_text(encoding="utf-8").split("\n## Use\n")[1].split("\n##")[0]
    found = [[]]
    for line in section.splitlines():
        if line.startswith("    "):
            found[-1].append(line[4:])
        elif found[-1]:
            found.append([])
    return ["\n".join(block) for block in found if block and block[0].startswith(begins)]


CMAKE, SHELL = blocks(("find_package", "include(FetchContent")), blocks(("export", "c++"))


@pytest.fixture(scope="module")
def build():
    """The folder of a build."""
    try:
        return clibrary.build().parents[1]
    except clibrary.UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def prefix(build, tmp_path_factory):
    """Where it is installed, after it was moved there."""
    first = tmp_path_factory.mktemp("first") / "prefix"
    install = ["cmake", "--install", build, "--prefix", first]
    subprocess.run(install, check=True, capture_output=True)
    return shutil.move(first, tmp_path_factory.mktemp("moved") / "here")


@pytest.fixture
def desk(tmp_path, prefix):
    """A folder with the guide's program, and a shell in it."""
    (program,) = pages.fenced(GUIDE.read_text(encoding="utf-8"), "cpp")
    (tmp_path / "main.cpp").write_text(program, encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}
    environment |= {"SDK": str(clibrary.onnxruntime_sdk()), "PREFIX": str(prefix)}

    def shell(line, **more):
        return subprocess.run(
            ["/bin/sh", "-euc", line],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    return shell


def runs(shell, app):
    """The program makes a sample, with nothing set, and leaves no file behind."""
    done = shell(f"{app} {ENGINE}; test ! -e home")
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = done.stdout.splitlines()[1:]
    assert json.loads(record)["masks"] == [{"defect": "spot"}]


def test_a_program_starts_without_onnx_runtime_and_says_what_is_missing(desk, prefix):
    (line,) = (block for block in SHELL if "-ldefectrt" in block)
    assert desk(line).returncode == 0
    done = desk(f"./app {ENGINE}")
    assert done.returncode == WITHOUT
    assert f"neither libonnxruntime.so.1 in {prefix}/lib nor where the system" in done.stderr
    assert "there is no ONNX Runtime" in done.stdout
    runs(desk, "DEFECTRT_ONNXRUNTIME=$SDK/lib/libonnxruntime.so.1 ./app")
    assert desk("find . -name '*onnxruntime*'").stdout == ""


@pytest.fixture(scope="module")
def beside(prefix):
    """ONNX Runtime, put where the guide says."""
    (line,) = blocks("cp")
    environment = {"PATH": os.environ["PATH"], "PREFIX": str(prefix)}
    environment["SDK"] = str(clibrary.onnxruntime_sdk())
    subprocess.run(["/bin/sh", "-euc", line], env=environment, check=True)


@pytest.mark.parametrize("block", CMAKE)
@pytest.mark.usefixtures("beside")
def test_cmake(desk, tmp_path, block):
    (tmp_path / "CMakeLists.txt").write_text(PROJECT.format(block=block), encoding="utf-8")
    options = '-DCMAKE_PREFIX_PATH="$PREFIX"'
    told = {}
    if "FetchContent" in block:
        options = '-DONNXRUNTIME_ROOT="$SDK" -DDEFECTRT_SHARED=OFF'
        options += " -DCMAKE_CXX_FLAGS_RELEASE=-O0"
        told = {"DEFECTRT": str(ROOT)}
        if shutil.which("ccache"):
            kept = Path(os.environ.get("CCACHE_DIR", Path.home() / ".cache" / "ccache"))
            told |= {"CMAKE_CXX_COMPILER_LAUNCHER": "ccache", "CCACHE_DIR": str(kept)}
    built = desk(f"cmake -S . -B build {options} && cmake --build build --parallel 2", **told)
    assert built.returncode == 0, built.stdout + built.stderr
    if "shared" not in block and "0.1 REQUIRED)" not in block:
        assert desk('cp "$SDK/lib/libonnxruntime.so.1" build/').returncode == 0
    runs(desk, "build/app")


@pytest.mark.parametrize("block", SHELL)
@pytest.mark.usefixtures("beside")
def test_a_compiler(desk, block):
    done = desk(block)
    assert done.returncode == 0, done.stderr
    runs(desk, "./app")


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="Debian's packages need dpkg")
def test_a_debian_package(desk, build, tmp_path):
    pack = ["cpack", "-G", "DEB", "-B", tmp_path, "--config", build / "CPackConfig.cmake"]
    subprocess.run(pack, check=True, capture_output=True)
    (package,) = tmp_path.glob("libdefectrt_*.deb")
    assert "onnxruntime" not in desk(f"dpkg-deb --field {package} Depends").stdout
    assert desk(f"dpkg-deb --extract {package} system").returncode == 0
    (line,) = (block for block in SHELL if "-ldefectrt" in block)
    done = desk(line, PREFIX=str(tmp_path / "system" / "usr"))
    assert done.returncode == 0, done.stderr
    runs(desk, "DEFECTRT_ONNXRUNTIME=$SDK/lib/libonnxruntime.so.1 ./app")


@pytest.mark.skipif(not (shutil.which("mcs") and shutil.which("mono")), reason="no C# compiler")
@pytest.mark.usefixtures("beside")
def test_c_sharp(desk):
    assert desk(f"mcs -out:once.exe {ROOT / 'cpp' / 'examples' / 'Once.cs'}").returncode == 0
    done = desk(f'LD_LIBRARY_PATH="$PREFIX/lib" mono once.exe {ENGINE}')
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["masks"] == [{"defect": "spot"}]
    assert desk('LD_LIBRARY_PATH="$PREFIX/lib" mono once.exe nowhere').returncode == WITHOUT


OPENCV = """
#include <defectrt/defectrt.hpp>
#include <opencv2/core.hpp>
{code}
int main(int, char **argv) {{
    const defectrt::Engine engine(argv[1], 1);
    defectrt::Session session(engine);
    for (const int type : {{CV_8UC1, CV_8UC3, CV_8UC4, CV_16UC1, CV_16UC3, CV_16UC4}}) {{
        const bool deep = CV_MAT_DEPTH(type) == CV_16U;
        cv::Mat all(70, 90, type, cv::Scalar::all(deep ? 40000 : 150));
        cv::Mat marks = cv::Mat::zeros(70, 90, CV_8UC1), made, differ, changed;
        const cv::Rect part(10, 8, 60, 50), spot(20, 15, 12, 9);
        marks(part)(spot).setTo(255);
        paint(session, all(part), marks(part), made);
        cv::absdiff(made, all(part), differ);
        changed = differ.reshape(1) > 0;
        if (cv::countNonZero(changed) == 0) return 1;
        changed = changed.reshape(CV_MAT_CN(type));
        changed(spot + cv::Size(14, 14) - cv::Point(7, 7)).setTo(cv::Scalar::all(0));
        if (cv::countNonZero(changed.reshape(1)) != 0) return 2;
    }}
    try {{
        cv::Mat made;
        paint(session, cv::Mat::zeros(50, 60, CV_32FC1), cv::Mat::ones(50, 60, CV_8UC1), made);
    }} catch (const defectrt::Error &error) {{
        return error.status() == DEFECTRT_INPUT ? 0 : 3;
    }}
    return 4;
}}
"""


@pytest.mark.skipif(
    not Path("/usr/include/opencv4/opencv2/core.hpp").exists(), reason="OpenCV has no headers here"
)
@pytest.mark.usefixtures("beside")
def test_opencv(desk, tmp_path):
    page = (ROOT / "docs" / "pictures-of-other-libraries.md").read_text(encoding="utf-8")
    (code,) = pages.fenced(page, "cpp")
    (tmp_path / "main.cpp").write_text(OPENCV.format(code=code), encoding="utf-8")
    (line,) = (block for block in SHELL if "-ldefectrt" in block)
    done = desk(f"{line} -I/usr/include/opencv4 -lopencv_core -Wall -Wextra -Werror")
    assert done.returncode == 0, done.stderr
    done = desk(f"./app {ENGINE}")
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_the_guide_has_every_way():
    assert [len(CMAKE), len(SHELL)] == [4, 3]
