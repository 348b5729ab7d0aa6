// Opens an engine and says what it makes.
#include <cstdio>
#include <defectrt/defectrt.hpp>

int main(int argc, char **argv) {
    std::printf("%s\n", defectrt::build_info().c_str());
    if (argc < 2) return 0;
    try {
        for (const std::string &name : defectrt::Engine(argv[1]).defect_types()) {
            std::printf("%s\n", name.c_str());
        }
    } catch (const defectrt::Error &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return error.status();
    }
    return 0;
}
