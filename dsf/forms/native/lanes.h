// Vectors of numbers, and the two loops that everything else is made of: products and transposes of small matrices.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#ifndef DSF_BYTES
#define DSF_BYTES 16  // of one vector register
#endif

template <typename T>
struct Lanes {
    static constexpr int64_t count = DSF_BYTES / sizeof(T);
    typedef T type __attribute__((vector_size(DSF_BYTES)));
    typedef T loose __attribute__((vector_size(DSF_BYTES), aligned(sizeof(T))));
};

template <typename T>
using Vector = typename Lanes<T>::type;

// As many integers, each as wide: places in vectors, or the bits of their numbers.
template <typename T>
struct Whole {
    typedef typename std::conditional<sizeof(T) == 4, int32_t, int64_t>::type one;
    typedef one type __attribute__((vector_size(DSF_BYTES)));
};

template <typename T>
using Integers = typename Whole<T>::type;

template <typename T>
inline Vector<T> load(const T* x) {
    return *reinterpret_cast<const typename Lanes<T>::loose*>(x);
}

template <typename T>
inline void store(T* onto, Vector<T> x) {
    *reinterpret_cast<typename Lanes<T>::loose*>(onto) = x;
}

template <typename T>
inline void copy(T* onto, const T* x, int64_t size) {
    int64_t j = 0;
    for (; j + Lanes<T>::count <= size; j += Lanes<T>::count) store<T>(onto + j, load(x + j));
    if (j < size) std::memcpy(onto + j, x + j, (size - j) * sizeof(T));
}

// A copy past the cache, which need not fetch first what it writes over: for what is not read again soon.
template <typename T>
inline void copy_away(T* onto, const T* x, int64_t size) {
#ifdef __x86_64__
    if (reinterpret_cast<uintptr_t>(onto) % 64 == 0 && size % (64 / sizeof(T)) == 0) {
        for (int64_t j = 0; j < size; j += Lanes<T>::count) {
#if DSF_BYTES == 64
            _mm512_stream_si512(reinterpret_cast<__m512i*>(onto + j), _mm512_loadu_si512(x + j));
#elif DSF_BYTES == 32
            _mm256_stream_si256(reinterpret_cast<__m256i*>(onto + j),
                                _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(x + j)));
#else
            _mm_stream_si128(reinterpret_cast<__m128i*>(onto + j),
                             _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(x + j)));
#endif
        }
        return;
    }
#endif
    copy(onto, x, size);
}

// Until what was copied away can be seen by other threads.
inline void settle() {
#ifdef __x86_64__
    _mm_sfence();
#endif
}

// Into the second cache: the first has too few places for lines on their way.
template <typename T>
inline void prefetch(const T* x, int64_t size) {
    for (int64_t k = 0; k < size; k += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(x + k, 0, 2);
}

// Whether all it saw is finite: zero times anything else is not a number.
template <typename T>
struct Watch {
    Vector<T> whole = {};
    T rest = T(0);

    void see(const T* x, int64_t size) {
        int64_t j = 0;
        for (; j + Lanes<T>::count <= size; j += Lanes<T>::count) whole += T(0) * load(x + j);
        for (; j < size; j++) rest += T(0) * x[j];
    }

    bool finite() const {
        T total = rest, parts[Lanes<T>::count];
        store<T>(parts, whole);
        for (T part : parts) total += part;
        return total == T(0);
    }
};

// A matrix as its first number and the distances between rows and between columns.
template <typename T>
struct Matrix {
    const T* data;
    int64_t rows, columns;
    Matrix(const T* data, int64_t rows, int64_t columns = 1) : data(data), rows(rows), columns(columns) {}
};

template <typename T, int M, int N, typename First>
inline void product_tile(int64_t depth, Matrix<T> a, Matrix<T> b, T* c, int64_t width, int64_t from, First first) {
    constexpr int64_t W = Lanes<T>::count;
    Vector<T> total[M][N];
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) total[i][j] = first(from + i, c + i * width + j * W);
    for (int64_t k = 0; k < depth; k++) {
        Vector<T> row[N];
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) row[j] = load(b.data + k * b.rows + j * W);
#pragma GCC unroll 8
        for (int i = 0; i < M; i++)
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) total[i][j] += a.data[i * a.rows + k * a.columns] * row[j];
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) store(c + i * width + j * W, total[i][j]);
}

// C = A B + what `first` makes of a row's number and a place in it. `m` and `n` are multiples of 16, rows of B and C
// contiguous. Tiles fill the registers; wide and low ones take fewer loads, and pass over C in order.
template <typename T, typename First>
void product_from(int64_t m, int64_t n, int64_t depth, Matrix<T> a, Matrix<T> b, T* c, int64_t width, First first) {
    constexpr int64_t W = Lanes<T>::count;
    constexpr int M = DSF_BYTES >= 64 ? 8 : 4;
    const auto column = [&](auto rows, auto vectors, int64_t j) {
        for (int64_t i = 0; i < m; i += rows())
            product_tile<T, rows(), vectors()>(depth, {a.data + i * a.rows, a.rows, a.columns}, {b.data + j, b.rows},
                                               c + i * width + j, width, i, first);
        return j + vectors() * W;
    };
    const std::integral_constant<int, M> tall;
    for (int64_t j = 0; j < n;) {
        if (M == 8 && n - j >= 4 * W)
            j = column(std::integral_constant<int, 4>(), std::integral_constant<int, 4>(), j);
        else if (n - j >= 2 * W)
            j = column(tall, std::integral_constant<int, 2>(), j);
        else
            j = column(tall, std::integral_constant<int, 1>(), j);
    }
}

// C = A B, or C + A B.
template <typename T>
void product(int64_t m, int64_t n, int64_t depth, Matrix<T> a, Matrix<T> b, T* c, int64_t width, bool add) {
    if (add)
        product_from<T>(m, n, depth, a, b, c, width, [](int64_t, const T* x) { return load(x); });
    else
        product_from<T>(m, n, depth, a, b, c, width, [](int64_t, const T*) { return Vector<T>{}; });
}

// Pairs of rows at a distance D exchange their off-diagonal D x D blocks.
template <typename T, int D>
inline void exchange(Vector<T>* rows) {
    constexpr int W = Lanes<T>::count;
    Integers<T> low, high;
    for (int j = 0; j < W; j++) {
        low[j] = j & D ? W + j - D : j;
        high[j] = j & D ? W + j : j + D;
    }
    for (int i = 0; i < W; i++)
        if (!(i & D)) {
            Vector<T> first = rows[i], second = rows[i + D];
            rows[i] = __builtin_shuffle(first, second, low);
            rows[i + D] = __builtin_shuffle(first, second, high);
        }
    if constexpr (2 * D < W) exchange<T, 2 * D>(rows);
}

// onto[j, i] = x[i, j]; `m` and `n` are multiples of 16.
template <typename T>
void transpose(int64_t m, int64_t n, const T* x, int64_t width, T* onto, int64_t across) {
    constexpr int64_t W = Lanes<T>::count;
    for (int64_t i = 0; i < m; i += W)
        for (int64_t j = 0; j < n; j += W) {
            Vector<T> rows[W];
#pragma GCC unroll 16
            for (int r = 0; r < W; r++) rows[r] = load(x + (i + r) * width + j);
            exchange<T, 1>(rows);
#pragma GCC unroll 16
            for (int r = 0; r < W; r++) store(onto + (j + r) * across + i, rows[r]);
        }
}

// Lane i of rows[0]: the sum of vector i, halving the count of vectors at each distance.
template <typename T, int D = 1>
inline void sum_across(Vector<T>* rows) {
    constexpr int W = Lanes<T>::count;
    Integers<T> own, other;
    for (int j = 0; j < W; j++) {
        own[j] = j & D ? W + j : j;
        other[j] = (j & D ? W + j : j) ^ D;
    }
#pragma GCC unroll 8
    for (int i = 0; i < W / (2 * D); i++) {
        const Vector<T> first = rows[2 * i], second = rows[2 * i + 1];
        rows[i] = __builtin_shuffle(first, second, own) + __builtin_shuffle(first, second, other);
    }
    if constexpr (2 * D < W) sum_across<T, 2 * D>(rows);
}

// The sums of many vectors, a register full of them at once: each is added to its place, at the latest by `finish`.
template <typename T>
struct Sums {
    static constexpr int64_t W = Lanes<T>::count;
    Vector<T> pending[W];
    T* places[W];
    int64_t count = 0;

    void put(T* place, Vector<T> x) {
        places[count] = place;
        pending[count++] = x;
        if (count == W) add();
    }

    void finish() {
        T nothing = T(0);
        while (count) put(&nothing, Vector<T>{});
    }

   private:
    void add() {
        Vector<T> rows[W];
#pragma GCC unroll 16
        for (int i = 0; i < W; i++) rows[i] = pending[i];
        sum_across<T>(rows);
        T found[W];
        store<T>(found, rows[0]);
#pragma GCC unroll 16
        for (int i = 0; i < W; i++) *places[i] += found[i];
        count = 0;
    }
};

template <typename T>
inline Vector<T> products(const T* x, const T* y, int64_t size) {
    Vector<T> total = {};
    for (int64_t j = 0; j < size; j += Lanes<T>::count) total += load(x + j) * load(y + j);
    return total;
}

// onto[i] = x_i . y_i, of contiguous rows.
template <typename T>
void dots(int64_t count, int64_t size, const T* x, const T* y, T* onto) {
    Sums<T> sums;
    std::memset(onto, 0, count * sizeof(T));
    for (int64_t i = 0; i < count; i++) sums.put(onto + i, products(x + i * size, y + i * size, size));
    sums.finish();
}
