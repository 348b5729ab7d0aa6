# Finds ONNX Runtime's headers and defines ONNXRuntime::ONNXRuntime, which has nothing else: the
# library is loaded while the program runs. ONNXRuntime_LIBRARY is one to run the tests with, if there
# is any.
#
# Looked for, in this order: in ONNXRUNTIME_ROOT (a variable or the environment's), as an installed
# CMake package, and where the system keeps headers. Where there are none, fetch-onnxruntime.sh brings
# them.
if(NOT ONNXRUNTIME_ROOT AND DEFINED ENV{ONNXRUNTIME_ROOT})
  set(ONNXRUNTIME_ROOT "$ENV{ONNXRUNTIME_ROOT}")
endif()

set(_where "")
if(ONNXRUNTIME_ROOT)
  set(_where PATHS "${ONNXRUNTIME_ROOT}" NO_DEFAULT_PATH)
else()
  find_package(onnxruntime CONFIG QUIET)
  if(TARGET onnxruntime::onnxruntime)
    get_target_property(_where onnxruntime::onnxruntime INTERFACE_INCLUDE_DIRECTORIES)
    list(INSERT _where 0 HINTS)
  endif()
endif()
find_path(ONNXRuntime_INCLUDE_DIR onnxruntime_c_api.h ${_where}
          PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session
                        onnxruntime onnxruntime/core/session)
find_library(ONNXRuntime_LIBRARY onnxruntime ${_where} PATH_SUFFIXES lib lib64)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  ONNXRuntime
  REQUIRED_VARS ONNXRuntime_INCLUDE_DIR
  REASON_FAILURE_MESSAGE
  "install ONNX Runtime's headers, give -DONNXRUNTIME_ROOT=DIR, or fetch them with cpp/cmake/fetch-onnxruntime.sh DIR")

if(ONNXRuntime_FOUND AND NOT TARGET ONNXRuntime::ONNXRuntime)
  add_library(ONNXRuntime::ONNXRuntime INTERFACE IMPORTED)
  target_include_directories(ONNXRuntime::ONNXRuntime SYSTEM
                             INTERFACE "${ONNXRuntime_INCLUDE_DIR}")
endif()
