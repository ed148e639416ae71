// One head through time: O = G U + (reads carried to the start) S, S <- a S + (writes carried to the end)^T U.
#pragma once
#include "block.h"

// The state, (K, V) padded with zeros.
template <typename T>
struct State {
    int64_t keys, values, width;
    std::vector<T> numbers;
    State(const Problem<T>& problem)
        : keys(problem.keys), values(problem.values), width(padded(problem.values)),
          numbers(padded(problem.keys) * width, T(0)) {}
    T* data() { return numbers.data(); }
    void read(const T* given) { put(data(), width, given, values, values, keys); }
    void write(T* onto) const { put(onto, values, numbers.data(), width, values, keys); }
};

// S <- a S, row by row.
template <typename T>
void fade(const Block<T>& block, T* state) {
    if (block.problem.gate == NONE) return;
    const bool own = block.problem.gate == PER_KEY;
    for (int64_t k = 0; k < block.K; k++) {
        const T total = own ? block.before[C * block.K + k] : block.before[C];
        for (int64_t v = k * block.V; v < (k + 1) * block.V; v += Lanes<T>::count)
            store<T>(state + v, total * load(state + v));
    }
}

template <typename T>
void advance(const Block<T>& block, T* state) {
    fade(block, state);
    product<T>(block.K, block.V, block.rows, {block.onward, 1, block.K}, {block.values, block.V}, state, block.V, true);
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

template <typename T>
struct Forward {
    static constexpr bool ascending = true;
    struct Room {
        Block<T> block;
        std::vector<T> outputs;
        explicit Room(const Problem<T>& problem) : block(problem), outputs(C * block.V) {}
    };

    const Problem<T>& problem;
    const int64_t b, h;
    State<T> state;

    Forward(const Problem<T>& problem, int64_t b, int64_t h) : problem(problem), b(b), h(h), state(problem) {
        state.read(problem[MEMORY].at(b, 0, h));
    }

    void group(Room& room, int64_t first, int64_t end) {
        if (problem[STARTS].data) state.write(start_at(problem, b, first, h));
        for (int64_t t = first; t < end; t += C) take(room, t);
        const int64_t rest = first + problem.every - end;  // rows that no step fills
        if (problem[INNER].data && rest)
            std::memset(inner_at(problem, b, end - 1, h) + problem.values, 0, rest * problem.values * sizeof(T));
    }

    void take(Room& room, int64_t t) {
        Block<T>& block = room.block;
        const int64_t K = block.K, V = block.V;
        T* outputs = room.outputs.data();
        block.take_writes(b, t, h);
        block.take_reads(b, t, h);
        if (problem.low_rank) {
            solve(block, state.data());
            if (problem[INNER].data)
                put(inner_at(problem, b, t, h), problem.values, block.values + C * V, V, problem.values, block.steps);
        }
        product<T>(C, V, K, {block.early, K}, {state.data(), V}, outputs, V, false);
        product<T>(C, V, block.rows, {block.table, block.rows}, {block.values, V}, outputs, V, true);
        give(problem, OUTPUT, problem.values, outputs, V, block.steps, b, t, h);
        advance(block, state.data());
    }

    void finish() { state.write(problem[FINAL].at(b, 0, h)); }
};
