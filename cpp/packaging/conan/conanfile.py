"""libdefectrt for Conan 2, of the checkout that this file lies in.

    ONNXRUNTIME_ROOT=SDK conan create cpp/packaging/conan

ONNXRUNTIME_ROOT has ONNX Runtime's headers (cpp/cmake/fetch-onnxruntime.sh brings them). Nothing
else is needed, and no remote.
"""

import re
from pathlib import Path

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy

ROOT = Path("..") / ".." / ".."


class Defectrt(ConanFile):
    """The library alone; the linkage is the option ``shared``'s."""

    name = "defectrt"
    description = "Realistic, labelled defects in photographs of good parts"
    license = "Apache-2.0"
    package_type = "library"
    settings = "os", "compiler", "build_type", "arch"
    options = {"shared": [True, False]}
    default_options = {"shared": True}

    def set_version(self):
        text = (Path(self.recipe_folder) / ROOT / "runtime" / "__init__.py").read_text()
        self.version = re.search(r'__version__ = "(.*)"', text).group(1)

    def export_sources(self):
        root = str(Path(self.recipe_folder) / ROOT)
        for pattern in ("CMakeLists.txt", "LICENSE", "runtime/__init__.py", "cpp/*"):
            copy(self, pattern, root, self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["DEFECTRT_SHARED"] = bool(self.options.shared)
        toolchain.cache_variables["DEFECTRT_STATIC"] = not self.options.shared
        for part in ("TESTS", "EXAMPLES"):
            toolchain.cache_variables[f"DEFECTRT_{part}"] = False
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", self.source_folder, str(Path(self.package_folder) / "licenses"))

    def package_info(self):
        self.cpp_info.libs = ["defectrt"]
        self.cpp_info.set_property("cmake_target_name", "defectrt::defectrt")
        if not self.options.shared:
            self.cpp_info.defines = ["DEFECTRT_STATIC"]
            if self.settings.os in ("Linux", "FreeBSD"):
                self.cpp_info.system_libs = ["dl", "m", "pthread"]
