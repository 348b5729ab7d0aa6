# An overlay port, of the checkout that it lies in:
#
#   vcpkg install defectrt --overlay-ports=cpp/packaging/vcpkg
#
# Never run: it was written without vcpkg at hand.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)
string(COMPARE EQUAL "${VCPKG_LIBRARY_LINKAGE}" dynamic SHARED)
string(COMPARE EQUAL "${VCPKG_LIBRARY_LINKAGE}" static STATIC)

vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS -DDEFECTRT_SHARED=${SHARED} -DDEFECTRT_STATIC=${STATIC} -DDEFECTRT_TESTS=OFF
          -DDEFECTRT_EXAMPLES=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/defectrt)
vcpkg_fixup_pkgconfig()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
