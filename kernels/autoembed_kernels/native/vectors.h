// What the kernels share: short vectors by GCC's and Clang's extension, which compile to what each processor
// has, reading at any address, and a loop over rows in threads.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#define EXPORT extern "C" __attribute__((visibility("default")))
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

using f32x8 = float __attribute__((vector_size(32)));
using f32x16 = float __attribute__((vector_size(64)));
using f32x4 = float __attribute__((vector_size(16)));
using i32x16 = int32_t __attribute__((vector_size(64)));
using i32x4 = int32_t __attribute__((vector_size(16)));
using i32x8 = int32_t __attribute__((vector_size(32)));
using u32x8 = uint32_t __attribute__((vector_size(32)));

// As many numbers as a register holds. Of wider vectors GCC compares number by number, several times slower.
#if defined(__AVX512F__)
using f32s = f32x16;
using i32s = i32x16;
#elif defined(__AVX__)
using f32s = f32x8;
using i32s = i32x8;
#else
using f32s = f32x4;
using i32s = i32x4;
#endif
constexpr int64_t LANES = sizeof(f32s) / sizeof(float);

// Lanes of two vectors by number, those of the second counted on; Places is a vector of integers of their shape
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLED(Places, first, second, ...) __builtin_shufflevector(first, second, __VA_ARGS__)
#else
#define SHUFFLED(Places, first, second, ...) __builtin_shuffle(first, second, Places{__VA_ARGS__})
#endif

template <typename T>
INLINE T load(const void* at) {
    T value;
    std::memcpy(&value, at, sizeof(T));
    return value;
}

template <typename T>
INLINE void store(void* at, T value) {
    std::memcpy(at, &value, sizeof(T));
}

INLINE void prefetch(const void* at) { __builtin_prefetch(at, 0, 3); }

// Cuts the rows below count into one range for each thread and calls work(start, stop) for each. A row writes
// what is its own, so that the result is the same for any number of threads. One thread enters no OpenMP.
template <typename Work>
INLINE void for_ranges(int64_t count, int64_t threads, const Work& work) {
#ifdef _OPENMP
    if (threads > 1 && count > 1) {
#pragma omp parallel for schedule(static) num_threads(static_cast<int>(threads))
        for (int64_t part = 0; part < threads; ++part)
            work(count * part / threads, count * (part + 1) / threads);
        return;
    }
#endif
    (void)threads;
    work(0, count);
}

// The same for work(row), row by row.
template <typename Work>
INLINE void for_rows(int64_t count, int64_t threads, const Work& work) {
    for_ranges(count, threads, [&](int64_t start, int64_t stop) INLINE_LAMBDA {
        for (int64_t row = start; row < stop; ++row) work(row);
    });
}

// Calls work(dim) with the common dimensions as constants, for which the compiler unrolls its loops.
template <typename Work>
INLINE void with_dim(int64_t dim, const Work& work) {
    switch (dim) {
        case 8: return work(std::integral_constant<int64_t, 8>{});
        case 16: return work(std::integral_constant<int64_t, 16>{});
        case 32: return work(std::integral_constant<int64_t, 32>{});
        case 64: return work(std::integral_constant<int64_t, 64>{});
        default: return work(dim);
    }
}
