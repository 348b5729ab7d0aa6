# Finds ONNX Runtime and defines ONNXRuntime::ONNXRuntime.
#
# Looked for, in this order: in ONNXRUNTIME_ROOT (a variable or the environment's), as an installed
# CMake package, and where the system keeps headers and libraries. Where there is none,
# fetch-onnxruntime.sh brings one.
if(NOT ONNXRUNTIME_ROOT AND DEFINED ENV{ONNXRUNTIME_ROOT})
  set(ONNXRUNTIME_ROOT "$ENV{ONNXRUNTIME_ROOT}")
endif()

if(NOT ONNXRUNTIME_ROOT)
  find_package(onnxruntime CONFIG QUIET)
endif()

if(TARGET onnxruntime::onnxruntime)
  get_target_property(ONNXRuntime_INCLUDE_DIR onnxruntime::onnxruntime
                      INTERFACE_INCLUDE_DIRECTORIES)
  set(ONNXRuntime_LIBRARY onnxruntime::onnxruntime)
else()
  set(_where "")
  if(ONNXRUNTIME_ROOT)
    set(_where PATHS "${ONNXRUNTIME_ROOT}" NO_DEFAULT_PATH)
  endif()
  find_path(ONNXRuntime_INCLUDE_DIR onnxruntime_c_api.h ${_where}
            PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session)
  find_library(ONNXRuntime_LIBRARY onnxruntime ${_where} PATH_SUFFIXES lib lib64)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  ONNXRuntime
  REQUIRED_VARS ONNXRuntime_LIBRARY ONNXRuntime_INCLUDE_DIR
  REASON_FAILURE_MESSAGE
  "install ONNX Runtime, give -DONNXRUNTIME_ROOT=DIR, or fetch it with cpp/cmake/fetch-onnxruntime.sh DIR")

if(ONNXRuntime_FOUND AND NOT TARGET ONNXRuntime::ONNXRuntime)
  if(TARGET onnxruntime::onnxruntime)
    add_library(ONNXRuntime::ONNXRuntime INTERFACE IMPORTED)
    target_link_libraries(ONNXRuntime::ONNXRuntime INTERFACE onnxruntime::onnxruntime)
  else()
    add_library(ONNXRuntime::ONNXRuntime UNKNOWN IMPORTED)
    set_target_properties(
      ONNXRuntime::ONNXRuntime
      PROPERTIES IMPORTED_LOCATION "${ONNXRuntime_LIBRARY}"
                 INTERFACE_INCLUDE_DIRECTORIES "${ONNXRuntime_INCLUDE_DIR}")
  endif()
endif()
