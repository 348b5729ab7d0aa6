# EXPERIMENTAL: finds TensorRT, or TensorRT-RTX if DEFECTRT_EXPERIMENTAL_TENSORRT is tensorrt-rtx, and
# defines TensorRT::TensorRT.
#
# Headers and libraries, the CUDA runtime's among them, are looked for in TENSORRT_ROOT (a variable
# or the environment's), CUDA's also in CUDAToolkit_ROOT and the usual places. With headers alone, as
# fetch-tensorrt-headers.sh brings them, the part can be compiled and nothing linked.
foreach(_root TENSORRT_ROOT CUDAToolkit_ROOT)
  if(NOT ${_root} AND DEFINED ENV{${_root}})
    set(${_root} "$ENV{${_root}}")
  endif()
endforeach()
set(_library nvinfer)
if(DEFECTRT_EXPERIMENTAL_TENSORRT STREQUAL "tensorrt-rtx")
  set(_library tensorrt_rtx)
endif()
find_path(TensorRT_INCLUDE_DIR NvInfer.h HINTS "${TENSORRT_ROOT}" PATH_SUFFIXES include)
find_library(TensorRT_LIBRARY ${_library} HINTS "${TENSORRT_ROOT}" PATH_SUFFIXES lib lib64)
find_path(TensorRT_CUDA_INCLUDE_DIR cuda_runtime_api.h
          HINTS "${TENSORRT_ROOT}" "${CUDAToolkit_ROOT}" /usr/local/cuda PATH_SUFFIXES include)
find_library(TensorRT_CUDA_LIBRARY cudart HINTS "${TENSORRT_ROOT}" "${CUDAToolkit_ROOT}"
                                                /usr/local/cuda PATH_SUFFIXES lib lib64)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  TensorRT
  REQUIRED_VARS TensorRT_INCLUDE_DIR TensorRT_CUDA_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "give -DTENSORRT_ROOT=DIR, and -DCUDAToolkit_ROOT=DIR")

if(TensorRT_FOUND AND NOT TARGET TensorRT::TensorRT)
  add_library(TensorRT::TensorRT INTERFACE IMPORTED)
  target_include_directories(TensorRT::TensorRT SYSTEM INTERFACE
                             "${TensorRT_INCLUDE_DIR}" "${TensorRT_CUDA_INCLUDE_DIR}")
  if(TensorRT_LIBRARY AND TensorRT_CUDA_LIBRARY)
    target_link_libraries(TensorRT::TensorRT INTERFACE "${TensorRT_LIBRARY}"
                                                       "${TensorRT_CUDA_LIBRARY}")
  else()
    message(WARNING "TensorRT's headers are here, its libraries are not: only the targets "
                    "defectrt_objects and defectrt_tensorrt can be built")
  endif()
endif()
