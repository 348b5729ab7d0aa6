// The contract: what defectrt.h promises, every documented error included.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include <unistd.h>

#include "support.hpp"

using namespace defectrt;

extern "C" int defectrt_test_header(void);

namespace {

const std::string directory = DEFECTRT_TEST_ENGINE;

std::string error_of(const defectrt_engine *engine) {
    char text[1000];
    defectrt_engine_error(engine, text, sizeof text);
    return text;
}

/// Lets a task stand still until it is told to go on.
struct Gate {
    std::atomic<bool> entered{false}, open{false};

    static std::int32_t wait(void *self, std::uint32_t, std::uint32_t) {
        auto *gate = static_cast<Gate *>(self);
        gate->entered = true;
        while (!gate->open) std::this_thread::yield();
        return 0;
    }

    /// The same request, which waits here at its first step.
    Request held(Request request) {
        request.progress = wait;
        request.user = this;
        return request;
    }

    void wait_until_entered() const {
        while (!entered) std::this_thread::yield();
    }
};

std::int32_t refuse(void *, std::uint32_t, std::uint32_t) { return 1; }

}  // namespace

TEST(Header, IsC) { EXPECT_EQ(defectrt_test_header(), 1); }

TEST(Version, IsTold) {
    EXPECT_STREQ(defectrt_version(), DEFECTRT_TEST_VERSION);
    EXPECT_EQ(defectrt_api_version(), DEFECTRT_API_VERSION);
    EXPECT_NE(build_info().find("ONNX Runtime 1."), std::string::npos);
    EXPECT_NE(build_info().find("api 1." + std::to_string(DEFECTRT_API_REVISION)),
              std::string::npos);
    EXPECT_STREQ(defectrt_status_name(DEFECTRT_BUSY), "DEFECTRT_BUSY");
    EXPECT_STREQ(defectrt_status_name(99), "unknown status");
}

TEST(Engine, TellsWhatItIs) {
    const Engine engine(directory, 1);
    const defectrt_engine_info info = engine.info();
    EXPECT_EQ(info.window, 32);
    EXPECT_EQ(info.latent_channels * info.latent_height * info.latent_width, 3 * 16 * 16);
    EXPECT_EQ(engine.defect_types(), std::vector<std::string>{"spot"});
    std::int32_t steps = 0;
    EXPECT_EQ(defectrt_engine_steps(engine.get(), 0, &steps), DEFECTRT_OK);
    EXPECT_EQ(steps, 2);
}

TEST(Engine, RefusesWrongCalls) {
    EXPECT_EQ(defectrt_engine_create(nullptr), DEFECTRT_USAGE);
    EXPECT_EQ(defectrt_engine_open(nullptr, "x", nullptr), DEFECTRT_USAGE);
    defectrt_engine *engine = nullptr;
    ASSERT_EQ(defectrt_engine_create(&engine), DEFECTRT_OK);
    EXPECT_EQ(error_of(engine), "");
    EXPECT_EQ(defectrt_engine_open(engine, nullptr, nullptr), DEFECTRT_USAGE);
    EXPECT_EQ(error_of(engine), "directory is NULL");
    EXPECT_EQ(defectrt_engine_open(engine, "/no/such/place", nullptr), DEFECTRT_ENGINE);
    EXPECT_NE(error_of(engine).find("no such engine directory"), std::string::npos);
    defectrt_engine_options options{sizeof options, -1, nullptr, nullptr};
    EXPECT_EQ(defectrt_engine_open(engine, directory.c_str(), &options), DEFECTRT_USAGE);
    options = {3, 0, nullptr, nullptr};
    EXPECT_EQ(defectrt_engine_open(engine, directory.c_str(), &options), DEFECTRT_USAGE);
    defectrt_engine_info info{};
    info.struct_size = sizeof info;
    EXPECT_EQ(defectrt_engine_get_info(engine, &info), DEFECTRT_CLOSED);
    defectrt_session *session = nullptr;
    EXPECT_EQ(defectrt_session_create(engine, nullptr, &session), DEFECTRT_CLOSED);
    EXPECT_EQ(session, nullptr);
    EXPECT_EQ(defectrt_engine_verify(engine, directory.c_str()), DEFECTRT_OK);
    ASSERT_EQ(defectrt_engine_open(engine, directory.c_str(), nullptr), DEFECTRT_OK);
    std::int32_t steps = 0;
    EXPECT_EQ(defectrt_engine_steps(engine, 2, &steps), DEFECTRT_USAGE);
    EXPECT_EQ(defectrt_engine_defect_type(engine, -1, nullptr, 0, nullptr), DEFECTRT_USAGE);
    char two[2];
    std::size_t length = 0;
    EXPECT_EQ(defectrt_engine_defect_type(engine, 0, two, 2, &length), DEFECTRT_OK);
    EXPECT_STREQ(two, "s");
    EXPECT_EQ(length, 4U);
    defectrt_engine_destroy(engine);
    defectrt_engine_destroy(nullptr);
}

TEST(Engine, RefusesADamagedFile) {
    namespace fs = std::filesystem;
    const fs::path copy = fs::temp_directory_path() / ("defectrt-damaged-" + std::to_string(getpid()));
    fs::copy(directory, copy);
    std::ofstream(copy / "decoder.onnx", std::ios::app) << "x";
    EXPECT_THROW(Engine{copy.string()}, Error);
    fs::remove_all(copy);
}

TEST(Session, NamesEveryImpossibleOption) {
    const Engine engine(directory, 1);
    Options options;
    options.refine_threshold = 2;
    options.batch_size = 0;
    options.grow = -1;
    try {
        Session(engine, options);
        FAIL();
    } catch (const Error &error) {
        EXPECT_EQ(error.status(), DEFECTRT_USAGE);
        const std::string text = error.what();
        for (const char *part : {"refine_threshold", "batch_size", "grow"}) {
            EXPECT_NE(text.find(part), std::string::npos) << part;
        }
    }
    options = Options();
    options.defect = "dent";
    EXPECT_THROW(Session(engine, options), Error);
    options = Options();
    options.steps = 3;
    EXPECT_THROW(Session(engine, options), Error);
    EXPECT_EQ(defectrt_session_options_init(nullptr, sizeof options), DEFECTRT_USAGE);
    EXPECT_EQ(defectrt_session_options_init(&options, 8), DEFECTRT_USAGE);
}

TEST(Synthesize, PaintsUnderTheMaskAndNothingBeyondTheBand) {
    const Engine engine(directory, 1);
    Session session(engine);
    Image image;
    Result result(image.request);
    session.synthesize(image.request, result);
    EXPECT_EQ(result.mask_area, 64);
    EXPECT_GT(result.refined_area, 30);
    EXPECT_GT(result.visibility, 0.2);
    EXPECT_EQ(result.window_side, 32);
    EXPECT_EQ(result.tiles, 1U);
    std::int64_t changed = 0;
    for (std::size_t i = 0; i < image.pixels.size(); ++i) {
        const bool differs = result.pixels()[i] != image.pixels[i];
        changed += differs;
        EXPECT_TRUE(!differs || result.where_it_may_differ()[i] == 255);
        EXPECT_TRUE(result.label()[i] == 0 || image.mask[i] == 1);
    }
    EXPECT_EQ(changed, result.changed_area);
    EXPECT_LT(result.pixels()[20 * 50 + 24], 60);
}

TEST(Synthesize, IsTheSameForEveryLayout) {
    const Engine engine(directory, 1);
    Session session(engine);
    Image grey;
    Result expected(grey.request);
    session.synthesize(grey.request, expected);
    for (const std::int32_t format : {DEFECTRT_RGB, DEFECTRT_BGR, DEFECTRT_RGBA, DEFECTRT_BGRA}) {
        const bool alpha = format == DEFECTRT_RGBA || format == DEFECTRT_BGRA;
        const std::size_t channels = alpha ? 4 : 3, stride = 50 * channels + 7;
        std::vector<std::uint8_t> pixels(stride * 40, 99), out(stride * 40, 77);
        for (std::size_t i = 0; i < 2000; ++i) {
            std::memset(&pixels[i / 50 * stride + i % 50 * channels], grey.pixels[i], 3);
        }
        Request request = grey.request;
        // bottom-up: the first row shown is the last in memory
        std::vector<std::uint8_t> flipped(pixels.size());
        for (std::size_t y = 0; y < 40; ++y) {
            std::copy_n(&pixels[y * stride], stride, &flipped[(39 - y) * stride]);
        }
        request.image = {&flipped[39 * stride], -static_cast<std::ptrdiff_t>(stride), 50, 40,
                         format, 8};
        defectrt_result result{};
        result.struct_size = sizeof result;
        result.image = out.data();
        result.image_stride = static_cast<std::ptrdiff_t>(stride);
        session.synthesize(request, result);
        for (std::size_t i = 0; i < 2000; ++i) {
            const std::uint8_t *pixel = &out[i / 50 * stride + i % 50 * channels];
            EXPECT_NEAR(pixel[0], expected.pixels()[i], 1);
            EXPECT_EQ(pixel[0], pixel[2]);
            EXPECT_TRUE(!alpha || pixel[3] == 99);
        }
        EXPECT_EQ(out[stride - 1], 77) << "what lies between rows is the caller's";
    }
}

TEST(Synthesize, CutsALongMaskIntoTiles) {
    const Engine engine(directory, 1);
    Session session(engine);
    std::vector<std::uint8_t> pixels(40 * 200, 160), mask(40 * 200);
    std::memset(&mask[20 * 200 + 10], 1, 180);
    std::memset(&mask[21 * 200 + 10], 1, 180);
    Request request;
    request.image = {pixels.data(), 200, 200, 40, DEFECTRT_GREY, 8};
    request.mask = {mask.data(), 200};
    Result result(request);
    session.synthesize(request, result);
    EXPECT_GT(result.tiles, 5U);
    EXPECT_EQ(result.mask_area, 360);
    EXPECT_GT(result.coverage, 0.8);
    std::int64_t labelled = 0, changed = 0;
    for (std::size_t i = 0; i < mask.size(); ++i) {
        labelled += result.label()[i] != 0;
        changed += result.pixels()[i] != pixels[i];
    }
    EXPECT_EQ(labelled, result.refined_area);
    EXPECT_EQ(changed, result.changed_area);
}

namespace {

/// Two instances of 8 x 8 on an image of 40 x 120, in masks of their own.
struct Two {
    std::vector<std::uint8_t> pixels, left, right, both;
    defectrt_mask second{};
    Request request;

    Two() : pixels(40 * 120, 160), left(40 * 120), right(left), both(left) {
        for (std::size_t y = 16; y < 24; ++y) {
            std::memset(&left[y * 120 + 10], 1, 8);
            std::memset(&right[y * 120 + 100], 1, 8);
        }
        std::transform(left.begin(), left.end(), right.begin(), both.begin(),
                       [](std::uint8_t a, std::uint8_t b) { return a | b; });
        second = {right.data(), 120};
        request.image = {pixels.data(), 120, 120, 40, DEFECTRT_GREY, 8};
        request.mask = {left.data(), 120};
        request.instances = &second;
        request.instance_count = 1;
    }

    /// The same as one mask.
    Request split() const {
        Request out = request;
        out.mask.data = both.data();
        out.instances = nullptr;
        out.instance_count = 0;
        out.split = 1;
        return out;
    }
};

}  // namespace

TEST(Synthesize, PaintsSeveralInstances) {
    const Engine engine(directory, 1);
    Session session(engine);
    const Two two;
    Result result(two.request), split(two.request);
    session.synthesize(two.request, result);
    EXPECT_EQ(result.tiles, 2U);
    EXPECT_EQ(result.mask_area, 128);
    std::int64_t labelled[2] = {0, 0};
    for (std::size_t i = 0; i < two.both.size(); ++i) {
        labelled[i % 120 < 60 ? 0 : 1] += result.label()[i] != 0;
    }
    EXPECT_GT(std::min(labelled[0], labelled[1]), 30);
    EXPECT_EQ(labelled[0] + labelled[1], result.refined_area);
    session.synthesize(two.split(), split);
    EXPECT_EQ(split.pixels(), result.pixels());
    EXPECT_EQ(split.label(), result.label());
    const auto task = session.submit(two.request);
    EXPECT_EQ(task->wait(), DEFECTRT_OK);
    task->result(split);
    EXPECT_EQ(split.pixels(), result.pixels());
}

TEST(Synthesize, KeepsASampleOnlyIfEveryInstanceShows) {
    const Engine engine(directory, 1);
    Session session(engine);
    Two two;
    // what the engine paints is as dark already
    for (std::size_t i = 0; i < two.pixels.size(); ++i) {
        if (i % 120 >= 60) two.pixels[i] = 14;
    }
    Result result(two.request);
    const auto status = [&](const Request &request) {
        return defectrt_synthesize(session.get(), &request, &result);
    };
    EXPECT_EQ(status(two.request), DEFECTRT_NOTHING_DONE);
    EXPECT_STREQ(result.message, "1 of 2 instances: no defect appeared");
    EXPECT_EQ(status(two.split()), DEFECTRT_NOTHING_DONE);
    two.second.data = two.left.data();
    EXPECT_EQ(status(two.request), DEFECTRT_OK) << "an instance over another";
    EXPECT_EQ(result.mask_area, 64);
}

TEST(Synthesize, RefusesInstancesItCannotUse) {
    const Engine engine(directory, 1);
    Session session(engine);
    const Two two;
    Result result(two.request);
    const auto status = [&](auto change) {
        Two changed;
        change(changed);
        return defectrt_synthesize(session.get(), &changed.request, &result);
    };
    EXPECT_EQ(status([](Two &t) { t.request.instances = nullptr; }), DEFECTRT_USAGE);
    EXPECT_EQ(status([](Two &t) { t.request.instance_count = 1000; }), DEFECTRT_USAGE);
    EXPECT_EQ(status([](Two &t) { t.request.split = 2; }), DEFECTRT_USAGE);
    EXPECT_EQ(status([](Two &t) { t.second.stride = 119; }), DEFECTRT_INPUT);
    EXPECT_EQ(status([](Two &t) { t.second.data = nullptr; }), DEFECTRT_INPUT);
    EXPECT_STREQ(result.message, "instance 1 has no data");
    EXPECT_EQ(status([](Two &t) { t.right.assign(t.right.size(), 0); }), DEFECTRT_INPUT);
    EXPECT_STREQ(result.message, "instance 1 is empty");
    // a pixel in every other cell of the smallest width: too many to be meant
    const std::uint32_t side = 13 * 2 * 40;
    std::vector<std::uint8_t> pixels(std::size_t{side} * side), many(pixels.size());
    for (std::size_t y = 0; y < side; y += 26) {
        for (std::size_t x = 0; x < side; x += 26) many[y * side + x] = 1;
    }
    Request request;
    request.image = {pixels.data(), side, side, side, DEFECTRT_GREY, 8};
    request.mask = {many.data(), side};
    request.split = 1;
    EXPECT_EQ(defectrt_synthesize(session.get(), &request, &result), DEFECTRT_INPUT);
    EXPECT_NE(std::string(result.message).find("more than 1000 pieces"), std::string::npos);
}

TEST(Synthesize, TakesARequestOfAnOlderProgram) {
    const Engine engine(directory, 1);
    Session session(engine);
    const Image image;
    Result expected(image.request), result(image.request);
    session.synthesize(image.request, expected);
    // as it was in revision 0, and nothing that can be read behind it
    constexpr std::size_t size = 88;
    static_assert(offsetof(defectrt_request, instances) == size || sizeof(void *) != 8);
    const auto old = std::make_unique<std::uint64_t[]>(size / 8);
    std::memcpy(old.get(), &image.request, size);
    std::memcpy(old.get(), &size, sizeof size);
    const auto *request = reinterpret_cast<const defectrt_request *>(old.get());
    EXPECT_EQ(defectrt_synthesize(session.get(), request, &result), DEFECTRT_OK);
    EXPECT_EQ(result.pixels(), expected.pixels());
}

TEST(Synthesize, FillsAResultOfAnOlderProgram) {
    const Engine engine(directory, 1);
    Session session(engine);
    const Image image;
    Result expected(image.request);
    session.synthesize(image.request, expected);
    // as it was in revision 2, and nothing that can be written behind it
    constexpr std::size_t size = offsetof(defectrt_result, strength);
    const auto old = std::make_unique<std::uint64_t[]>(size / 8);
    std::memcpy(old.get(), &size, sizeof size);
    auto *result = reinterpret_cast<defectrt_result *>(old.get());
    EXPECT_EQ(defectrt_synthesize(session.get(), &image.request, result), DEFECTRT_OK);
    EXPECT_EQ(result->visibility, expected.visibility);
    EXPECT_EQ(result->refined_area, expected.refined_area);
    EXPECT_EQ(result->rejected, expected.rejected);
}

TEST(Synthesize, MayWriteOverItsSource) {
    const Engine engine(directory, 1);
    Session session(engine);
    Image image;
    Result expected(image.request);
    session.synthesize(image.request, expected);
    defectrt_result result{};
    result.struct_size = sizeof result;
    result.image = image.pixels.data();
    session.synthesize(image.request, result);
    EXPECT_EQ(image.pixels, expected.pixels());
}

TEST(Synthesize, RefusesWhatItCannotUse) {
    const Engine engine(directory, 1);
    Session session(engine);
    const auto status = [&](auto change) {
        Image image;
        std::vector<std::uint8_t> out(2000, 7), before = out;
        defectrt_result result{};
        result.struct_size = sizeof result;
        result.mask = out.data();
        change(image.request, result);
        const defectrt_status s = defectrt_synthesize(session.get(), &image.request, &result);
        EXPECT_EQ(out, before) << "nothing is written on an error";
        EXPECT_TRUE(result.struct_size < sizeof result || result.message[0] != '\0');
        return s;
    };
    using R = Request;
    using S = defectrt_result;
    EXPECT_EQ(status([](R &r, S &) { r.image.data = nullptr; }), DEFECTRT_INPUT);
    EXPECT_EQ(status([](R &r, S &) { r.mask.data = nullptr; }), DEFECTRT_INPUT);
    EXPECT_EQ(status([](R &r, S &) { r.image.format = 9; }), DEFECTRT_INPUT);
    EXPECT_EQ(status([](R &r, S &) { r.image.depth = 12; }), DEFECTRT_INPUT);
    EXPECT_EQ(status([](R &r, S &) { r.image.stride = 49; }), DEFECTRT_INPUT);
    EXPECT_EQ(status([](R &r, S &) { r.mask.stride = -49; }), DEFECTRT_INPUT);
    EXPECT_EQ(status([](R &r, S &) { r.image.width = 0; }), DEFECTRT_INPUT);
    EXPECT_EQ(status([](R &r, S &) { r.image.width = r.image.height = 0xffffffff; }),
              DEFECTRT_INPUT);
    EXPECT_EQ(status([](R &r, S &) {
                  std::memset(const_cast<std::uint8_t *>(r.mask.data), 0, 2000);
              }),
              DEFECTRT_INPUT);
    EXPECT_EQ(status([](R &r, S &) { r.candidates = 10'001; }), DEFECTRT_USAGE);
    EXPECT_EQ(status([](R &r, S &) { r.struct_size = 8; }), DEFECTRT_USAGE);
    EXPECT_EQ(status([](R &, S &s) { s.struct_size = 8; }), DEFECTRT_USAGE);
    EXPECT_EQ(status([](R &, S &s) { s.mask_stride = 10; }), DEFECTRT_USAGE);
    float few[3];
    EXPECT_EQ(status([&](R &, S &s) { s.latent = few, s.latent_size = 3; }), DEFECTRT_USAGE);
    EXPECT_EQ(status([](R &r, S &) { r.progress = refuse; }), DEFECTRT_CANCELLED);
    Image image;
    EXPECT_EQ(defectrt_synthesize(session.get(), &image.request, nullptr), DEFECTRT_USAGE);
    EXPECT_EQ(defectrt_result_size(nullptr, nullptr, nullptr), DEFECTRT_USAGE);
}

TEST(Synthesize, SaysWhenNoDefectAppears) {
    const Engine engine(directory, 1);
    Options options;
    options.min_change = 1;
    Session session(engine, options);
    Image image;
    Result result(image.request);
    EXPECT_EQ(defectrt_synthesize(session.get(), &image.request, &result),
              DEFECTRT_NOTHING_DONE);
    EXPECT_STREQ(result.message, "no defect appeared");
}

TEST(Synthesize, RefusesWhatOnlyALaterLibraryKnows) {
    const Engine engine(directory, 1);
    Session session(engine);
    struct Later {
        defectrt_request request;
        std::uint64_t more[2];
    };
    Image image;
    Later later{image.request, {0, 0}};
    later.request.struct_size = sizeof later;
    Result result(image.request);
    EXPECT_EQ(defectrt_synthesize(session.get(), &later.request, &result), DEFECTRT_OK);
    later.more[1] = 1;
    EXPECT_EQ(defectrt_synthesize(session.get(), &later.request, &result), DEFECTRT_USAGE);
}

TEST(Tasks, GiveWhatSynthesizeGives) {
    const Engine engine(directory, 1);
    Session session(engine);
    Image image;
    Result expected(image.request), result(image.request);
    session.synthesize(image.request, expected);
    auto task = session.submit(image.request);
    // the queue has copies
    std::fill(image.pixels.begin(), image.pixels.end(), std::uint8_t{0});
    std::fill(image.mask.begin(), image.mask.end(), std::uint8_t{0});
    ASSERT_TRUE(task);
    EXPECT_EQ(task->wait(), DEFECTRT_OK);
    task->result(result);
    EXPECT_EQ(result.pixels(), expected.pixels());
    EXPECT_EQ(result.label(), expected.label());
    EXPECT_EQ(task->error(), "");
    EXPECT_EQ(task->record().rfind("{\"masks\": [{\"defect\": \"spot\"}], \"seed\": 0, ", 0), 0);
}

TEST(Tasks, WaitInABoundedQueueAndCanBeCancelled) {
    const Engine engine(directory, 1);
    Options options;
    options.queue = 1;
    Session session(engine, options);
    Image image;
    Gate gate;
    auto running = session.submit(gate.held(image.request));
    ASSERT_TRUE(running);
    gate.wait_until_entered();
    auto waiting = session.submit(image.request);
    ASSERT_TRUE(waiting);
    EXPECT_FALSE(session.submit(image.request, 0)) << "BUSY";
    EXPECT_EQ(waiting->poll(), DEFECTRT_PENDING);
    EXPECT_EQ(waiting->wait(0), DEFECTRT_PENDING);
    Result result(image.request);
    EXPECT_THROW(waiting->result(result), Error);
    waiting->cancel();
    EXPECT_EQ(waiting->poll(), DEFECTRT_CANCELLED);
    EXPECT_EQ(waiting->error(), "cancelled");
    auto next = session.submit(image.request, 0);
    EXPECT_TRUE(next) << "a cancelled task gives its place free";
    running->cancel();
    gate.open = true;
    EXPECT_EQ(running->wait(), DEFECTRT_CANCELLED);
    EXPECT_EQ(next->wait(), DEFECTRT_OK);
}

TEST(Tasks, AreRefusedByAFullQueueBeforeAnyPixelIsRead) {
    const Engine engine(directory, 1);
    Options options;
    options.queue = 1;
    Session session(engine, options);
    Image image;
    Gate gate;
    const auto running = session.submit(gate.held(image.request));
    gate.wait_until_entered();
    const auto waiting = session.submit(image.request);
    Request nowhere = image.request;
    nowhere.image.data = reinterpret_cast<const void *>(1);
    nowhere.mask.data = reinterpret_cast<const std::uint8_t *>(1);
    EXPECT_FALSE(session.submit(nowhere, 0));
    EXPECT_FALSE(session.submit(nowhere, 5));
    nowhere.image.depth = 9;
    EXPECT_THROW(session.submit(nowhere, 0), Error) << "what is wrong is said all the same";
    Request empty = image.request;
    const std::vector<std::uint8_t> none(image.mask.size());
    empty.mask.data = none.data();
    gate.open = true;
    waiting->wait();
    for (int i = 0; i < 3; ++i) EXPECT_THROW(session.submit(empty), Error);
    EXPECT_TRUE(session.submit(image.request, 0)) << "what fails gives its place back";
}

/// An image that is lent, and how often it came back.
struct Lent {
    Image image;
    std::atomic<int> returned{0};
    Session *next = nullptr;

    Lent() {
        image.request.user = this;
        image.request.release = [](void *self) {
            auto *lent = static_cast<Lent *>(self);
            if (lent->next != nullptr) {
                Image more;
                EXPECT_TRUE(lent->next->submit(more.request));
            }
            ++lent->returned;
        };
    }
};

TEST(Tasks, ReadALentImageWhereItIsUntilTheHandleIsGivenBack) {
    const Engine engine(directory, 1);
    Session session(engine);
    Lent lent;
    Result expected(lent.image.request), result(lent.image.request);
    session.synthesize(lent.image.request, expected);
    EXPECT_EQ(lent.returned, 0) << "synthesize borrows nothing for longer";
    {
        auto task = session.submit(lent.image.request);
        ASSERT_EQ(task->wait(), DEFECTRT_OK);
        task->result(result);
        EXPECT_EQ(result.pixels(), expected.pixels());
        lent.image.pixels[0] ^= 1;
        task->result(result);
        EXPECT_NE(result.pixels()[0], expected.pixels()[0]) << "it was not copied";
        EXPECT_EQ(lent.returned, 0);
    }
    // the worker may hold on to it for a moment
    while (lent.returned == 0) std::this_thread::yield();
    Request wrong = lent.image.request;
    const std::vector<std::uint8_t> none(2000);
    wrong.mask.data = none.data();
    EXPECT_THROW(session.submit(wrong), Error);
    EXPECT_EQ(lent.returned, 1) << "what is refused was not lent";
}

TEST(Tasks, ReturnWhatWasLentWhateverEndsThem) {
    const Engine engine(directory, 1);
    Lent running, waiting, dropped;
    Gate gate;
    {
        Session session(engine);
        dropped.next = &session;
        Image image;
        auto blocker = session.submit(gate.held(image.request));
        gate.wait_until_entered();
        auto first = session.submit(waiting.image.request);
        { auto second = session.submit(dropped.image.request); }
        EXPECT_EQ(dropped.returned, 1) << "cancelled in the queue, by its handle";
        gate.open = true;
        session.shutdown();
        EXPECT_EQ(waiting.returned, 0) << "its handle is still there";
        EXPECT_EQ(first->poll(), DEFECTRT_CANCELLED);
        EXPECT_EQ(first->record(), "");
    }
    EXPECT_EQ(waiting.returned, 1);
}

TEST(Synthesize, TakesAStrideOfNothingForRowsThatFollowEachOther) {
    const Engine engine(directory, 1);
    Session session(engine);
    Image image;
    Result expected(image.request), result(image.request);
    session.synthesize(image.request, expected);
    image.request.image.stride = 0;
    image.request.mask.stride = 0;
    const defectrt_mask again{image.mask.data(), 0};
    image.request.instances = &again;
    session.synthesize(image.request, result);
    EXPECT_EQ(result.label(), expected.label());
    std::size_t bytes = 0;
    EXPECT_EQ(defectrt_result_size(&image.request, &bytes, nullptr), DEFECTRT_OK);
    EXPECT_EQ(bytes, image.pixels.size());
}

TEST(Synthesize, TakesATypeAndAStrengthForEachDefect) {
    const Engine engine(directory, 1);
    Session session(engine);
    Image image;
    std::vector<std::uint8_t> other(image.mask.size());
    for (std::size_t y = 4; y < 12; ++y) std::memset(&other[y * 50 + 2], 1, 8);
    const defectrt_mask second{other.data(), 0};
    image.request.instances = &second;
    image.request.instance_count = 1;
    image.request.strength = 0.3;
    Result expected(image.request), result(image.request);
    session.synthesize(image.request, expected);
    const char *defects[] = {nullptr, "spot"};
    double strengths[] = {0.3, 0.3};
    image.request.defects = defects;
    image.request.strengths = strengths;
    image.request.strength = 0;
    session.synthesize(image.request, result);
    EXPECT_EQ(result.pixels(), expected.pixels());
    strengths[1] = 0.1;
    session.synthesize(image.request, result);
    EXPECT_NE(result.pixels(), expected.pixels());
    strengths[1] = 10.1;
    EXPECT_THROW(session.synthesize(image.request, result), Error);
    strengths[1] = 0;
    defects[1] = "";
    EXPECT_THROW(session.synthesize(image.request, result), Error);
}

TEST(Synthesize, RefusesAMaskThatLeavesItsRegion) {
    const Engine engine(directory, 1);
    Session session(engine);
    Image image;
    Result result(image.request);
    std::vector<std::uint8_t> legal = image.mask;
    image.request.within = {legal.data(), 0};
    session.synthesize(image.request, result);
    legal[16 * 50 + 20] = 0;
    EXPECT_EQ(defectrt_synthesize(session.get(), &image.request, &result), DEFECTRT_INPUT);
    EXPECT_STREQ(result.message, "1 px of the mask lie where no defect may be");
    image.request.within.stride = 49;
    EXPECT_EQ(defectrt_synthesize(session.get(), &image.request, &result), DEFECTRT_INPUT);
}

TEST(Session, TellsWhatItTakesBeforehand) {
    const Engine engine(directory, 1);
    Options options;
    options.queue = 5;
    options.workers = 3;
    Session session(engine, options);
    Image image;
    const defectrt_memory one = session.memory(image.request);
    EXPECT_EQ(one.session, 5 * one.task + 3 * (one.task + one.work));
    EXPECT_GT(one.task, image.pixels.size());
    image.request.release = [](void *) {};
    EXPECT_EQ(session.memory(image.request).task, one.task - image.pixels.size());
    defectrt_memory out{};
    EXPECT_EQ(defectrt_session_memory(session.get(), &image.request, &out), DEFECTRT_USAGE);
    out.struct_size = sizeof out;
    EXPECT_EQ(defectrt_session_memory(nullptr, &image.request, &out), DEFECTRT_USAGE);
    image.request.image.depth = 3;
    EXPECT_THROW(session.memory(image.request), Error);
}

TEST(Tasks, EndWhenTheSessionDoes) {
    std::optional<Task> running, waiting;
    Gate gate;
    {
        const Engine engine(directory, 1);
        Session session(engine);
        Image image;
        running = session.submit(gate.held(image.request));
        waiting = session.submit(image.request);
        gate.wait_until_entered();
        std::thread release([&] {
            while (waiting->poll() == DEFECTRT_PENDING) std::this_thread::yield();
            gate.open = true;
        });
        session.shutdown();
        release.join();
        session.shutdown();
        EXPECT_THROW(session.submit(image.request), Error);
        Result result(image.request);
        EXPECT_EQ(defectrt_synthesize(session.get(), &image.request, &result), DEFECTRT_CLOSED);
        EXPECT_STREQ(result.message, "the session was shut down");
    }
    EXPECT_EQ(running->poll(), DEFECTRT_CANCELLED);
    EXPECT_EQ(waiting->poll(), DEFECTRT_CANCELLED);
}

TEST(Tasks, OfManySessionsAndThreadsDoNotDisturbEachOther) {
    const Engine engine(directory, 1);
    Image image;
    Result expected(image.request);
    Session(engine).synthesize(image.request, expected);
    std::atomic<int> same{0};
    std::vector<std::thread> threads;
    Options options;
    options.workers = 2;
    options.queue = 2;
    Session shared(engine, options);
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            Session own(engine);
            for (int i = 0; i < 4; ++i) {
                Result result(image.request);
                if (t % 2 == 0) {
                    own.synthesize(image.request, result);
                } else {
                    auto task = shared.submit(image.request);
                    task->wait();
                    task->result(result);
                }
                same += result.pixels() == expected.pixels();
            }
        });
    }
    for (std::thread &thread : threads) thread.join();
    EXPECT_EQ(same, 16);
}

TEST(Tasks, RefuseNull) {
    EXPECT_EQ(defectrt_task_poll(nullptr, nullptr, nullptr), DEFECTRT_USAGE);
    EXPECT_EQ(defectrt_task_wait(nullptr, 0), DEFECTRT_USAGE);
    EXPECT_EQ(defectrt_task_cancel(nullptr), DEFECTRT_USAGE);
    EXPECT_EQ(defectrt_session_shutdown(nullptr), DEFECTRT_USAGE);
    defectrt_task_release(nullptr);
    defectrt_session_destroy(nullptr);
    defectrt_task *task = nullptr;
    EXPECT_EQ(defectrt_submit(nullptr, nullptr, 0, &task), DEFECTRT_USAGE);
}
