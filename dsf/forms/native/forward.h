// One head through time: O = G U + (reads carried to the start) S, S <- a S + (writes carried to the end)^T U.
#pragma once
#include "block.h"

// The state, (K, V) padded with zeros.
template <typename T>
struct State {
    int64_t keys, values, width, size;
    std::vector<T> room;
    State(const Problem<T>& problem)
        : keys(problem.keys), values(problem.values), width(padded(problem.values)), size(padded(keys) * width),
          room(size + C, T(0)) {}
    T* data() { return aligned(room); }
    void read(const T* given) { put(data(), width, given, values, values, keys); }
    void write(T* onto, bool away = false) { put(onto, values, data(), width, values, keys, away); }
    void look(Watch<T>& watch) { watch.see(data(), size); }
};

// a S + A^T B, from a state S and the rows of A and B in this block; a row of S may have a decay of its own.
template <typename T>
void carry(const Block<T>& block, const T* a, const T* b, const T* state, T* onto) {
    const int64_t K = block.K, V = block.V, apart = state - onto;
    const auto product = [&](auto first) { product_from<T>(K, V, block.rows, {a, 1, K}, {b, V}, onto, V, first); };
    if (block.problem.gate == NONE) return product([=](int64_t, const T* x) { return load(x + apart); });
    const T* total = block.before + C * block.apart();
    const int64_t next = block.problem.gate == PER_KEY;
    product([=](int64_t k, const T* x) { return total[k * next] * load(x + apart); });
}

// The inner values w = T (E S + N U), below those of the tokens: row after row, since M is strictly lower triangular.
template <typename T>
void solve(Block<T>& block, const T* state) {
    const int64_t K = block.K, V = block.V, rows = block.rows;
    const T* table = block.table + C * rows;
    T* inner = block.values + C * V;
    product<T>(C, V, K, {block.early + C * K, K}, {state, V}, inner, V, false);
    product<T>(C, V, C, {table, rows}, {block.values, V}, inner, V, true);
    for (int64_t i = 1; i < C; i++)
        for (int64_t v = 0; v < V; v += Lanes<T>::count) {
            Vector<T> total = load(inner + i * V + v);
            for (int64_t j = 0; j < i; j++) total += table[i * rows + C + j] * load(inner + j * V + v);
            store<T>(inner + i * V + v, total);
        }
}

// Where the state at the start of a group is kept, and where the inner values of a step.
template <typename T>
T* start_at(const Problem<T>& problem, int64_t b, int64_t t, int64_t h) {
    return problem[STARTS].data + problem.group(t, b, h) * problem.keys * problem.values;
}

template <typename T>
T* inner_at(const Problem<T>& problem, int64_t b, int64_t t, int64_t h) {
    return problem[INNER].data + (problem.group(t, b, h) * problem.every + t % problem.every) * problem.values;
}

// One head: its state, or the gradient of it, on the way through time.
template <typename T>
struct Head {
    const Problem<T>& problem;
    const int64_t b, h;
    State<T> state;
    Watch<T> watch;

    Head(const Problem<T>& problem, int64_t b, int64_t h, Slot from) : problem(problem), b(b), h(h), state(problem) {
        state.read(problem[from].at(b, 0, h));
    }

    void give(Slot slot, int64_t size, const T* rows, int64_t width, int64_t t, int64_t steps) {
        ::give(problem, slot, size, rows, width, steps, b, t, h, watch);
    }

    bool finish(Slot onto) {
        state.write(problem[onto].at(b, 0, h));
        state.look(watch);
        return watch.finite();
    }
};

template <typename T>
struct Forward : Head<T> {
    static constexpr bool ascending = true;
    using Head<T>::problem, Head<T>::b, Head<T>::h, Head<T>::state;
    struct Room {
        Block<T> block;
        std::vector<T> outputs;
        explicit Room(const Problem<T>& problem) : block(problem), outputs(C * block.V + C) {}
    };

    Forward(const Problem<T>& problem, int64_t b, int64_t h) : Head<T>(problem, b, h, MEMORY) {}

    void group(Room& room, int64_t first, int64_t end) {
        if (problem[STARTS].data) state.write(start_at(problem, b, first, h), problem.large());
        for (int64_t t = first; t < end; t += C) take(room, t);
        const int64_t rest = first + problem.every - end;  // rows that no step fills
        if (problem[INNER].data && rest)
            std::memset(inner_at(problem, b, end - 1, h) + problem.values, 0, rest * problem.values * sizeof(T));
    }

    void take(Room& room, int64_t t) {
        Block<T>& block = room.block;
        const int64_t K = block.K, V = block.V;
        T* outputs = aligned(room.outputs);
        block.take_writes(b, t, h);
        block.take_reads(b, t, h);
        if (problem.low_rank()) {
            solve(block, state.data());
            if (problem[INNER].data)
                put(inner_at(problem, b, t, h), problem.values, block.values + C * V, V, problem.values, block.steps,
                    problem.large());
        }
        product<T>(C, V, K, {block.early, K}, {state.data(), V}, outputs, V, false);
        product<T>(C, V, block.rows, {block.table, block.rows}, {block.values, V}, outputs, V, true);
        this->give(OUTPUT, problem.values, outputs, V, t, block.steps);
        carry(block, block.onward, block.values, state.data(), state.data());
    }

    bool finish() { return Head<T>::finish(FINAL); }
};
