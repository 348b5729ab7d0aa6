# EXPERIMENTAL: the backend that DEFECTRT_EXPERIMENTAL_TENSORRT names, tensorrt or tensorrt-rtx.
# Compiled in CI against headers, never linked or run. It is compiled apart, since only it sees
# TensorRT's headers.
if(NOT DEFECTRT_EXPERIMENTAL_TENSORRT MATCHES "^tensorrt(-rtx)?$")
  message(FATAL_ERROR "DEFECTRT_EXPERIMENTAL_TENSORRT is ${DEFECTRT_EXPERIMENTAL_TENSORRT}: "
                      "OFF, tensorrt or tensorrt-rtx")
endif()
list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")
find_package(TensorRT REQUIRED)

add_library(defectrt_tensorrt OBJECT experimental/tensorrt_engine.cpp)
target_include_directories(defectrt_tensorrt PRIVATE include src)
target_link_libraries(defectrt_tensorrt PRIVATE TensorRT::TensorRT
                                                $<BUILD_INTERFACE:defectrt_warnings>)
set_target_properties(
  defectrt_tensorrt PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                               VISIBILITY_INLINES_HIDDEN ON)
foreach(part defectrt_objects defectrt_tensorrt)
  target_compile_definitions(
    ${part} PRIVATE DEFECTRT_EXPERIMENTAL_TENSORRT="${DEFECTRT_EXPERIMENTAL_TENSORRT}")
endforeach()
set(experimental_objects $<TARGET_OBJECTS:defectrt_tensorrt>)
set(experimental_library TensorRT::TensorRT)
install(FILES experimental/FindTensorRT.cmake DESTINATION ${package})
