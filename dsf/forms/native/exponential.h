// exp of a vector, within two units in the last place: 2^n times a Taylor series on |r| <= ln(2) / 2.
#pragma once
#include "lanes.h"

template <typename T>
struct Exponent;

template <>
struct Exponent<float> {
    static constexpr int bits = 23, bias = 127, degree = 7;
    static constexpr float least = -104.0f, most = 89.0f;  // exp is zero and infinite there
    static constexpr float high = 0x1.62e4p-1f, low = 0x1.7f7d1cp-20f;  // of ln 2; `high` times n is exact
    static constexpr float round = 0x1.8p23f;
};

template <>
struct Exponent<double> {
    static constexpr int bits = 52, bias = 1023, degree = 13;
    static constexpr double least = -746.0, most = 710.0;
    static constexpr double high = 0x1.62e42feep-1, low = 0x1.a39ef35793c76p-33;
    static constexpr double round = 0x1.8p52;
};

constexpr double inverse_factorial(int k) {
    double product = 1;
    for (int i = 2; i <= k; i++) product *= i;
    return 1 / product;
}

template <typename T>
inline Vector<T> exponential(Vector<T> x) {
    using E = Exponent<T>;
    x = x < E::least ? Vector<T>{} + E::least : x;
    x = x > E::most ? Vector<T>{} + E::most : x;
    const Vector<T> shifted = x * T(1.4426950408889634074) + E::round, n = shifted - E::round;
    const Vector<T> r = (x - n * E::high) - n * E::low;
    Vector<T> total = {};
#pragma GCC unroll 16
    for (int k = E::degree; k >= 0; k--) total = total * r + T(inverse_factorial(k));
    // In two steps, so that results below the smallest normal number and above the largest are right.
    const auto bits = [](Vector<T> number) { return reinterpret_cast<Integers<T>>(number); };
    const Integers<T> power = bits(shifted) - bits(Vector<T>{} + E::round);
    const Integers<T> half = power >> 1;
    const Vector<T> first = reinterpret_cast<Vector<T>>((half + E::bias) << E::bits);
    const Vector<T> second = reinterpret_cast<Vector<T>>((power - half + E::bias) << E::bits);
    return total * first * second;
}
