// The recurrence itself, a = exp(log) where logarithms are given: S <- a S + k (g u)^T, y = q^T S, and back through it.
//
// Channels lie in the lanes of vectors; a few keys of a few vectors are walked through a piece of time at once. A head
// of many channels is cut in parts that do not know of each other: what sums over channels is found for each part.
#pragma once
#include <algorithm>
#include "exponential.h"
#include "problem.h"

constexpr int64_t PART = 128;  // channels

enum Gating { ADDING, ONE_DECAY, DECAY_PER_KEY, DECAY_PER_NUMBER, STEP_TIMES_RATE };

// The streams of a scan, in the order of `dsf.forms.native.library`.
enum Line { SCAN_READ, SCAN_WRITE, SCAN_GAIN, SCAN_VALUE, SCAN_DECAY, SCAN_STEP, SCAN_RATE, SCAN_OUTPUT, OF_READ,
            OF_WRITE, OF_GAIN, OF_VALUE, OF_DECAY, OF_STEP, OF_RATE, SCAN_MEMORY, SCAN_FINAL, SCAN_STARTS, OF_MEMORY,
            LINES };

template <typename T>
struct ScanProblem : Task<T, LINES> {
    using Task<T, LINES>::Task;
    bool logs() const { return this->option; }
    int64_t parts() const { return (this->values + PART - 1) / PART; }
    int64_t units() const { return parts() * this->heads; }
};

// Memory for one piece of time.
template <typename T>
struct ScanRoom {
    std::vector<T> room;
    T *reads, *writes, *decays, *gains, *values, *written, *steps, *outputs, *above, *of_written, *of_steps;
    T *states, *gates, *of_reads, *of_writes, *of_decays, *of_all, *summands, *turned, *numbers;

    explicit ScanRoom(const ScanProblem<T>& problem) {
        const int64_t P = padded(problem.every), K = padded(problem.keys), V = PART, W = Lanes<T>::count;
        const int64_t walked = P * 10 * W;  // of a few keys and vectors of channels
        const int64_t own = problem.gate == DECAY_PER_NUMBER ? K * P * V : 0;
        const int64_t sizes[] = {P * K, P * K, P * K, P * V, P * V, P * V, P * V, P * V, P * V, P * V, P * V, walked,
                                 walked, P * K, P * K, P * K, P * W, 4 * P * W, P * K, own};
        T** places[] = {&reads, &writes, &decays, &gains, &values, &written, &steps, &outputs, &above, &of_written,
                        &of_steps, &states, &gates, &of_reads, &of_writes, &of_decays, &of_all, &summands, &turned,
                        &numbers};
        divide(room, sizes, places);
    }
};

// A part of a head.
template <typename T, int G>
struct Part {
    static constexpr int64_t W = Lanes<T>::count;
    const ScanProblem<T>& problem;
    const int64_t b, h, part, first, own, K, V;  // its first channel, how many, keys, and channels with padding
    const int64_t ahead;                         // steps to the piece that comes next
    std::vector<T> room;
    T *state, *rates;

    Part(const ScanProblem<T>& problem, int64_t b, int64_t unit, bool ascending)
        : problem(problem), b(b), h(unit / problem.parts()), part(unit % problem.parts()), first(part * PART),
          own(std::min(PART, problem.values - first)), K(problem.keys), V(padded(own)),
          ahead(ascending ? problem.every : -problem.every) {
        const int64_t sizes[] = {K * V, K * V};
        T** places[] = {&state, &rates};
        divide(room, sizes, places);
        if (G == STEP_TIMES_RATE) take_state(problem[SCAN_RATE].at(b, 0, h), rates);
    }

    // Of a state (keys, values).
    void take_state(const T* from, T* onto) const {
        for (int64_t k = 0; k < problem.keys; k++) copy(onto + k * V, from + k * problem.values + first, own);
    }
    void give_state(const T* from, T* onto) const {
        for (int64_t k = 0; k < problem.keys; k++) copy(onto + k * problem.values + first, from + k * V, own);
    }
    T* start(int64_t t) const {
        return problem[SCAN_STARTS].data + problem.group(t, b, h) * problem.keys * problem.values;
    }

    // Rows of a stream from channel `from` on, and zeros; the next piece comes into the cache.
    void fetch(Line line, int64_t from, int64_t size, int64_t width, int64_t t, int64_t n, T* onto) const {
        for (int64_t i = 0; i < n; i++) {
            const T* x = problem[line].at(b, t + i, h) + from;
            copy(onto + i * width, x, size);
            prefetch(x + ahead * problem[line].time, size);
            std::memset(onto + i * width + size, 0, (width - size) * sizeof(T));
        }
    }
    void give(Line line, const T* rows, int64_t t, int64_t n) const {
        const Stream<T>& stream = problem[line];
        if (stream.data) put(stream.at(b, t, h) + first, stream.time, rows, V, own, n, problem.large());
    }
    // What was summed over the channels of this part, `rows` of time for each key: (parts, batch, time, heads, size).
    void give_sums(ScanRoom<T>& at, Line line, const T* rows, int64_t size, int64_t t, int64_t n) const {
        const Stream<T>& stream = problem[line];
        if (!stream.data) return;
        const int64_t steps = padded(problem.every), keys = padded(size);
        transpose(keys, steps, rows, steps, at.turned, keys);
        put(stream.at(part * problem.batch + b, t, h), stream.time, at.turned, keys, size, n, problem.large());
    }

    void take(ScanRoom<T>& at, int64_t t, int64_t n) const {
        fetch(SCAN_READ, 0, problem.keys, K, t, n, at.reads);
        fetch(SCAN_WRITE, 0, problem.keys, K, t, n, at.writes);
        fetch(SCAN_VALUE, first, own, V, t, n, at.values);
        if (problem[SCAN_GAIN].data) fetch(SCAN_GAIN, first, own, V, t, n, at.gains);
        const T* gains = problem[SCAN_GAIN].data ? at.gains : nullptr;
        for (int64_t j = 0; j < n * V; j += W)
            store<T>(at.written + j, gains ? load(gains + j) * load(at.values + j) : load(at.values + j));
        if (G == ONE_DECAY) fetch(SCAN_DECAY, 0, 1, 1, t, n, at.decays);
        if (G == DECAY_PER_KEY) fetch(SCAN_DECAY, 0, problem.keys, K, t, n, at.decays);
        if (G == STEP_TIMES_RATE) fetch(SCAN_STEP, first, own, V, t, n, at.steps);
        if (G == DECAY_PER_NUMBER)
            for (int64_t i = 0; i < n; i++)
                for (int64_t k = 0; k < K; k++) take_numbers(number(at, i, k, 0), t + i, k);
    }

    // Decays that are numbers of their own lie by keys: (keys, time, channels).
    T* number(const ScanRoom<T>& at, int64_t i, int64_t k, int64_t v) const {
        return at.numbers + (k * problem.every + i) * V + v;
    }

    void take_numbers(T* onto, int64_t t, int64_t k) const {
        fetch(SCAN_DECAY, k * problem.values + first, own, V, t, 1, onto);
        if (!problem.logs()) return;
        for (int64_t v = 0; v < V; v += W) store<T>(onto + v, exponential<T>(load(onto + v)));
    }

    // a of key k in step i, of all channels or of those from v on.
    T shared_gate(const ScanRoom<T>& at, int64_t i, int64_t k) const {
        return G == ONE_DECAY ? at.decays[i] : G == DECAY_PER_KEY ? at.decays[i * K + k] : T(1);
    }
    Vector<T> own_gate(const ScanRoom<T>& at, int64_t i, int64_t k, int64_t v) const {
        if (G == DECAY_PER_NUMBER) return load(number(at, i, k, v));
        return exponential<T>(load(at.steps + i * V + v) * load(rates + k * V + v));
    }
};

template <typename T, int G>
struct ScanForward : Part<T, G> {
    static constexpr bool ascending = true;
    static constexpr int M = 4;  // keys at once
    using Room = ScanRoom<T>;
    using P = Part<T, G>;
    using P::K, P::V, P::W, P::problem, P::state;

    ScanForward(const ScanProblem<T>& problem, int64_t b, int64_t unit) : P(problem, b, unit, ascending) {
        this->take_state(problem[SCAN_MEMORY].at(b, 0, this->h), state);
    }

    void group(Room& at, int64_t t, int64_t end) {
        const int64_t n = end - t;
        if (problem[SCAN_STARTS].data) this->give_state(state, this->start(t));
        this->take(at, t, n);
        std::memset(at.outputs, 0, n * V * sizeof(T));
        for (int64_t v = 0; v < V; v += W) {
            int64_t k = 0;
            for (; k + M <= K; k += M) walk<M>(at, n, k, v);
            for (; k < K; k++) walk<1>(at, n, k, v);
        }
        this->give(SCAN_OUTPUT, at.outputs, t, n);
    }

    template <int N>
    void walk(Room& at, int64_t n, int64_t k, int64_t v) {
        Vector<T> own[N];
        for (int m = 0; m < N; m++) own[m] = load(state + (k + m) * V + v);
        for (int64_t i = 0; i < n; i++) {
            const Vector<T> written = load(at.written + i * V + v);
            Vector<T> output = load(at.outputs + i * V + v);
#pragma GCC unroll 4
            for (int m = 0; m < N; m++) {
                const Vector<T> entering = at.writes[i * K + k + m] * written;
                if constexpr (G >= DECAY_PER_NUMBER)
                    own[m] *= this->own_gate(at, i, k + m, v);
                else if constexpr (G != ADDING)
                    own[m] *= this->shared_gate(at, i, k + m);
                own[m] += entering;
                output += at.reads[i * K + k + m] * own[m];
            }
            store<T>(at.outputs + i * V + v, output);
        }
        for (int m = 0; m < N; m++) store<T>(state + (k + m) * V + v, own[m]);
    }

    bool finish() {
        this->give_state(state, problem[SCAN_FINAL].at(this->b, 0, this->h));
        return true;
    }
};

template <typename T, int G>
struct ScanBackward : Part<T, G> {
    static constexpr bool ascending = false;
    static constexpr int M = 2, MOST = G >= DECAY_PER_NUMBER ? 2 : DSF_BYTES >= 64 ? 5 : 3;  // keys and vectors at once
    using Room = ScanRoom<T>;
    using P = Part<T, G>;
    using P::K, P::V, P::W, P::problem, P::state, P::own;
    std::vector<T> more;
    const T* coming;  // the state at the start of the piece that comes next
    T *begun, *of_rates;  // the state at the start of the piece; `state` is the gradient of the one at its end

    ScanBackward(const ScanProblem<T>& problem, int64_t b, int64_t unit) : P(problem, b, unit, ascending) {
        const int64_t sizes[] = {K * V, K * V};
        T** places[] = {&begun, &of_rates};
        divide(more, sizes, places);
        this->take_state(problem[SCAN_FINAL].at(b, 0, this->h), state);
    }

    void group(Room& at, int64_t t, int64_t end) {
        const int64_t n = end - t;
        this->take(at, t, n);
        this->take_state(this->start(t), begun);
        coming = t ? this->start(t - problem.every) + this->first : nullptr;
        this->fetch(SCAN_OUTPUT, this->first, own, V, t, n, at.above);
        for (T* x : {at.of_written, at.of_steps}) std::memset(x, 0, n * V * sizeof(T));
        std::memset(at.of_all, 0, n * W * sizeof(T));
        int64_t vectors = (own + W - 1) / W;
        for (int64_t v = 0, groups = (vectors + MOST - 1) / MOST; groups; groups--) {
            const int64_t some = (vectors + groups - 1) / groups;
            walk_keys<MOST>(at, n, v, some);
            v += some * W, vectors -= some;
        }
        this->give_sums(at, OF_READ, at.of_reads, problem.keys, t, n);
        this->give_sums(at, OF_WRITE, at.of_writes, problem.keys, t, n);
        if (G == ONE_DECAY) sum(at.of_all, at.of_decays, n, false);
        if (G == DECAY_PER_KEY || G == ONE_DECAY)
            this->give_sums(at, OF_DECAY, at.of_decays, G == ONE_DECAY ? 1 : problem.keys, t, n);
        if (G == DECAY_PER_NUMBER && problem[OF_DECAY].data) give_numbers(at, t, n);
        if (problem[SCAN_GAIN].data) {
            for (int64_t j = 0; j < n * V; j += W) {
                const Vector<T> both = load(at.of_written + j);
                store<T>(at.of_written + j, both * load(at.gains + j));
                store<T>(at.values + j, both * load(at.values + j));
            }
            this->give(OF_GAIN, at.values, t, n);
        }
        this->give(OF_VALUE, at.of_written, t, n);
        if (G == STEP_TIMES_RATE) this->give(OF_STEP, at.of_steps, t, n);
    }

    void give_numbers(Room& at, int64_t t, int64_t n) const {
        for (int64_t i = 0; i < n; i++) {
            T* onto = problem[OF_DECAY].at(this->b, t + i, this->h) + this->first;
            put(onto, problem.values, this->number(at, i, 0, 0), problem.every * V, own, K, problem.large());
        }
    }

    // All keys of so many vectors of channels, at most N.
    template <int N>
    void walk_keys(Room& at, int64_t n, int64_t v, int64_t vectors) {
        if constexpr (N > 1)
            if (vectors < N) return walk_keys<N - 1>(at, n, v, vectors);
        int64_t k = 0;
        for (; k + M <= K; k += M) walk<M, N>(at, n, k, v);
        for (; k < K; k++) walk<1, N>(at, n, k, v);
    }

    // The sum of each of n vectors.
    static void sum(const T* vectors, T* onto, int64_t n, bool add) {
        for (int64_t i = 0; i < n; i += W) {
            Vector<T> rows[W];
#pragma GCC unroll 16
            for (int j = 0; j < W; j++) rows[j] = load(vectors + (i + j) * W);
            sum_across<T>(rows);
            store<T>(onto + i, add ? load(onto + i) + rows[0] : rows[0]);
        }
    }

    // Up through the states and what reads saw of them, and down through their gradients. Lanes that no channel has
    // are zero, or not numbers where a gate, a read or a write is none: nor are then the sums.
    template <int M, int N>
    void walk(Room& at, int64_t n, int64_t k, int64_t v) {
        constexpr int64_t next = M * N * W;
        const int64_t steps = padded(problem.every);
        if (coming)
            for (int m = 0; m < M; m++) prefetch(coming + (k + m) * problem.values + v, N * W);
        const auto sum_keys = [&](Line line, const T* summands, T* onto) {
            if (!problem[line].data) return;
            for (int m = 0; m < M; m++) sum(summands + m * steps * W, onto + (k + m) * steps, n, v > 0);
        };
        Vector<T> h[M][N], later[M][N], of_rate[M][N];
#pragma GCC unroll 2
        for (int m = 0; m < M; m++)
#pragma GCC unroll 5
            for (int j = 0; j < N; j++) h[m][j] = load(begun + (k + m) * V + v + j * W);
        for (int64_t i = 0; i < n; i++) {
            Vector<T> above[N], written[N];
#pragma GCC unroll 5
            for (int j = 0; j < N; j++) {
                above[j] = load(at.above + i * V + v + j * W);
                written[j] = load(at.written + i * V + v + j * W);
            }
#pragma GCC unroll 2
            for (int m = 0; m < M; m++) {
                const T write = at.writes[i * K + k + m], a = this->shared_gate(at, i, k + m);
                Vector<T> of_read = {};
#pragma GCC unroll 5
                for (int j = 0; j < N; j++) {
                    const int64_t place = i * next + (m * N + j) * W;
                    if constexpr (G != ADDING) store<T>(at.states + place, h[m][j]);
                    if constexpr (G >= DECAY_PER_NUMBER) {
                        const Vector<T> own_gate = this->own_gate(at, i, k + m, v + j * W);
                        if (G == STEP_TIMES_RATE) store<T>(at.gates + place, own_gate);
                        h[m][j] *= own_gate;
                    } else if constexpr (G != ADDING) {
                        h[m][j] *= a;
                    }
                    h[m][j] += write * written[j];
                    of_read += h[m][j] * above[j];
                }
                store<T>(at.summands + (m * steps + i) * W, of_read);
            }
        }
        sum_keys(OF_READ, at.summands, at.of_reads);
#pragma GCC unroll 2
        for (int m = 0; m < M; m++)
#pragma GCC unroll 5
            for (int j = 0; j < N; j++) {
                later[m][j] = load(state + (k + m) * V + v + j * W);
                if (G == STEP_TIMES_RATE) of_rate[m][j] = load(of_rates + (k + m) * V + v + j * W);
            }
        for (int64_t i = n - 1; i >= 0; i--) {
            Vector<T> above[N], written[N], of_written[N], of_step[N], of_all = {};
#pragma GCC unroll 5
            for (int j = 0; j < N; j++) {
                const int64_t place = i * V + v + j * W;
                above[j] = load(at.above + place), written[j] = load(at.written + place);
                of_written[j] = load(at.of_written + place);
                if (G == STEP_TIMES_RATE) of_step[j] = load(at.of_steps + place);
            }
#pragma GCC unroll 2
            for (int m = 0; m < M; m++) {
                Vector<T> of_write = {}, of_decay = {};
                const T read = at.reads[i * K + k + m], write = at.writes[i * K + k + m];
#pragma GCC unroll 5
                for (int j = 0; j < N; j++) {
                    const int64_t place = i * next + (m * N + j) * W;
                    Vector<T>& z = later[m][j];
                    z += read * above[j];
                    of_write += z * written[j];
                    of_written[j] += write * z;
                    if constexpr (G == ONE_DECAY || G == DECAY_PER_KEY) {
                        of_decay += z * load(at.states + place);
                        z *= this->shared_gate(at, i, k + m);
                    } else if constexpr (G != ADDING) {
                        const Vector<T> of_gate = z * load(at.states + place);
                        T* const own_gate = this->number(at, i, k + m, v + j * W);
                        const Vector<T> a = load(G == DECAY_PER_NUMBER ? own_gate : at.gates + place);
                        if constexpr (G == DECAY_PER_NUMBER) {
                            store<T>(own_gate, problem.logs() ? of_gate * a : of_gate);
                        } else {
                            of_step[j] += of_gate * a * load(this->rates + (k + m) * V + v + j * W);
                            of_rate[m][j] += of_gate * a * load(at.steps + i * V + v + j * W);
                        }
                        z *= a;
                    }
                }
                store<T>(at.summands + (m * steps + i) * W, of_write);
                if constexpr (G == DECAY_PER_KEY) store<T>(at.summands + ((2 + m) * steps + i) * W, of_decay);
                if constexpr (G == ONE_DECAY) of_all += of_decay;
            }
#pragma GCC unroll 5
            for (int j = 0; j < N; j++) {
                store<T>(at.of_written + i * V + v + j * W, of_written[j]);
                if (G == STEP_TIMES_RATE) store<T>(at.of_steps + i * V + v + j * W, of_step[j]);
            }
            if (G == ONE_DECAY) store<T>(at.of_all + i * W, load(at.of_all + i * W) + of_all);
        }
        sum_keys(OF_WRITE, at.summands, at.of_writes);
        if (G == DECAY_PER_KEY) sum_keys(OF_DECAY, at.summands + 2 * steps * W, at.of_decays);
#pragma GCC unroll 2
        for (int m = 0; m < M; m++)
#pragma GCC unroll 5
            for (int j = 0; j < N; j++) {
                store<T>(state + (k + m) * V + v + j * W, later[m][j]);
                if (G == STEP_TIMES_RATE) store<T>(of_rates + (k + m) * V + v + j * W, of_rate[m][j]);
            }
    }

    bool finish() {
        this->give_state(state, problem[OF_MEMORY].at(this->b, 0, this->h));
        if (problem[OF_RATE].data) this->give_state(of_rates, problem[OF_RATE].at(this->b, 0, this->h));
        return true;
    }
};
