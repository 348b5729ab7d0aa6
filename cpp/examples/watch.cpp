// Watches a folder: every NAME.pgm that has a NAME_mask.pgm gets a NAME_defect.pgm.
//
//     watch ENGINE FOLDER [--once]
//
// Ends on Ctrl-C, or with --once when nothing is left to do. An image that cannot be used is
// reported once and left alone.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <defectrt/defectrt.hpp>
#include <set>
#include <thread>

#include "pgm.hpp"

namespace {

namespace fs = std::filesystem;

volatile std::sig_atomic_t interrupted = 0;

void interrupt(int) { interrupted = 1; }

/// NAME.pgm -> NAME_mask.pgm and so on.
fs::path beside(const fs::path &path, const char *suffix) {
    return path.parent_path() / (path.stem().string() + suffix + ".pgm");
}

std::vector<fs::path> find_new(const fs::path &folder, const std::set<fs::path> &seen) {
    std::vector<fs::path> out;
    for (const auto &entry : fs::directory_iterator(folder)) {
        const fs::path &path = entry.path();
        if (path.extension() == ".pgm" && seen.count(path) == 0 &&
            fs::exists(beside(path, "_mask")) && !fs::exists(beside(path, "_defect"))) {
            out.push_back(path);
        }
    }
    return out;
}

void paint(defectrt::Session &session, const fs::path &path) {
    auto image = read_pgm(path);
    const auto mask = read_pgm(beside(path, "_mask"));
    if (!image || !mask || image->pixels.size() != mask->pixels.size()) {
        std::fprintf(stderr, "%s: image and mask do not go together\n", path.u8string().c_str());
        return;
    }
    defectrt::Request request;
    request.image = {image->pixels.data(), static_cast<std::ptrdiff_t>(image->width),
                     image->width,         image->height,
                     DEFECTRT_GREY,        8};
    request.mask = {mask->pixels.data(), static_cast<std::ptrdiff_t>(mask->width)};
    request.split = 1;  // pieces far apart are defects of their own
    request.seed = defectrt_sample_seed(0, path.filename().u8string().c_str(), 0);
    try {
        defectrt::Result result(request);
        session.synthesize(request, result);
        image->pixels = result.pixels();
        const bool written = write_pgm(beside(path, "_defect"), *image);
        std::printf("%s: %s\n", path.u8string().c_str(), written ? "done" : "cannot be written");
    } catch (const defectrt::Error &error) {
        std::fprintf(stderr, "%s: %s\n", path.u8string().c_str(), error.what());
    }
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 3) {
        std::fprintf(stderr, "watch ENGINE FOLDER [--once]\n");
        return DEFECTRT_USAGE;
    }
    const bool once = argc > 3 && std::string(argv[3]) == "--once";
    std::signal(SIGINT, interrupt);
    try {
        const defectrt::Engine engine(argv[1]);
        const std::string defect_type = engine.defect_types().front();
        defectrt::Options options;
        options.defect = defect_type.c_str();
        defectrt::Session session(engine, options);
        std::set<fs::path> seen;
        while (interrupted == 0) {
            const auto found = find_new(argv[2], seen);
            for (const fs::path &path : found) {
                if (interrupted != 0) break;
                seen.insert(path);
                paint(session, path);
            }
            if (once && found.empty()) break;
            if (!once) std::this_thread::sleep_for(std::chrono::milliseconds(500));
        }
    } catch (const defectrt::Error &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return error.status();
    }
    return 0;
}
