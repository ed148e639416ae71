// Scans of h_i = a_i h_{i-1} + k_i u_i^T, y_i = h_i^T q_i, one step after another, and their gradients.
#include "scan.h"
#include "walk.h"

template <template <typename, int> class Walk, typename T>
int scan(const int64_t* sizes, const int64_t* given) {
    const ScanProblem<T> problem(sizes, given);
    switch (problem.gate) {
        case ADDING: return walk<Walk<T, ADDING>>(problem);
        case ONE_DECAY: return walk<Walk<T, ONE_DECAY>>(problem);
        case DECAY_PER_KEY: return walk<Walk<T, DECAY_PER_KEY>>(problem);
        case DECAY_PER_NUMBER: return walk<Walk<T, DECAY_PER_NUMBER>>(problem);
        default: return walk<Walk<T, STEP_TIMES_RATE>>(problem);
    }
}

extern "C" {
CALLS(forward, scan, ScanForward)
CALLS(backward, scan, ScanBackward)
}
