#pragma once
/// @file
/// Names that every other header shares: the index type and the inline namespace.

#include <cstddef>
#include <cstdint>

#include "minnow/version.hpp"

#if __cplusplus < 202002L
#error "minnow needs C++20: compile with -std=c++20"
#endif
#if !defined(__cpp_exceptions) || !defined(__cpp_rtti)
#error "minnow needs exceptions and run-time type information: leave out -fno-exceptions, -fno-rtti"
#endif

// The whole library lives in one inline namespace that is named after the version, the instruction
// set and the threading it was compiled for. Translation units built with different flags therefore
// hold different symbols: they link safely side by side, and a tensor passed from one to the other
// is a link error instead of a crash.
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define MINNOW_ISA avx512
#elif defined(__AVX512F__)
#define MINNOW_ISA avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define MINNOW_ISA avx2
#elif defined(__AVX2__)
#define MINNOW_ISA avx2_nofma
#elif defined(__AVX__) && defined(__FMA__)
#define MINNOW_ISA avx_fma
#elif defined(__AVX__)
#define MINNOW_ISA avx
#elif defined(__SSE4_2__)
#define MINNOW_ISA sse4
#elif defined(__SSE2__)
#define MINNOW_ISA sse2
#elif defined(__ARM_NEON)
#define MINNOW_ISA neon
#else
#define MINNOW_ISA scalar
#endif

// What Eigen makes of it, which core/simd.hpp checks: floats in a register, one if it was asked to do
// without.
#if defined(EIGEN_DONT_VECTORIZE)
#define MINNOW_PACKS _onelane
#define MINNOW_LANES 1
#else
#define MINNOW_PACKS
#if defined(__AVX512F__)
#define MINNOW_LANES 16
#elif defined(__AVX__)
#define MINNOW_LANES 8
#elif defined(__SSE2__) || defined(__ARM_NEON)
#define MINNOW_LANES 4
#endif
#endif

#if defined(_OPENMP)
#define MINNOW_THREADING omp
#else
#define MINNOW_THREADING serial
#endif

#define MINNOW_JOIN_(major, minor, isa, packs, threading) \
  v##major##_##minor##_##isa##packs##_##threading
#define MINNOW_JOIN(major, minor, isa, packs, threading) \
  MINNOW_JOIN_(major, minor, isa, packs, threading)
#define MINNOW_ABI                                                                  \
  MINNOW_JOIN(MINNOW_VERSION_MAJOR, MINNOW_VERSION_MINOR, MINNOW_ISA, MINNOW_PACKS, \
              MINNOW_THREADING)

#define MINNOW_STRINGIFY_(name) #name
#define MINNOW_STRINGIFY(name) MINNOW_STRINGIFY_(name)

// Innermost kernels must be inlined whatever the optimiser thinks of their size: their accumulators
// live in registers only then.
#define MINNOW_INLINE inline __attribute__((always_inline))
#define MINNOW_NOINLINE __attribute__((noinline))
#define MINNOW_RESTRICT __restrict__

// Before a loop whose iterations are independent: vectorise it also where the optimiser alone would
// not.
#if defined(_OPENMP)
#define MINNOW_SIMD _Pragma("omp simd")
#elif defined(__clang__)
#define MINNOW_SIMD _Pragma("clang loop vectorize(assume_safety)")
#else
#define MINNOW_SIMD
#endif

// Before a loop with a small constant count whose body holds register accumulators.
#if defined(__clang__)
#define MINNOW_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define MINNOW_UNROLL _Pragma("GCC unroll 32")
#else
#define MINNOW_UNROLL
#endif

namespace minnow::inline MINNOW_ABI {

/// Sizes and positions. Signed, so that differences are safe.
using Index = std::ptrdiff_t;

/// The instruction set this translation unit was compiled for, e.g. "avx512".
constexpr const char* instruction_set() { return MINNOW_STRINGIFY(MINNOW_ISA); }

}  // namespace minnow::inline MINNOW_ABI
