// A block of C steps of one head: its vectors and decays, the table of what each read sees of each write, and back.
//
// Reads are q and, with low rank, Q, which reads one step earlier; writes are k and P. Rows of one kind lie together.
#pragma once
#include "problem.h"

template <typename T>
struct Block {
    const Problem<T>& problem;
    const int64_t K, V, several, rows;  // padded sizes; vectors of a step; all rows
    std::vector<T> room;
    T *decay, *before, *after;        // a, its products from the first step and to the last, (C + 1, K) each
    T *reads, *writes, *values;       // (rows, K), (rows, K), (rows, V)
    T *early, *onward;                // reads carried to the start, writes carried to the end
    T *table, *raw;                   // (rows, rows), with decays and without
    T *between, *unit;                // (C + 1, C): of a decay that all keys share, and were it one
    T *turned;                        // a transpose
    T *path;                          // a write on its way, (C + 1, K)
    int64_t steps, ahead = C;         // of this block; from it to the next one

    explicit Block(const Problem<T>& problem)
        : problem(problem), K(padded(problem.keys)), V(padded(problem.values)),
          several(problem.vectors()), rows(several * C) {
        const int64_t sizes[] = {(C + 1) * K, (C + 1) * K, (C + 1) * K, rows * K, rows * K, rows * V,
                                 rows * K, rows * K, rows * rows, rows * rows, (C + 1) * C, (C + 1) * C,
                                 rows * (K > V ? K : V), (C + 1) * K};
        T** places[] = {&decay, &before, &after, &reads, &writes, &values, &early, &onward, &table, &raw,
                        &between, &unit, &turned, &path};
        divide(room, sizes, places);
        for (int64_t i = 0; i <= C; i++)
            for (int64_t j = 0; j < i; j++) unit[i * C + j] = T(1);
        if (problem.gate == NONE) between = unit;
    }

    // Rows of a stream, zero beyond its size and its steps.
    void fetch(Slot slot, int64_t size, int64_t width, int64_t b, int64_t t, int64_t h, T* onto) const {
        const Stream<T>& stream = problem[slot];
        for (int64_t i = 0; i < C; i++) {
            const int64_t own = i < steps && stream.data ? size : 0;
            if (own) {
                copy<T>(onto + i * width, stream.at(b, t + i, h), own);
                prefetch(stream.at(b, t + i, h) + ahead * stream.time, own);
            }
            for (int64_t k = own; k < width; k++) onto[i * width + k] = T(0);
        }
    }

    // What the state at the end of the block is made of; the rest of a block is `take_reads`.
    void take_writes(int64_t b, int64_t t, int64_t h) {
        steps = problem.length - t < C ? problem.length - t : C;
        fetch(WRITE, problem.keys, K, b, t, h, writes);
        fetch(VALUE, problem.values, V, b, t, h, values);
        if (several == 2) fetch(INNER_WRITE, problem.keys, K, b, t, h, writes + C * K);
        take_decays(b, t, h);
        carry_writes(writes, onward);
    }

    void take_reads(int64_t b, int64_t t, int64_t h) {
        fetch(READ, problem.keys, K, b, t, h, reads);
        if (several == 2) fetch(LATE, problem.keys, K, b, t, h, reads + C * K);
        carry_reads(reads, early);
        problem.gate == PER_KEY ? table_per_key() : table_shared();
    }

    // All reads to the start of the block: Q does not pass the decay of its own step. `onto` may be `x`.
    void carry_reads(const T* x, T* onto) const {
        scale(x, before + apart(), onto);
        if (several == 2) scale(x + C * K, before, onto + C * K);
    }

    // All writes to its end.
    void carry_writes(const T* x, T* onto) const {
        for (int64_t m = 0; m < rows * K; m += C * K) scale(x + m, after + apart(), onto + m);
    }

    // How far the factors of one step lie from those of the next: one for each key, or one.
    int64_t apart() const { return problem.gate == PER_KEY ? K : 1; }

    // Each row times its own of `factors`.
    void scale(const T* x, const T* factors, T* onto) const {
        if (problem.gate == NONE) {
            if (x != onto) copy(onto, x, C * K);
        } else if (problem.gate == PER_KEY) {
            times(x, factors, onto, C * K);
        } else {
            for (int64_t i = 0; i < C; i++)
                for (int64_t k = i * K; k < (i + 1) * K; k += Lanes<T>::count)
                    store<T>(onto + k, factors[i] * load(x + k));
        }
    }

    static void times(const T* x, const T* y, T* onto, int64_t size) {
        for (int64_t k = 0; k < size; k += Lanes<T>::count) store<T>(onto + k, load(x + k) * load(y + k));
    }

    void take_decays(int64_t b, int64_t t, int64_t h) {
        if (problem.gate == NONE) return;
        const Stream<T>& stream = problem[DECAY];
        if (problem.gate == PER_KEY) {
            fetch(DECAY, problem.keys, K, b, t, h, decay);
            for (int64_t i = 0; i < C; i++)
                for (int64_t k = i < steps ? problem.keys : 0; k < K; k++) decay[i * K + k] = T(1);
            for (int64_t k = 0; k < K; k++) before[k] = after[C * K + k] = T(1);
            for (int64_t i = 0; i < C; i++) times(before + i * K, decay + i * K, before + (i + 1) * K, K);
            for (int64_t i = C - 1; i >= 0; i--) times(after + (i + 1) * K, decay + i * K, after + i * K, K);
            return;
        }
        for (int64_t i = 0; i < C; i++) decay[i] = i < steps ? *stream.at(b, t + i, h) : T(1);
        before[0] = after[C] = T(1);
        for (int64_t i = 0; i < C; i++) before[i + 1] = before[i] * decay[i];
        for (int64_t i = C - 1; i >= 0; i--) after[i] = after[i + 1] * decay[i];
        fill_between();
    }

    // between[i, j]: the decays of the steps after j and before i; zero where j is i or later.
    void fill_between() {
        for (int64_t j = 0; j < C; j++) between[j] = T(0);
        for (int64_t i = 1; i <= C; i++) {
            const T own = decay[i - 1];
            for (int64_t j = 0; j < C; j += Lanes<T>::count)
                store<T>(between + i * C + j, own * load(between + (i - 1) * C + j));
            between[i * C + i - 1] = T(1);
        }
    }

    void table_shared() {
        transpose<T>(rows, K, writes, K, turned, rows);
        product<T>(rows, rows, K, {reads, K}, {turned, rows}, raw, rows, false);
        masked(raw, table);
    }

    // Entry by entry what decays on the way from write to read; exactly zero where the write is later.
    void masked(const T* x, T* onto) const {
        const Vector<T> zero = {};
        for (int64_t i = 0; i < rows; i++) {
            const T* factors = between + (i < C ? i + 1 : i - C) * C;
            for (int64_t j = 0; j < rows; j += Lanes<T>::count) {
                const Vector<T> factor = load(factors + j % C);
                store<T>(onto + i * rows + j, factor == zero ? zero : factor * load(x + i * rows + j));
            }
        }
    }

    // Of the write in row j: path[i + 1], as it is after step i.
    void follow(int64_t j) const {
        const int64_t first = j % C;
        copy(path + (first + 1) * K, writes + j * K, K);
        for (int64_t i = first + 1; i < C; i++)
            for (int64_t k = 0; k < K; k += Lanes<T>::count)
                store<T>(path + (i + 1) * K + k, load(path + i * K + k) * load(decay + i * K + k));
    }

    void table_per_key() {
        std::memset(table, 0, rows * rows * sizeof(T));
        Sums<T> sums;
        for (int64_t j = 0; j < rows; j++) {
            const int64_t first = j % C;
            follow(j);
            for (int64_t i = first; i < C; i++) {
                sums.put(table + i * rows + j, products(reads + i * K, path + (i + 1) * K, K));
                if (several == 2 && i > first)
                    sums.put(table + (C + i) * rows + j, products(reads + (C + i) * K, path + i * K, K));
            }
        }
        sums.finish();
    }
};
