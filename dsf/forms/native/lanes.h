// Vectors of numbers, and the two loops that everything else is made of: products and transposes of small matrices.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifndef DSF_BYTES
#define DSF_BYTES 16  // of one vector register
#endif

template <typename T>
struct Lanes {
    static constexpr int64_t count = DSF_BYTES / sizeof(T);
    typedef T type __attribute__((vector_size(DSF_BYTES)));
    typedef T loose __attribute__((vector_size(DSF_BYTES), aligned(sizeof(T)), may_alias));
};

template <typename T>
using Vector = typename Lanes<T>::type;

template <typename T>
inline Vector<T> load(const T* x) {
    return *reinterpret_cast<const typename Lanes<T>::loose*>(x);
}

template <typename T>
inline void store(T* onto, Vector<T> x) {
    *reinterpret_cast<typename Lanes<T>::loose*>(onto) = x;
}

template <typename T>
inline T sum(Vector<T> x) {
    T parts[Lanes<T>::count];
    store(parts, x);
    for (int64_t width = Lanes<T>::count / 2; width; width /= 2)
        for (int64_t i = 0; i < width; i++) parts[i] += parts[i + width];
    return parts[0];
}

template <typename T>
inline T dot(const T* x, const T* y, int64_t size) {
    Vector<T> total = {};
    for (int64_t j = 0; j < size; j += Lanes<T>::count) total += load(x + j) * load(y + j);
    return sum<T>(total);
}

// A matrix as its first number and the distances between rows and between columns.
template <typename T>
struct Matrix {
    const T* data;
    int64_t rows, columns;
    Matrix(const T* data, int64_t rows, int64_t columns = 1) : data(data), rows(rows), columns(columns) {}
};

template <typename T, int M, int N>
inline void product_tile(int64_t depth, Matrix<T> a, Matrix<T> b, T* c, int64_t width, bool add) {
    constexpr int64_t W = Lanes<T>::count;
    Vector<T> total[M][N];
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) total[i][j] = add ? load(c + i * width + j * W) : Vector<T>{};
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

// C = A B, or C + A B: `m` and `n` are multiples of 16, rows of B and C are contiguous.
template <typename T>
void product(int64_t m, int64_t n, int64_t depth, Matrix<T> a, Matrix<T> b, T* c, int64_t width, bool add) {
    constexpr int64_t W = Lanes<T>::count;
    constexpr int M = DSF_BYTES >= 64 ? 8 : 4;
    for (int64_t j = 0; j < n;) {
        const bool two = n - j >= 2 * W;
        for (int64_t i = 0; i < m; i += M) {
            Matrix<T> rows(a.data + i * a.rows, a.rows, a.columns), part(b.data + j, b.rows);
            if (two)
                product_tile<T, M, 2>(depth, rows, part, c + i * width + j, width, add);
            else
                product_tile<T, M, 1>(depth, rows, part, c + i * width + j, width, add);
        }
        j += two ? 2 * W : W;
    }
}

// Pairs of rows at a distance D exchange their off-diagonal D x D blocks.
template <typename T, int D>
inline void exchange(Vector<T>* rows) {
    constexpr int W = Lanes<T>::count;
    typedef typename std::conditional<sizeof(T) == 4, int32_t, int64_t>::type Index;
    typedef Index Places __attribute__((vector_size(DSF_BYTES)));
    Places low, high;
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
