// One head back through time: blocks from the last, each from the state at its start and the gradient R of its end.
#pragma once
#include "forward.h"

template <typename T>
struct Back {
    Block<T>& block;
    const int64_t K, V, rows;
    std::vector<T> room;
    T *above, *of_reads, *of_writes, *of_values, *of_table, *of_decay, *gram, *across, *moved;

    explicit Back(Block<T>& block) : block(block), K(block.K), V(block.V), rows(block.rows) {
        const int64_t sizes[] = {rows * V, rows * K, rows * K, rows * V, rows * rows, C * K, rows * rows,
                                 rows * K, K};
        T** places[] = {&above, &of_reads, &of_writes, &of_values, &of_table, &of_decay, &gram, &across, &moved};
        divide(room, sizes, places);
    }

    // dU = G^T dO + (writes at the end) R; with low rank the inner ones' are solved for, and are gradients of outputs too.
    void of_all_values(const T* later) {
        product<T>(rows, V, K, {block.onward, K}, {later, V}, of_values, V, false);
        product<T>(rows, V, C, {block.table, 1, rows}, {above, V}, of_values, V, true);
        if (block.several == 1) return;
        T *inner = of_values + C * V, *onto = above + C * V;
        const T* table = block.table + C * rows;
        for (int64_t i = C - 1; i >= 0; i--)
            for (int64_t v = 0; v < V; v += Lanes<T>::count) {
                Vector<T> total = load(inner + i * V + v);
                for (int64_t j = i + 1; j < C; j++) total += table[j * rows + C + i] * load(onto + j * V + v);
                store<T>(onto + i * V + v, total);
            }
        product<T>(C, V, C, {table, 1, rows}, {onto, V}, of_values, V, true);
    }

    // The gradients of G, of the reads carried to the start and of the writes carried to the end.
    void of_folded(const T* start, const T* later) {
        T* turned = block.turned;
        transpose<T>(rows, V, block.values, V, turned, rows);
        product<T>(rows, rows, V, {above, V}, {turned, rows}, gram, rows, false);
        product<T>(K, rows, V, {later, V}, {turned, rows}, across, rows, false);
        transpose<T>(K, rows, across, rows, of_writes, K);
        transpose<T>(rows, V, above, V, turned, rows);
        product<T>(K, rows, V, {start, V}, {turned, rows}, across, rows, false);
        transpose<T>(K, rows, across, rows, of_reads, K);
    }

    // Of the total decay of each key: sum over values of S R.
    void of_total(const T* start, const T* later) const {
        for (int64_t k = 0; k < K; k++) moved[k] = dot(start + k * V, later + k * V, V);
    }

    void through_shared() {
        block.masked(gram, of_table);
        if (block.problem.gate == SHARED) decays_shared();
        // From carried vectors to the vectors themselves, and what G gives them.
        block.carry_reads(of_reads, of_reads);
        block.carry_writes(of_writes, of_writes);
        product<T>(rows, K, rows, {of_table, rows}, {block.writes, K}, of_reads, K, true);
        product<T>(rows, K, rows, {of_table, 1, rows}, {block.reads, K}, of_writes, K, true);
    }

    // A decay stands between what is written before it and read after it; no quotient, so that it may be zero.
    void decays_shared() {
        T onward[2 * C], start = T(0), reach[2 * C];
        for (int64_t k = 0; k < K; k++) start += moved[k];
        for (int64_t j = 0; j < rows; j++) {
            onward[j] = dot(block.writes + j * K, of_writes + j * K, K);
            reach[j] = dot(block.reads + j * K, of_reads + j * K, K);
        }
        const int64_t several = block.several;
        for (int64_t i = C - 1; i >= 0; i--) {
            see(onward, i, i + 1);
            start += reach[i];
            T total = start * block.before[i];
            for (int64_t m = 0; m < several; m++) total += dot(onward + m * C, block.between + i * C, C);
            of_decay[i * K] = total;
            const T own = block.decay[i];
            for (int64_t j = 0; j < rows; j += Lanes<T>::count) store<T>(onward + j, own * load(onward + j));
            start *= own;
            if (several == 2) {
                see(onward, C + i, i);
                start += reach[C + i];
            }
        }
    }

    // What the read in row i sees of writes before `end`.
    void see(T* onward, int64_t i, int64_t end) const {
        const Vector<T> zero = {};
        const T* before = block.unit + end * C;
        for (int64_t j = 0; j < rows; j += Lanes<T>::count) {
            const Vector<T> both = load(gram + i * rows + j) * load(block.raw + i * rows + j);
            store<T>(onward + j, load(onward + j) + (load(before + j % C) == zero ? zero : both));
        }
    }

    void through_per_key() {
        std::memset(of_decay, 0, C * K * sizeof(T));
        // The state at the start, as a write before all steps.
        for (int64_t i = C - 1; i >= 0; i--) {
            add_product(moved, block.reads + i * K, of_reads + i * K);
            pass(i, moved, block.before + i * K);
            if (block.several == 2) add_product(moved, block.reads + (C + i) * K, of_reads + (C + i) * K);
        }
        block.carry_reads(of_reads, of_reads);
        for (int64_t j = 0; j < rows; j++) of_write(j);
    }

    // From z, the gradient of a write as it is after step i, that of the decay of the step, and of the write before it.
    void pass(int64_t i, T* z, const T* written) const {
        add_product(of_decay + i * K, z, written);
        block.times(z, block.decay + i * K, z, K);
    }

    void of_write(int64_t j) {
        const int64_t first = j % C;
        const T* path = block.path;
        T* z = of_writes + j * K;
        block.follow(j);
        for (int64_t i = C - 1; i >= first; i--) {
            const T weight = gram[i * rows + j];
            add(of_reads + i * K, weight, path + (i + 1) * K);
            add(z, weight, block.reads + i * K);
            if (i == first) break;
            pass(i, z, path + i * K);
            if (block.several == 2) {
                const T late = gram[(C + i) * rows + j];
                add(of_reads + (C + i) * K, late, path + i * K);
                add(z, late, block.reads + (C + i) * K);
            }
        }
    }

    void add_product(T* onto, const T* x, const T* y) const {
        for (int64_t k = 0; k < K; k += Lanes<T>::count) store<T>(onto + k, load(onto + k) + load(x + k) * load(y + k));
    }

    void add(T* onto, T weight, const T* x) const {
        for (int64_t k = 0; k < K; k += Lanes<T>::count) store<T>(onto + k, load(onto + k) + weight * load(x + k));
    }
};

template <typename T>
struct Backward {
    static constexpr bool ascending = false;
    struct Room {
        Block<T> block;
        Back<T> back;
        std::vector<T> starts;  // the state at the start of each block of a group
        explicit Room(const Problem<T>& problem)
            : block(problem), back(block), starts(problem.every / C * block.K * block.V) {
            block.ahead = -C;
        }
    };

    const Problem<T>& problem;
    const int64_t b, h;
    State<T> later;

    Backward(const Problem<T>& problem, int64_t b, int64_t h) : problem(problem), b(b), h(h), later(problem) {
        later.read(problem[FINAL].at(b, 0, h));
    }

    void group(Room& room, int64_t first, int64_t end) {
        Block<T>& block = room.block;
        const int64_t numbers = block.K * block.V, blocks = (end - first + C - 1) / C;
        T* start = room.starts.data();
        put(start, block.V, start_at(problem, b, first, h), problem.values, problem.values, problem.keys);
        for (int64_t n = 1; n < blocks; n++) {
            std::memcpy(start + n * numbers, start + (n - 1) * numbers, numbers * sizeof(T));
            take(block, first + (n - 1) * C);
            advance(block, start + n * numbers);
        }
        for (int64_t n = blocks - 1; n >= 0; n--) back(room, first + n * C, start + n * numbers);
    }

    // What is written in a block, the inner values as they were kept.
    void take(Block<T>& block, int64_t t) const {
        block.take_writes(b, t, h);
        if (!problem.low_rank) return;
        T* inner = block.values + C * block.V;
        std::memset(inner, 0, C * block.V * sizeof(T));
        put(inner, block.V, inner_at(problem, b, t, h), problem.values, problem.values, block.steps);
    }

    void back(Room& room, int64_t t, const T* start) {
        Block<T>& block = room.block;
        Back<T>& back = room.back;
        const int64_t K = block.K, V = block.V;
        take(block, t);
        block.take_reads(b, t, h);
        block.fetch(OUTPUT, problem.values, V, b, t, h, back.above);
        back.of_all_values(later.data());
        back.of_folded(start, later.data());
        if (problem.gate != NONE) back.of_total(start, later.data());
        problem.gate == PER_KEY ? back.through_per_key() : back.through_shared();
        give(READ_BACK, problem.keys, back.of_reads, K, t, block.steps);
        give(WRITE_BACK, problem.keys, back.of_writes, K, t, block.steps);
        give(VALUE_BACK, problem.values, back.of_values, V, t, block.steps);
        give(DECAY_BACK, problem.gate == PER_KEY ? problem.keys : 1, back.of_decay, K, t, block.steps);
        if (problem.low_rank) {
            give(LATE_BACK, problem.keys, back.of_reads + C * K, K, t, block.steps);
            give(INNER_WRITE_BACK, problem.keys, back.of_writes + C * K, K, t, block.steps);
        }
        fade(block, later.data());
        product<T>(K, V, block.rows, {block.early, 1, K}, {back.above, V}, later.data(), V, true);
    }

    void give(Slot slot, int64_t size, const T* rows, int64_t width, int64_t t, int64_t steps) const {
        ::give(problem, slot, size, rows, width, steps, b, t, h);
    }

    void finish() { later.write(problem[MEMORY_BACK].at(b, 0, h)); }
};
