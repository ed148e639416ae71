// One head back through time: blocks from the last, each from the state at its start and the gradient R of its end.
#pragma once
#include "forward.h"

template <typename T>
struct Back {
    const Block<T>* block;  // the one that is gone back through
    const int64_t K, V, rows, several;
    std::vector<T> room;
    T *above, *of_reads, *of_writes, *of_values, *of_table, *of_decay, *gram, *across, *moved, *passed;

    explicit Back(const Block<T>& any) : block(&any), K(any.K), V(any.V), rows(any.rows), several(any.several) {
        const int64_t sizes[] = {rows * V, rows * K, rows * K, rows * V, rows * rows, C * K, rows * rows,
                                 rows * K, K, C * C};
        T** places[] = {&above, &of_reads, &of_writes, &of_values, &of_table, &of_decay, &gram, &across, &moved,
                        &passed};
        divide(room, sizes, places);
    }

    // dU = G^T dO + (writes at the end) R; with low rank the inner ones' are solved for, and are of outputs too.
    void of_all_values(const T* later) {
        product<T>(rows, V, K, {block->onward, K}, {later, V}, of_values, V, false);
        product<T>(rows, V, C, {block->table, 1, rows}, {above, V}, of_values, V, true);
        if (block->several == 1) return;
        T *inner = of_values + C * V, *onto = above + C * V;
        const T* table = block->table + C * rows;
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
        T* turned = block->turned;
        transpose<T>(rows, V, block->values, V, turned, rows);
        product<T>(rows, rows, V, {above, V}, {turned, rows}, gram, rows, false);
        product<T>(K, rows, V, {later, V}, {turned, rows}, across, rows, false);
        transpose<T>(K, rows, across, rows, of_writes, K);
        transpose<T>(rows, V, above, V, turned, rows);
        product<T>(K, rows, V, {start, V}, {turned, rows}, across, rows, false);
        transpose<T>(K, rows, across, rows, of_reads, K);
    }

    // Of the total decay of each key: sum over values of S R.
    void of_total(const T* start, const T* later) const { dots(K, V, start, later, moved); }

    void through_shared() {
        block->masked(gram, of_table);
        if (block->problem.gate == SHARED) decays_shared();
        // From carried vectors to the vectors themselves, and what G gives them.
        block->carry_reads(of_reads, of_reads);
        block->carry_writes(of_writes, of_writes);
        product<T>(rows, K, rows, {of_table, rows}, {block->writes, K}, of_reads, K, true);
        product<T>(rows, K, rows, {of_table, 1, rows}, {block->reads, K}, of_writes, K, true);
    }

    // A decay stands between what is written before it and read after it; no quotient, so that it may be zero.
    void decays_shared() {
        T onward[2 * C], reach[2 * C], of_start[C], start = T(0);
        for (int64_t k = 0; k < K; k++) start += moved[k];
        dots(rows, K, block->writes, of_writes, onward);
        dots(rows, K, block->reads, of_reads, reach);
        for (int64_t i = C - 1; i >= 0; i--) {
            const T own = block->decay[i];
            see(onward, i, i + 1);
            start += reach[i];
            of_start[i] = start;
            for (int64_t j = 0; j < C; j += Lanes<T>::count) {
                const Vector<T> late = several == 2 ? load(onward + C + j) : Vector<T>{};
                store<T>(passed + i * C + j, load(onward + j) + late);
            }
            for (int64_t j = 0; j < rows; j += Lanes<T>::count) store<T>(onward + j, own * load(onward + j));
            start *= own;
            if (several == 2) {
                see(onward, C + i, i);
                start += reach[C + i];
            }
        }
        dots(C, C, passed, block->between, reach);
        for (int64_t i = 0; i < C; i++) of_decay[i * K] = of_start[i] * block->before[i] + reach[i];
    }

    // What the read in row i sees of writes before `end`.
    void see(T* onward, int64_t i, int64_t end) const {
        const Vector<T> zero = {};
        const T* before = block->unit + end * C;
        for (int64_t j = 0; j < rows; j += Lanes<T>::count) {
            const Vector<T> both = load(gram + i * rows + j) * load(block->raw + i * rows + j);
            store<T>(onward + j, load(onward + j) + (load(before + j % C) == zero ? zero : both));
        }
    }

    void through_per_key() {
        std::memset(of_decay, 0, C * K * sizeof(T));
        constexpr int64_t W = Lanes<T>::count;
        for (int64_t k = 0; k < K; k += W) of_start(k);
        block->carry_reads(of_reads, of_reads);
        int64_t k = 0;
        for (; k + 2 * W <= K; k += 2 * W)
            for (int64_t j = 0; j < rows; j++) of_write<2>(j, k);
        for (; k < K; k += W)
            for (int64_t j = 0; j < rows; j++) of_write<1>(j, k);
    }

    // The state at the start, as a write before all steps: what it gives the decays of a vector of keys.
    void of_start(int64_t k) const {
        Vector<T> z = load(moved + k);
        for (int64_t i = C - 1; i >= 0; i--) {
            z += load(block->reads + i * K + k) * load(of_reads + i * K + k);
            z = pass(i, k, z, load(block->before + i * K + k));
            if (several == 2) z += load(block->reads + (C + i) * K + k) * load(of_reads + (C + i) * K + k);
        }
    }

    // From z, the gradient of a write as it is after step i, that of the decay of the step, and of the write before it.
    Vector<T> pass(int64_t i, int64_t k, Vector<T> z, Vector<T> written) const {
        add(of_decay + i * K + k, z * written);
        return z * load(block->decay + i * K + k);
    }

    // N vectors of keys at once: their chains of products do not wait for one another.
    template <int N>
    void of_write(int64_t j, int64_t k) {
        constexpr int64_t W = Lanes<T>::count;
        const int64_t first = j % C;
        Vector<T> path[C + 1][N], z[N];  // path[i + 1]: the write as it is after step i
        for (int n = 0; n < N; n++) {
            z[n] = load(of_writes + j * K + k + n * W);
            path[first + 1][n] = load(block->writes + j * K + k + n * W);
        }
        for (int64_t i = first + 1; i < C; i++)
            for (int n = 0; n < N; n++) path[i + 1][n] = path[i][n] * load(block->decay + i * K + k + n * W);
        for (int64_t i = C - 1; i > first; i--)
            for (int n = 0; n < N; n++) {
                z[n] += read(i, j, k + n * W, path[i + 1][n]);
                z[n] = pass(i, k + n * W, z[n], path[i][n]);
                if (several == 2) z[n] += read(C + i, j, k + n * W, path[i][n]);
            }
        for (int n = 0; n < N; n++)
            store<T>(of_writes + j * K + k + n * W, z[n] + read(first, j, k + n * W, path[first + 1][n]));
    }

    // Of the write in row j, as it is where row i reads it; and of that read.
    Vector<T> read(int64_t i, int64_t j, int64_t k, Vector<T> written) const {
        const T weight = gram[i * rows + j];
        add(of_reads + i * K + k, weight * written);
        return weight * load(block->reads + i * K + k);
    }

    static void add(T* onto, Vector<T> x) { store<T>(onto, load(onto) + x); }
};

template <typename T>
struct Backward : Head<T> {
    static constexpr bool ascending = false;
    using Head<T>::problem, Head<T>::b, Head<T>::h, Head<T>::give;
    struct Room {
        std::vector<Block<T>> blocks;  // of a group of steps
        std::vector<T> starts;         // the state at the start of each
        Back<T> back;
        explicit Room(const Problem<T>& problem)
            : blocks(make(problem)), starts(blocks.size() * blocks[0].K * blocks[0].V + C), back(blocks[0]) {}

        static std::vector<Block<T>> make(const Problem<T>& problem) {
            std::vector<Block<T>> blocks;
            for (int64_t n = 0; n < problem.every / C; n++) {
                blocks.emplace_back(problem);
                blocks.back().ahead = -problem.every;
            }
            return blocks;
        }
    };

    Backward(const Problem<T>& problem, int64_t b, int64_t h) : Head<T>(problem, b, h, FINAL) {}

    void group(Room& room, int64_t first, int64_t end) {
        const int64_t K = room.back.K, V = room.back.V, blocks = (end - first + C - 1) / C;
        T* start = aligned(room.starts);
        put(start, V, start_at(problem, b, first, h), problem.values, problem.values, problem.keys);
        for (int64_t n = 0; n < blocks; n++) {
            Block<T>& block = room.blocks[n];
            take(block, first + n * C);
            T* now = start + n * K * V;
            if (n + 1 < blocks) carry(block, block.onward, block.values, now, now + K * V);
        }
        for (int64_t n = blocks - 1; n >= 0; n--) {
            prefetch_start(first - problem.every, n);
            back(room.back, room.blocks[n], first + n * C, start + n * K * V);
        }
    }

    // The share of block n in fetching the state at the start of the group at t, which comes next.
    void prefetch_start(int64_t t, int64_t n) const {
        if (t < 0) return;
        const int64_t blocks = problem.every / C, size = problem.keys * problem.values;
        const int64_t share = (size + blocks - 1) / blocks;
        prefetch(start_at(problem, b, t, h) + n * share, share);
    }

    // What is written in a block, the inner values as they were kept.
    void take(Block<T>& block, int64_t t) const {
        block.take_writes(b, t, h);
        if (!problem.low_rank()) return;
        T* inner = block.values + C * block.V;
        std::memset(inner, 0, C * block.V * sizeof(T));
        put(inner, block.V, inner_at(problem, b, t, h), problem.values, problem.values, block.steps);
    }

    void back(Back<T>& back, Block<T>& block, int64_t t, const T* start) {
        const int64_t K = block.K, V = block.V;
        T* later = this->state.data();
        back.block = &block;
        block.take_reads(b, t, h);
        block.fetch(OUTPUT, problem.values, V, b, t, h, back.above);
        back.of_all_values(later);
        back.of_folded(start, later);
        if (problem.gate != NONE) back.of_total(start, later);
        problem.gate == PER_KEY ? back.through_per_key() : back.through_shared();
        give(READ_BACK, problem.keys, back.of_reads, K, t, block.steps);
        give(WRITE_BACK, problem.keys, back.of_writes, K, t, block.steps);
        give(VALUE_BACK, problem.values, back.of_values, V, t, block.steps);
        give(DECAY_BACK, problem.gate == PER_KEY ? problem.keys : 1, back.of_decay, K, t, block.steps);
        if (problem.low_rank()) {
            give(LATE_BACK, problem.keys, back.of_reads + C * K, K, t, block.steps);
            give(INNER_WRITE_BACK, problem.keys, back.of_writes + C * K, K, t, block.steps);
        }
        carry(block, block.early, back.above, later, later);
    }

    bool finish() { return Head<T>::finish(MEMORY_BACK); }
};
