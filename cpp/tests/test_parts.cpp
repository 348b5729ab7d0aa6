// The parts inside, against published vectors and plain definitions.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cores.hpp"
#include "digest.hpp"
#include "error.hpp"
#include "filters.hpp"
#include "instances.hpp"
#include "json.hpp"
#include "manifest.hpp"
#include "noise.hpp"

using namespace defectrt::internal;

namespace {

std::string sha256(const std::string &text, std::size_t piece) {
    Sha256 digest;
    for (std::size_t at = 0; at < text.size(); at += piece) {
        digest.update(text.data() + at, std::min(piece, text.size() - at));
    }
    return digest.hex();
}

/// The image that make_filter_vectors.py gave to OpenCV.
Pixels image(std::size_t height, std::size_t width, std::size_t channels) {
    Pixels out(height, width, channels);
    for (std::size_t i = 0; i < out.values.size(); ++i) {
        out.values[i] = static_cast<float>((i * 7919 + 104729) % 1009) / 1009.0F;
    }
    return out;
}

Mask mask(std::size_t height, std::size_t width, float share) {
    const Pixels values = image(height, width, 1);
    Mask out(height, width);
    std::transform(values.values.begin(), values.values.end(), out.values.begin(),
                   [&](float v) { return v < share ? 1 : 0; });
    return out;
}

/// Corner, size and area of every piece.
std::vector<float> pieces_of(const Mask &mask, std::int64_t gap) {
    defectrt_image image{};
    image.width = static_cast<std::uint32_t>(mask.width);
    image.height = static_cast<std::uint32_t>(mask.height);
    const defectrt_mask view{mask.values.data(), static_cast<std::ptrdiff_t>(mask.width)};
    std::vector<float> out;
    for (const Instance &instance : pieces(image, view, gap, 1000)) {
        const Box box = bounds(instance, instance.box).value();
        std::int64_t area = 0;
        for (std::int64_t y = box.top; y < box.bottom; ++y) {
            instance.each(y, box.left, box.right, [&](std::int64_t) { ++area; });
        }
        for (const std::int64_t v :
             {box.top, box.left, box.bottom - box.top, box.right - box.left, area}) {
            out.push_back(static_cast<float>(v));
        }
    }
    return out;
}

/// What ours makes of a line of filters.txt.
std::vector<float> filtered(const std::string &name, std::size_t height, std::size_t width,
                            std::size_t channels, const std::vector<double> &how) {
    const auto size = [&](std::size_t i) { return static_cast<std::size_t>(how.at(i)); };
    const auto share = static_cast<float>(how.at(0));
    if (name == "resize") return resize(image(height, width, channels), size(0)).values;
    if (name == "linear") {
        return resize_linear(image(height, width, channels), size(0), size(1)).values;
    }
    if (name == "blur") return blur(image(height, width, channels), how.at(0)).values;
    if (name == "distance") return distance_to(mask(height, width, share)).values;
    if (name == "pieces") {
        return pieces_of(mask(height, width, share), static_cast<std::int64_t>(how.at(1)));
    }
    const Mask kept = without_specks(mask(height, width, share), static_cast<int>(how.at(1)));
    return {kept.values.begin(), kept.values.end()};
}

}  // namespace

TEST(Filters, MakeWhatOpenCvMakes) {
    std::ifstream file(DEFECTRT_TEST_VECTORS);
    std::map<std::string, int> lines;
    for (std::string line; std::getline(file, line);) {
        const std::size_t colon = line.find(':');
        std::istringstream given(line.substr(0, colon)), wanted(line.substr(colon + 1));
        std::string name;
        std::size_t height = 0, width = 0, channels = 0;
        given >> name >> height >> width >> channels;
        const std::vector<double> how{std::istream_iterator<double>(given), {}};
        const std::vector<float> expected{std::istream_iterator<float>(wanted), {}};
        const std::vector<float> made = filtered(name, height, width, channels, how);
        SCOPED_TRACE(line.substr(0, colon));
        ASSERT_EQ(made.size(), expected.size());
        for (std::size_t i = 0; i < made.size(); ++i) {
            // written with six digits
            ASSERT_NEAR(made[i], expected[i], 6e-6 * std::max(1.0F, std::abs(expected[i])))
                << "value " << i;
        }
        ++lines[name];
    }
    for (const char *name : {"resize", "linear", "blur", "distance", "specks", "pieces"}) {
        EXPECT_GE(lines[name], 4) << name;
    }
}

TEST(Sha256, HasTheValuesOfFips180) {
    EXPECT_EQ(sha256("", 1), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256("abc", 3),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256, DoesNotDependOnThePieces) {
    const std::string million(1'000'000, 'a');
    for (const std::size_t piece : {7U, 63U, 64U, 65U, 100'000U}) {
        EXPECT_EQ(sha256(million, piece),
                  "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}

TEST(Noise, GivesTheSeedsOfPython) {
    // of Python's sample_seed; the parity test compares more
    EXPECT_EQ(sample_seed(0, "", 0), 5117415128331345U);
    EXPECT_EQ(sample_seed(UINT64_MAX, "a/1.png", 5), 1067104896052279U);
    EXPECT_EQ(sample_seed(3, "\xc3\xa4/\xc3\xb6.png", 0xffffffff), 1734390112215158U);
}

TEST(Philox, HasTheKnownAnswersOfRandom123) {
    using Words = std::array<std::uint32_t, 4>;
    EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
              (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                         {0xffffffff, 0xffffffff}),
              (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                         {0xa4093822, 0x299f31d0}),
              (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Noise, IsStandardNormalAndItsStartDoesNotDependOnItsLength) {
    std::vector<float> noise(100'001), start(5);
    normal(1, 2, 3, noise.data(), noise.size());
    normal(1, 2, 3, start.data(), start.size());
    double mean = 0, square = 0;
    for (const float n : noise) mean += n, square += double(n) * n;
    EXPECT_NEAR(mean / 100'001, 0, 0.02);
    EXPECT_NEAR(square / 100'001, 1, 0.02);
    EXPECT_TRUE(std::equal(start.begin(), start.end(), noise.begin()));
}

TEST(Distance, IsTheNearestPixelsOfTheMask) {
    Mask mask(13, 17);
    for (const auto &[y, x] : {std::pair{2, 3}, {9, 16}, {12, 0}}) {
        mask.at(std::size_t(y), std::size_t(x)) = 1;
    }
    const Pixels distance = distance_to(mask);
    for (int y = 0; y < 13; ++y) {
        for (int x = 0; x < 17; ++x) {
            const double nearest = std::min({std::hypot(y - 2, x - 3), std::hypot(y - 9, x - 16),
                                             std::hypot(y - 12, x)});
            EXPECT_FLOAT_EQ(distance.at(std::size_t(y), std::size_t(x)), float(nearest));
        }
    }
}

TEST(Specks, TouchByCornersAndLargeOnesStay) {
    Mask mask(5, 5);
    mask.at(0, 0) = mask.at(1, 1) = mask.at(2, 2) = 1;
    mask.at(4, 0) = mask.at(4, 1) = 1;
    const Mask kept = without_specks(mask, 3);
    EXPECT_EQ(kept.at(0, 0) + kept.at(1, 1) + kept.at(2, 2), 3);
    EXPECT_EQ(kept.at(4, 0) + kept.at(4, 1), 0);
}

TEST(Resize, KeepsWhatIsConstantAndTheMeanOfWhatShrinks) {
    Pixels constant(20, 20, 3);
    std::fill(constant.values.begin(), constant.values.end(), 0.25F);
    for (const std::size_t size : {7U, 10U, 33U}) {
        for (const float v : resize(constant, size).values) EXPECT_NEAR(v, 0.25, 1e-6);
    }
    Pixels ramp(20, 20);
    for (std::size_t i = 0; i < 400; ++i) ramp.values[i] = float(i % 20);
    double mean = 0;
    for (const float v : resize(ramp, 7).values) mean += v;
    EXPECT_NEAR(mean / 49, 9.5, 0.01);
}

TEST(Blur, KeepsTheSumOfADot) {
    Pixels dot(31, 31);
    dot.at(15, 15) = 1;
    const Pixels blurred = blur(dot, 1.5);
    double sum = 0;
    for (const float v : blurred.values) sum += v;
    EXPECT_NEAR(sum, 1, 1e-5);
    EXPECT_LT(blurred.at(15, 15), 0.1);
}

TEST(Json, RefusesWhatIsNoJson) {
    for (const char *text :
         {"", "{", "[1,]", "{\"a\" 1}", "01", "1.", "+1", ".5", "\"\\x\"", "\"\\ud800\"",
          "\"\x01\"", "\"\xc0\xaf\"", "nul", "[1] 2", "\xef\xbb\xbf{}", "'a'", "1e", "-"}) {
        EXPECT_THROW(json::parse(text), std::invalid_argument) << text;
    }
    EXPECT_THROW(json::parse(std::string(100'000, '[')), std::invalid_argument);
}

TEST(Json, KnowsWhatWasWrittenAsAnInteger) {
    EXPECT_TRUE(json::parse("-12").root.number()->whole);
    EXPECT_FALSE(json::parse("1.0").root.number()->whole);
    EXPECT_FALSE(json::parse("1e3").root.number()->whole);
    EXPECT_EQ(json::parse("1e400").faults.size(), 1U);
    EXPECT_EQ(json::parse("{\"a\":1,\"a\":2,\"a\":3}").faults.size(), 1U);
    EXPECT_EQ(*json::parse("\"\\ud83d\\ude00\\n\"").root.text(), "\xf0\x9f\x98\x80\n");
}

TEST(Manifest, TakesTheNamesThatPythonTakes) {
    std::ifstream file(DEFECTRT_TEST_NAMES);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    int good = 0, bad = 0;
    const json::Document table = json::parse(text);
    for (const json::Value &row : *table.root.array()) {
        const std::string &name = *row.array()->at(0).text();
        const bool expected = std::get<bool>(row.array()->at(1).is);
        ++(expected ? good : bad);
        EXPECT_EQ(is_name(name), expected) << name;
    }
    EXPECT_GT(good, 30);
    EXPECT_GT(bad, 60);
}

TEST(Manifest, NamesManyFaultsAtOnceAndCountsTheRest) {
    try {
        parse_manifest("{\"format\": 1, \"backend\": \"pickle\", \"more\": NaN}", "x");
        FAIL();
    } catch (const Error &error) {
        const std::string text = error.what();
        for (const char *part : {"more:", "files: missing", "prompts: missing", "and 6 more"}) {
            EXPECT_NE(text.find(part), std::string::npos) << part;
        }
        EXPECT_EQ(error.status(), DEFECTRT_ENGINE);
    }
}

TEST(Cores, AreNoMoreThanAContainerHasTimeFor) {
    namespace fs = std::filesystem;
    const fs::path folder = fs::path(testing::TempDir()) / "defectrt-cgroup";
    fs::remove_all(folder);
    const auto write = [&](const fs::path &name, const std::string &text) {
        fs::create_directories((folder / name).parent_path());
        std::ofstream(folder / name) << text;
    };
    const auto count = [&](const std::string &groups) {
        write("groups", groups);
        return cores((folder / "groups").string(), (folder / "mount").string());
    };
    const int all = cores((folder / "none").string(), (folder / "mount").string());
    EXPECT_GE(all, 1);
    write("mount/part/cpu.max", "max 100000\n");
    EXPECT_EQ(count("0::/part/of\n"), all);
    write("mount/part/of/cpu.max", "50000 100000\n");
    EXPECT_EQ(count("0::/part/of\n"), 1);
    EXPECT_EQ(count("0::/part\n"), all);
    write("mount/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    write("mount/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(count("3:cpuset:/\n4:cpu,cpuacct:/docker/1\n"), all);
    write("mount/cpu,cpuacct/cpu.cfs_quota_us", "40000\n");
    EXPECT_EQ(count("3:cpuset:/\n4:cpu,cpuacct:/docker/1\n"), 1);
    EXPECT_EQ(count("nonsense\n\n0::\n"), all);
    fs::remove_all(folder);
}
