#pragma once
/// @file
/// Packs and bytes, and numbers that change lanes.

#include <algorithm>
#include <cstdint>
#include <utility>

#include "minnow/core/simd.hpp"

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define MINNOW_HAS_SHUFFLE 1
#endif
#endif
#if !defined(MINNOW_HAS_SHUFFLE)
#define MINNOW_HAS_SHUFFLE 0
#endif

// As in simd.hpp: GCC's note that a packet as a template argument loses its alignment.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

namespace minnow::inline MINNOW_ABI {

/// Reads `count` <= width bytes as the numbers 0 to 255; the other lanes are zero.
template <class V>
MINNOW_INLINE V load_bytes(const std::uint8_t* from, Index count) {
  using T = typename V::value_type;
#if defined(__AVX512BW__) && defined(__AVX512VL__) && defined(EIGEN_VECTORIZE_AVX512)
  const auto mask = static_cast<__mmask16>((1u << count) - 1u);
  if constexpr (std::is_same_v<T, float> && V::width == 16)
    return V(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, from))));
  else if constexpr (std::is_same_v<T, double> && V::width == 8)
    return V(_mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, from))));
#endif
  T lanes[V::width] = {};
  for (Index i = 0; i < count; ++i) lanes[i] = static_cast<T>(from[i]);
  return V::load(lanes);
}
/// Writes the first `count` <= width lanes, which are whole numbers from 0 to 255, as bytes.
template <class T, bool vector>
MINNOW_INLINE void store_bytes(Pack<T, vector> a, std::uint8_t* to, Index count) {
#if defined(__AVX512BW__) && defined(__AVX512VL__) && defined(EIGEN_VECTORIZE_AVX512)
  const auto mask = static_cast<__mmask16>((1u << count) - 1u);
  if constexpr (std::is_same_v<T, float> && Pack<T, vector>::width == 16)
    return _mm_mask_storeu_epi8(to, mask, _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(a.raw)));
  else if constexpr (std::is_same_v<T, double> && Pack<T, vector>::width == 8)
    return _mm_mask_storeu_epi8(to, mask, _mm256_cvtepi32_epi8(_mm512_cvttpd_epi32(a.raw)));
#endif
  T lanes[Pack<T, vector>::width];
  a.store(lanes);
  for (Index i = 0; i < count; ++i) to[i] = static_cast<std::uint8_t>(lanes[i]);
}

/// Splits the n * width numbers of n packs, one after the other: those at places p, p + n, p + 2 n,
/// ... go to pack p.
template <int n, class T, bool vector>
MINNOW_INLINE void deinterleave(const Pack<T, vector> (&from)[n], Pack<T, vector> (&to)[n]) {
  constexpr int width = static_cast<int>(Pack<T, vector>::width);
  if constexpr (width == 1) {
    std::copy_n(from, n, to);
  } else {
#if MINNOW_HAS_SHUFFLE
    // What is in the packs up to q: from the last of them, or already in its lane.
    const auto pick = [&]<int p, int q, int... i>(std::integer_sequence<int, p, q>,
                                                  std::integer_sequence<int, i...>) {
      to[p].raw = __builtin_shufflevector(
          q == 1 ? from[0].raw : to[p].raw, from[q].raw,
          ((i * n + p) / width == q ? width + (i * n + p) % width
                                    : (q == 1 && i * n + p < width ? i * n + p : i))...);
    };
    constexpr std::make_integer_sequence<int, width> lanes;
    const auto pick_all = [&]<int... pq>(std::integer_sequence<int, pq...>) {
      (pick(std::integer_sequence<int, pq / (n - 1), pq % (n - 1) + 1>{}, lanes), ...);
    };
    pick_all(std::make_integer_sequence<int, n*(n - 1)>{});
#else
    T numbers[n * width], split[n * width];
    for (int q = 0; q < n; ++q) from[q].store(numbers + q * width);
    for (int i = 0; i < n * width; ++i) split[i % n * width + i / n] = numbers[i];
    for (int p = 0; p < n; ++p) to[p] = Pack<T, vector>::load(split + p * width);
#endif
  }
}

/// The same for two packs: the numbers at even and those at odd places.
template <class T, bool vector>
MINNOW_INLINE void deinterleave(Pack<T, vector> a, Pack<T, vector> b, Pack<T, vector>& even,
                                Pack<T, vector>& odd) {
  const Pack<T, vector> from[2] = {a, b};
  Pack<T, vector> to[2];
  deinterleave(from, to);
  even = to[0];
  odd = to[1];
}

/// The inverse: lanes of even and odd in turn, the first half of them in a, the second in b.
template <class T, bool vector>
MINNOW_INLINE void interleave(Pack<T, vector> even, Pack<T, vector> odd, Pack<T, vector>& a,
                              Pack<T, vector>& b) {
  constexpr Index width = Pack<T, vector>::width;
  if constexpr (width == 1) {
    a = even;
    b = odd;
  } else {
#if MINNOW_HAS_SHUFFLE
    constexpr int half = static_cast<int>(width) / 2;
    const auto pick = [&]<int... i>(std::integer_sequence<int, i...>) {
      a.raw = __builtin_shufflevector(even.raw, odd.raw, (i / 2 + i % 2 * 2 * half)...);
      b.raw = __builtin_shufflevector(even.raw, odd.raw, (half + i / 2 + i % 2 * 2 * half)...);
    };
    pick(std::make_integer_sequence<int, static_cast<int>(width)>{});
#else
    T from[2 * width], to[2 * width];
    even.store(from);
    odd.store(from + width);
    for (Index i = 0; i < width; ++i) {
      to[2 * i] = from[i];
      to[2 * i + 1] = from[width + i];
    }
    a = Pack<T, vector>::load(to);
    b = Pack<T, vector>::load(to + width);
#endif
  }
}

#if defined(EIGEN_VECTORIZE_AVX512)
namespace detail {

/// Transposes 4 x 4 quarters of registers, four packs apart from each other: quarter j of pack 4 i
/// becomes quarter i of pack 4 j.
template <class T>
MINNOW_INLINE void transpose_quarters(Pack<T> (&rows)[16]) {
  MINNOW_UNROLL
  for (int b = 0; b < 4; ++b) {
    const auto low = [](__m512 x, __m512 y) { return _mm512_shuffle_f32x4(x, y, 0x44); };
    const auto high = [](__m512 x, __m512 y) { return _mm512_shuffle_f32x4(x, y, 0xEE); };
    const auto even = [](__m512 x, __m512 y) { return _mm512_shuffle_f32x4(x, y, 0x88); };
    const auto odd = [](__m512 x, __m512 y) { return _mm512_shuffle_f32x4(x, y, 0xDD); };
    const __m512 w = rows[b].raw, x = rows[4 + b].raw, y = rows[8 + b].raw, z = rows[12 + b].raw;
    const __m512 low_wx = low(w, x), low_yz = low(y, z), high_wx = high(w, x), high_yz = high(y, z);
    rows[b].raw = even(low_wx, low_yz);
    rows[4 + b].raw = odd(low_wx, low_yz);
    rows[8 + b].raw = even(high_wx, high_yz);
    rows[12 + b].raw = odd(high_wx, high_yz);
  }
}

/// Eigen takes the quarters apart and puts them together: half as many instructions again.
MINNOW_INLINE void transpose_16(Pack<float> (&rows)[16]) {
  MINNOW_UNROLL
  for (int i = 0; i < 16; i += 4) {
    const __m512 a = rows[i].raw, b = rows[i + 1].raw, c = rows[i + 2].raw, d = rows[i + 3].raw;
    const __m512d low_ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b)),
                  low_cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d)),
                  high_ab = _mm512_castps_pd(_mm512_unpackhi_ps(a, b)),
                  high_cd = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
    rows[i].raw = _mm512_castpd_ps(_mm512_unpacklo_pd(low_ab, low_cd));
    rows[i + 1].raw = _mm512_castpd_ps(_mm512_unpackhi_pd(low_ab, low_cd));
    rows[i + 2].raw = _mm512_castpd_ps(_mm512_unpacklo_pd(high_ab, high_cd));
    rows[i + 3].raw = _mm512_castpd_ps(_mm512_unpackhi_pd(high_ab, high_cd));
  }
  transpose_quarters(rows);
}

}  // namespace detail
#endif

/// Transposes `width` packs in place: lane j of pack i becomes lane i of pack j.
template <class T, bool vector>
MINNOW_INLINE void transpose(
    Pack<T, vector> (&rows)[static_cast<std::size_t>(Pack<T, vector>::width)]) {
  constexpr int width = static_cast<int>(Pack<T, vector>::width);
#if defined(EIGEN_VECTORIZE_AVX512)
  if constexpr (width == 16) return detail::transpose_16(rows);
#endif
  if constexpr (width > 1) {
    Eigen::internal::PacketBlock<typename Pack<T, vector>::Raw, width> block;
    MINNOW_UNROLL
    for (int i = 0; i < width; ++i) block.packet[i] = rows[i].raw;
    Eigen::internal::ptranspose(block);
    MINNOW_UNROLL
    for (int i = 0; i < width; ++i) rows[i].raw = block.packet[i];
  }
}

}  // namespace minnow::inline MINNOW_ABI

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
