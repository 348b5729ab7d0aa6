// Where the compiler has no libFuzzer: every file of a corpus, then so many seeded mutations.
//
//     TARGET CORPUS [MUTATIONS]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);

using Bytes = std::vector<std::uint8_t>;

static void mutate(Bytes &bytes, std::mt19937 &random) {
    const auto below = [&](std::size_t n) { return std::size_t{random()} % n; };
    for (std::size_t n = 1 + below(4); n > 0 && !bytes.empty(); --n) {
        const std::size_t at = below(bytes.size());
        switch (below(4)) {
            case 0: bytes[at] = static_cast<std::uint8_t>(random()); break;
            case 1: bytes[at] ^= static_cast<std::uint8_t>(1U << below(8)); break;
            case 2: bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at)); break;
            default: {
                const std::size_t end = at + below(std::min<std::size_t>(bytes.size() - at, 40) + 1);
                const Bytes part(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                                 bytes.begin() + static_cast<std::ptrdiff_t>(end));
                bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size())),
                             part.begin(), part.end());
            }
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    const int mutations = argc > 2 ? std::atoi(argv[2]) : 0;
    std::vector<Bytes> corpus;
    for (const auto &entry : std::filesystem::directory_iterator(argv[1])) {
        std::ifstream file(entry.path(), std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    if (corpus.empty()) return 3;
    for (const Bytes &bytes : corpus) LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    std::mt19937 random(1);
    for (int i = 0; i < mutations; ++i) {
        Bytes bytes = corpus[std::size_t{random()} % corpus.size()];
        mutate(bytes, random);
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    }
    std::printf("%zu files, %d mutations\n", corpus.size(), mutations);
    return 0;
}
