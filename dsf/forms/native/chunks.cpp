// Chunks of h_i = (D_i + P_i Q_i^T) h_{i-1} + k_i u_i^T, y_i = h_i^T q_i, and their gradients.
#include "backward.h"
#include "walk.h"

template <template <typename> class Walk, typename T>
int chunks(const int64_t* sizes, const int64_t* given) {
    return walk<Walk<T>>(Problem<T>(sizes, given));
}

extern "C" {
CALLS(forward, chunks, Forward)
CALLS(backward, chunks, Backward)
}
