// What a run is given: sizes and tensors, from two arrays of integers.
#pragma once
#include <vector>
#include "lanes.h"

constexpr int64_t C = 16;  // steps of a block

inline int64_t padded(int64_t size) { return (size + C - 1) / C * C; }

// The first of these numbers on a cache line of its own: 64 bytes more than asked for are needed.
template <typename T>
T* aligned(std::vector<T>& numbers) {
    T* first = numbers.data();
    while (reinterpret_cast<uintptr_t>(first) % 64) first++;
    return first;
}

// Cut memory into places of these sizes, each aligned.
template <typename T, int N>
void divide(std::vector<T>& room, const int64_t (&sizes)[N], T** const (&places)[N]) {
    int64_t total = 64 / sizeof(T);
    for (int64_t size : sizes) total += padded(size);
    room.assign(total, T(0));
    T* next = aligned(room);
    for (int i = 0; i < N; i++) {
        *places[i] = next;
        next += padded(sizes[i]);
    }
}

enum Gate { NONE, SHARED, PER_KEY };

// A tensor (batch, time, heads, channels) with contiguous channels; absent where `data` is null.
template <typename T>
struct Stream {
    T* data;
    int64_t batch, time, head;
    T* at(int64_t b, int64_t t, int64_t h) const { return data + b * batch + t * time + h * head; }
};

// The streams of a run, in the order of `dsf.forms.native.library`.
enum Slot { READ, WRITE, VALUE, DECAY, LATE, INNER_WRITE, OUTPUT, READ_BACK, WRITE_BACK, VALUE_BACK,
            DECAY_BACK, LATE_BACK, INNER_WRITE_BACK, MEMORY, FINAL, STARTS, INNER, MEMORY_BACK, SLOTS };

constexpr int64_t LARGE = 4 << 20;  // bytes of results that no cache keeps for whoever reads them

// Sizes, and COUNT streams; what `option` says is for the walk to know.
template <typename T, int COUNT>
struct Task {
    int64_t batch, length, heads, keys, values, every, gate, option, threads;
    Stream<T> streams[COUNT];

    Task(const int64_t* sizes, const int64_t* tensors)
        : batch(sizes[0]), length(sizes[1]), heads(sizes[2]), keys(sizes[3]), values(sizes[4]),
          every(sizes[5]), gate(sizes[6]), option(sizes[7]), threads(sizes[8]) {
        for (int i = 0; i < COUNT; i++) {
            const int64_t* own = tensors + 4 * i;
            streams[i] = {reinterpret_cast<T*>(own[0]), own[1], own[2], own[3]};
        }
    }
    const Stream<T>& operator[](int name) const { return streams[name]; }
    bool large() const { return batch * length * heads * values * int64_t(sizeof(T)) > LARGE; }
    // What is kept of the group of steps that begins at `time`: (groups, batch, heads, ·).
    int64_t group(int64_t time, int64_t b, int64_t h) const {
        return (time / every * batch + b) * heads + h;
    }
};

template <typename T>
struct Problem : Task<T, SLOTS> {
    using Task<T, SLOTS>::Task;
    bool low_rank() const { return this->option; }
    int64_t vectors() const { return low_rank() ? 2 : 1; }  // reads of a step, and writes
    int64_t units() const { return this->heads; }
};

// Rows of numbers from a block to their place.
template <typename T>
void put(T* onto, int64_t apart, const T* rows, int64_t width, int64_t size, int64_t steps, bool away = false) {
    for (int64_t i = 0; i < steps; i++)
        away ? copy_away(onto + i * apart, rows + i * width, size) : copy(onto + i * apart, rows + i * width, size);
}

// The same into a stream, and looked at.
template <typename T>
void give(const Problem<T>& problem, Slot slot, int64_t size, const T* rows, int64_t width, int64_t steps, int64_t b,
          int64_t t, int64_t h, Watch<T>& watch) {
    const Stream<T>& stream = problem[slot];
    if (!stream.data) return;
    put(stream.at(b, t, h), stream.time, rows, width, size, steps, problem.large());
    for (int64_t i = 0; i < steps; i++) watch.see(rows + i * width, size);
}
