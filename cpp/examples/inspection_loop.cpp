// A minimal inspection loop: a camera thread, a bounded queue, cancel on shutdown.
//
//     inspection_loop ENGINE [IMAGES]
//
// The camera never waits: what finds no room in the queue is dropped and counted, as on a line.
// Once so many images were taken, the line stops, and what is still on its way is cancelled.
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <defectrt/defectrt.hpp>
#include <deque>
#include <mutex>
#include <thread>

namespace {

/// Tasks on their way from the camera to the consumer.
class Line {
public:
    void put(defectrt::Task task) {
        const std::lock_guard<std::mutex> lock(mutex_);
        tasks_.push_back(std::move(task));
        change_.notify_one();
    }

    void stop() {
        const std::lock_guard<std::mutex> lock(mutex_);
        stopped_ = true;
        change_.notify_all();
    }

    /// The next task; nothing once the line has stopped, unless `rest` are asked for.
    std::optional<defectrt::Task> take(bool rest = false) {
        std::unique_lock<std::mutex> lock(mutex_);
        change_.wait(lock, [this] { return stopped_ || !tasks_.empty(); });
        if (tasks_.empty() || (stopped_ && !rest)) return std::nullopt;
        defectrt::Task task = std::move(tasks_.front());
        tasks_.pop_front();
        return task;
    }

private:
    std::mutex mutex_;
    std::condition_variable change_;
    std::deque<defectrt::Task> tasks_;
    bool stopped_ = false;
};

constexpr std::uint32_t width = 128, height = 96;

void photograph(std::vector<unsigned char> &frame, unsigned number) {
    for (std::size_t i = 0; i < frame.size(); ++i) {
        frame[i] = static_cast<unsigned char>(140 + (i * 2654435761U + number) % 16);
    }
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 2) {
        std::fprintf(stderr, "inspection_loop ENGINE [IMAGES]\n");
        return DEFECTRT_USAGE;
    }
    const unsigned images = argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 20;
    try {
        const defectrt::Engine engine(argv[1]);
        const std::string defect_type = engine.defect_types().front();
        defectrt::Options options;
        options.defect = defect_type.c_str();
        options.queue = 4;
        defectrt::Session session(engine, options);
        Line line;
        unsigned dropped = 0;

        std::thread camera([&] {
            std::vector<unsigned char> frame(width * height), mask(width * height);
            for (std::size_t y = 40; y < 52; ++y) std::memset(&mask[y * width + 50], 1, 20);
            defectrt::Request request;
            request.image = {frame.data(), width, width, height, DEFECTRT_GREY, 8};
            request.mask = {mask.data(), width};
            for (unsigned i = 0; i < images; ++i) {
                photograph(frame, i);  // the frame is free again as soon as submit returns
                request.seed = i;
                try {
                    if (auto task = session.submit(request, 0)) {
                        line.put(std::move(*task));
                    } else {
                        ++dropped;
                    }
                } catch (const defectrt::Error &error) {
                    std::fprintf(stderr, "image %u: %s\n", i, error.what());
                }
            }
            line.stop();
        });

        unsigned made = 0, failed = 0, cancelled = 0;
        const auto settle = [&](const defectrt::Task &task) {
            const defectrt_status status = task.wait();
            made += status == DEFECTRT_OK;
            cancelled += status == DEFECTRT_CANCELLED;
            failed += status != DEFECTRT_OK && status != DEFECTRT_CANCELLED;
        };
        while (const auto task = line.take()) settle(*task);
        camera.join();
        session.shutdown();
        while (const auto task = line.take(true)) settle(*task);
        std::printf("%u taken: %u made, %u failed, %u dropped, %u cancelled at the end\n", images,
                    made, failed, dropped, cancelled);
        return made + failed + dropped + cancelled == images ? 0 : DEFECTRT_ERROR;
    } catch (const defectrt::Error &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return error.status();
    }
}
