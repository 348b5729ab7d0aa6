// Binary PGM of 8 bits: enough for examples, which so need no library for images.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

struct Pgm {
    std::uint32_t width = 0, height = 0;
    std::vector<unsigned char> pixels;
};

inline std::optional<Pgm> read_pgm(const std::filesystem::path &path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    Pgm out;
    unsigned top = 0;
    file >> kind >> out.width >> out.height >> top;
    file.get();
    if (!file || kind != "P5" || top != 255 || out.width > 65535 || out.height > 65535) {
        return std::nullopt;
    }
    out.pixels.resize(std::size_t{out.width} * out.height);
    file.read(reinterpret_cast<char *>(out.pixels.data()),
              static_cast<std::streamsize>(out.pixels.size()));
    if (!file) return std::nullopt;
    return out;
}

/// Whole or not at all: under another name first.
inline bool write_pgm(const std::filesystem::path &path, const Pgm &image) {
    const std::filesystem::path part = path.string() + ".part";
    std::ofstream file(part, std::ios::binary);
    file << "P5\n" << image.width << ' ' << image.height << "\n255\n";
    file.write(reinterpret_cast<const char *>(image.pixels.data()),
               static_cast<std::streamsize>(image.pixels.size()));
    file.close();
    std::error_code failed;
    if (file) std::filesystem::rename(part, path, failed);
    return file && !failed;
}
