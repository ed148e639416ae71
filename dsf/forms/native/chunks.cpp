// Chunks of h_i = (D_i + P_i Q_i^T) h_{i-1} + k_i u_i^T, y_i = h_i^T q_i and their gradients: what Python calls.
#include <algorithm>
#include <atomic>
#include <thread>
#include "backward.h"

// Heads side by side in memory are walked side by side in time, as many as leave work for every thread.
// Whether all results are finite.
template <typename T, template <typename> class Walk>
int walk(const int64_t* sizes, const int64_t* tensors) {
    const Problem<T> problem(sizes, tensors);
    const int64_t most = 8, share = problem.batch * problem.heads / problem.threads;
    const int64_t team = std::max<int64_t>(1, std::min({most, share, problem.heads}));
    const int64_t teams = (problem.heads + team - 1) / team;
    const int64_t groups = (problem.length + problem.every - 1) / problem.every;
    std::atomic<int64_t> next{0};
    std::atomic<bool> finite{true};
    auto work = [&] {
        typename Walk<T>::Room room(problem);
        for (int64_t n = next++; n < problem.batch * teams; n = next++) {
            std::vector<Walk<T>> heads;
            const int64_t first = n % teams * team;
            for (int64_t h = first; h < std::min(first + team, problem.heads); h++)
                heads.emplace_back(problem, n / teams, h);
            for (int64_t i = 0; i < groups; i++) {
                const int64_t start = (Walk<T>::ascending ? i : groups - 1 - i) * problem.every;
                for (auto& head : heads) head.group(room, start, std::min(start + problem.every, problem.length));
            }
            for (auto& head : heads) {
                head.finish();
                if (!head.watch.finite()) finite = false;
            }
            settle();
        }
    };
    std::vector<std::thread> others;
    for (int64_t n = 1; n < problem.threads; n++) others.emplace_back(work);
    work();
    for (auto& each : others) each.join();
    return finite;
}

extern "C" {
int dsf_forward_float32(const int64_t* sizes, const int64_t* given) { return walk<float, Forward>(sizes, given); }
int dsf_forward_float64(const int64_t* sizes, const int64_t* given) { return walk<double, Forward>(sizes, given); }
int dsf_backward_float32(const int64_t* sizes, const int64_t* given) { return walk<float, Backward>(sizes, given); }
int dsf_backward_float64(const int64_t* sizes, const int64_t* given) { return walk<double, Backward>(sizes, given); }
}
