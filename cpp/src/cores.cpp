#include "cores.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "platform.hpp"

namespace defectrt::internal {
namespace {

/// The least of a group and of all that it is in; a container sees its own at the root. By texts:
/// paths of libstdc++ do not survive that memory runs out.
void limit(double &least, const std::string &root, std::string group,
           const std::vector<const char *> &names) {
    for (;;) {
        double numbers[2] = {0, 0};
        std::size_t count = 0;
        for (const char *name : names) {
            std::ifstream file(root + group + "/" + name);
            while (count < 2 && file >> numbers[count]) ++count;
        }
        const bool limited = count == 2 && numbers[0] > 0 && numbers[1] > 0;
        if (limited) least = std::min(least, numbers[0] / numbers[1]);
        if (group.empty()) return;
        group.erase(std::min(group.size() - 1, group.rfind('/')));
    }
}

}  // namespace

int cores(const std::string &groups, const std::string &mount) {
    double least = platform::allowed_cores();
    std::ifstream file(groups);
    for (std::string line; std::getline(file, line);) {
        const std::size_t first = line.find(':');
        const std::size_t second = first == line.npos ? first : line.find(':', first + 1);
        if (second == line.npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const std::string place = line.substr(second + 1);
        if (controllers.empty()) {
            limit(least, mount, place, {"cpu.max"});
            continue;
        }
        std::istringstream words(controllers);
        for (std::string word; std::getline(words, word, ',');) {
            if (word != "cpu") continue;
            for (const std::string &name : {controllers, word}) {
                limit(least, mount + "/" + name, place, {"cpu.cfs_quota_us", "cpu.cfs_period_us"});
            }
        }
    }
    return std::max(1, static_cast<int>(std::ceil(least)));
}

int threads_of(int wanted) {
    const int here = cores();
    return wanted > 0 ? std::min(wanted, here) : here;
}

}  // namespace defectrt::internal
