// Independent recurrences over threads, and how Python calls a walk through them.
#pragma once
#include <algorithm>
#include <atomic>
#include <thread>
#include "problem.h"

// Heads and their parts side by side in memory are walked side by side in time, as many as leave work for every thread.
template <typename Walk, typename Task>
int walk(const Task& problem) {
    const int64_t most = 8, units = problem.units(), share = problem.batch * units / problem.threads;
    const int64_t team = std::max<int64_t>(1, std::min({most, share, units}));
    const int64_t teams = (units + team - 1) / team;
    const int64_t groups = (problem.length + problem.every - 1) / problem.every;
    std::atomic<int64_t> next{0};
    std::atomic<bool> finite{true};
    auto work = [&] {
        typename Walk::Room room(problem);
        for (int64_t n = next++; n < problem.batch * teams; n = next++) {
            std::vector<Walk> heads;
            const int64_t first = n % teams * team;
            for (int64_t h = first; h < std::min(first + team, units); h++)
                heads.emplace_back(problem, n / teams, h);
            for (int64_t i = 0; i < groups; i++) {
                const int64_t start = (Walk::ascending ? i : groups - 1 - i) * problem.every;
                for (auto& head : heads) head.group(room, start, std::min(start + problem.every, problem.length));
            }
            for (auto& head : heads) {
                if (!head.finish()) finite = false;
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

// Each says whether all results are finite, as far as it looks.
#define CALLS(name, function, walk)                                             \
    int dsf_##name##_float32(const int64_t* sizes, const int64_t* given) {      \
        return function<walk, float>(sizes, given);                             \
    }                                                                           \
    int dsf_##name##_float64(const int64_t* sizes, const int64_t* given) {      \
        return function<walk, double>(sizes, given);                            \
    }
