#pragma once
/// @file
/// `Pack<T>`: as many numbers as one vector register holds. The only door to Eigen's packet types.

#include "minnow/core/intrinsics.hpp"  // before Eigen, which includes them too

#include <Eigen/Core>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "minnow/core/config.hpp"

namespace minnow::inline MINNOW_ABI {

// Naming a vector type as a template argument drops its alignment attribute; GCC warns of that in
// every user of this header, although the type is only looked up, never stored through.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

namespace detail {

template <class T, bool vector>
struct RawPack {
  using type = typename Eigen::internal::packet_traits<T>::type;
  static constexpr Index width = Eigen::internal::packet_traits<T>::size;
};
template <class T>
struct RawPack<T, false> {
  using type = T;
  static constexpr Index width = 1;
};

/// As many numbers of all ones as there are lanes, and as many zeros.
template <class T, Index width>
inline constexpr auto lane_masks = [] {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  std::array<Bits, 2 * width> masks{};
  for (Index i = 0; i < width; ++i) masks[static_cast<std::size_t>(i)] = ~Bits{0};
  return masks;
}();

}  // namespace detail

/// `width` numbers of type `T` that are computed on together. On a machine without vector
/// instructions, and for types that Eigen has no packets of, `width` is 1 and a pack is a number.
///
/// Lane order of the reductions is fixed for a given `width`, so results are reproducible.
template <class T, bool vector = true>
struct Pack {
  using value_type = T;
  using Raw = typename detail::RawPack<T, vector>::type;
  static constexpr Index width = detail::RawPack<T, vector>::width;

  Raw raw;

  Pack() = default;
  MINNOW_INLINE explicit Pack(Raw value) : raw(value) {}
  MINNOW_INLINE explicit Pack(T value) requires(!std::is_same_v<T, Raw>)
      : raw(Eigen::internal::pset1<Raw>(value)) {}

  MINNOW_INLINE static Pack zero() { return Pack(T(0)); }
  /// Reads `width` numbers from any address.
  MINNOW_INLINE static Pack load(const T* from) { return Pack(Eigen::internal::ploadu<Raw>(from)); }
  MINNOW_INLINE void store(T* to) const { Eigen::internal::pstoreu<T, Raw>(to, raw); }

  /// Reads `count` < `width` numbers, touches no other, and sets the other lanes to zero.
  MINNOW_INLINE static Pack load(const T* from, Index count) {
#if defined(EIGEN_VECTORIZE_AVX512)
    if constexpr (std::is_same_v<T, float> && width == 16)
      return Pack(Raw(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), from)));
    else if constexpr (std::is_same_v<T, double> && width == 8)
      return Pack(Raw(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1u), from)));
#elif defined(EIGEN_VECTORIZE_AVX)
    if constexpr (std::is_same_v<T, float> && width == 8)
      return Pack(Raw(_mm256_maskload_ps(from, std::bit_cast<__m256i>(mask(count)))));
    else if constexpr (std::is_same_v<T, double> && width == 4)
      return Pack(Raw(_mm256_maskload_pd(from, std::bit_cast<__m256i>(mask(count)))));
#endif
    T lanes[width] = {};
    std::memcpy(lanes, from, static_cast<std::size_t>(count) * sizeof(T));
    return load(lanes);
  }
  /// Writes the first `count` < `width` lanes and nothing else.
  MINNOW_INLINE void store(T* to, Index count) const {
#if defined(EIGEN_VECTORIZE_AVX512)
    if constexpr (std::is_same_v<T, float> && width == 16)
      return _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1u), raw);
    else if constexpr (std::is_same_v<T, double> && width == 8)
      return _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1u), raw);
#elif defined(EIGEN_VECTORIZE_AVX)
    if constexpr (std::is_same_v<T, float> && width == 8)
      return _mm256_maskstore_ps(to, std::bit_cast<__m256i>(mask(count)), raw);
    else if constexpr (std::is_same_v<T, double> && width == 4)
      return _mm256_maskstore_pd(to, std::bit_cast<__m256i>(mask(count)), raw);
#endif
    T lanes[width];
    store(lanes);
    std::memcpy(to, lanes, static_cast<std::size_t>(count) * sizeof(T));
  }

  /// The first `count` < width lanes; the others are zero.
  MINNOW_INLINE Pack first(Index count) const {
#if defined(EIGEN_VECTORIZE_AVX512)
    if constexpr (std::is_same_v<T, float> && width == 16)
      return Pack(Raw(_mm512_maskz_mov_ps(static_cast<__mmask16>((1u << count) - 1u), raw)));
    else if constexpr (std::is_same_v<T, double> && width == 8)
      return Pack(Raw(_mm512_maskz_mov_pd(static_cast<__mmask8>((1u << count) - 1u), raw)));
#endif
    return Pack(Eigen::internal::pand(raw, mask(count)));
  }

  /// The first `count` < width lanes of `a`, and those of `b` behind them.
  MINNOW_INLINE friend Pack join(Pack a, Pack b, Index count) {
#if defined(EIGEN_VECTORIZE_AVX512)
    if constexpr (std::is_same_v<T, float> && width == 16)
      return Pack(
          Raw(_mm512_mask_mov_ps(b.raw, static_cast<__mmask16>((1u << count) - 1u), a.raw)));
    else if constexpr (std::is_same_v<T, double> && width == 8)
      return Pack(Raw(_mm512_mask_mov_pd(b.raw, static_cast<__mmask8>((1u << count) - 1u), a.raw)));
#endif
    return Pack(Eigen::internal::pselect(mask(count), a.raw, b.raw));
  }

  MINNOW_INLINE friend Pack operator+(Pack a, Pack b) {
    return Pack(Eigen::internal::padd(a.raw, b.raw));
  }
  MINNOW_INLINE friend Pack operator-(Pack a, Pack b) {
    return Pack(Eigen::internal::psub(a.raw, b.raw));
  }
  MINNOW_INLINE friend Pack operator*(Pack a, Pack b) {
    return Pack(Eigen::internal::pmul(a.raw, b.raw));
  }
  MINNOW_INLINE friend Pack operator/(Pack a, Pack b) {
    return Pack(Eigen::internal::pdiv(a.raw, b.raw));
  }
  MINNOW_INLINE friend Pack operator-(Pack a) {
#if defined(__GNUC__)
    // Eigen subtracts from 0 on some machines, which loses the sign of 0 and hides the negation
    // from the optimiser, who can make it part of a product.
    return Pack(static_cast<Raw>(-a.raw));
#else
    return Pack(Eigen::internal::pnegate(a.raw));
#endif
  }
  MINNOW_INLINE Pack& operator+=(Pack b) { return *this = *this + b; }
  MINNOW_INLINE Pack& operator-=(Pack b) { return *this = *this - b; }
  MINNOW_INLINE Pack& operator*=(Pack b) { return *this = *this * b; }

 private:
  /// All bits of the first `count` lanes.
  MINNOW_INLINE static Raw mask(Index count) {
    Raw result;
    std::memcpy(&result, detail::lane_masks<T, width>.data() + width - count, sizeof result);
    return result;
  }
};

#if defined(MINNOW_LANES)
static_assert(
    Pack<float>::width == MINNOW_LANES,
    "minnow: Eigen's registers are not those of the compiler's flags; to do without them, "
    "define EIGEN_DONT_VECTORIZE on the command line, and leave EIGEN_MAX_ALIGN_BYTES");
#endif

/// How many vector registers the accumulators of a kernel and its operands can share.
#if defined(EIGEN_VECTORIZE_AVX512) || defined(__aarch64__)
inline constexpr int vector_registers = 32;
#else
inline constexpr int vector_registers = 16;
#endif

/// One number with the interface of a pack, so that one source serves as fast and as naive kernel.
template <class T>
using Lane = Pack<T, false>;

/// a * b + c, in one rounding where the machine can.
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> fma(Pack<T, vector> a, Pack<T, vector> b, Pack<T, vector> c) {
  return Pack<T, vector>(Eigen::internal::pmadd(a.raw, b.raw, c.raw));
}
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> max(Pack<T, vector> a, Pack<T, vector> b) {
  return Pack<T, vector>(Eigen::internal::pmax(a.raw, b.raw));
}
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> min(Pack<T, vector> a, Pack<T, vector> b) {
  return Pack<T, vector>(Eigen::internal::pmin(a.raw, b.raw));
}
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> abs(Pack<T, vector> a) {
  return Pack<T, vector>(Eigen::internal::pabs(a.raw));
}
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> sqrt(Pack<T, vector> a) {
  // Eigen approximates on x86 where it can: a few units off, and NaN for infinity.
  using V = Pack<T, vector>;
#if defined(EIGEN_VECTORIZE_AVX512)
  if constexpr (V::width == 16) return V(_mm512_sqrt_ps(a.raw));
  if constexpr (V::width == 8) return V(_mm512_sqrt_pd(a.raw));
#elif defined(EIGEN_VECTORIZE_AVX)
  if constexpr (V::width == 8) return V(_mm256_sqrt_ps(a.raw));
#elif defined(EIGEN_VECTORIZE_SSE)
  if constexpr (V::width == 4) return V(_mm_sqrt_ps(a.raw));
#endif
  return V(Eigen::internal::psqrt(a.raw));
}

#if defined(EIGEN_VECTORIZE_AVX512)
namespace detail {

// Eigen widens the result of a comparison to a vector of its own, and narrows it again for the
// selection.
template <int comparison>
MINNOW_INLINE __m512 choose(__m512 a, __m512 b, __m512 yes, __m512 no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, comparison), no, yes);
}
template <int comparison>
MINNOW_INLINE __m512d choose(__m512d a, __m512d b, __m512d yes, __m512d no) {
  return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a, b, comparison), no, yes);
}

}  // namespace detail
#define MINNOW_CHOOSE(comparison)                                                      \
  if constexpr (sizeof(a.raw) == 64)                                                   \
    return Pack<T, vector>(detail::choose<comparison>(a.raw, b.raw, yes.raw, no.raw)); \
  else
#else
#define MINNOW_CHOOSE(comparison)
#endif

/// Lane by lane: `yes` where a < b (a <= b, a == b), `no` elsewhere. Comparisons with NaN are
/// false.
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> select_less(Pack<T, vector> a, Pack<T, vector> b, Pack<T, vector> yes,
                                          Pack<T, vector> no) {
  MINNOW_CHOOSE(_CMP_LT_OQ)
  return Pack<T, vector>(
      Eigen::internal::pselect(Eigen::internal::pcmp_lt(a.raw, b.raw), yes.raw, no.raw));
}
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> select_less_equal(Pack<T, vector> a, Pack<T, vector> b,
                                                Pack<T, vector> yes, Pack<T, vector> no) {
  MINNOW_CHOOSE(_CMP_LE_OQ)
  return Pack<T, vector>(
      Eigen::internal::pselect(Eigen::internal::pcmp_le(a.raw, b.raw), yes.raw, no.raw));
}
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> select_equal(Pack<T, vector> a, Pack<T, vector> b,
                                           Pack<T, vector> yes, Pack<T, vector> no) {
  MINNOW_CHOOSE(_CMP_EQ_OQ)
  return Pack<T, vector>(
      Eigen::internal::pselect(Eigen::internal::pcmp_eq(a.raw, b.raw), yes.raw, no.raw));
}
#undef MINNOW_CHOOSE

/// Lane by lane: `a` where the lower or, if `upper`, the upper 16 bits of this lane's word are at
/// least `least`, 0 elsewhere.
template <class T, bool vector>
MINNOW_INLINE Pack<T, vector> keep_at_least(Pack<T, vector> a, const std::uint32_t* words,
                                            bool upper, std::uint32_t least) {
  using V = Pack<T, vector>;
#if defined(EIGEN_VECTORIZE_AVX512)
  if constexpr (sizeof(T) == 4 && V::width == 16) {
    const __m512i word = _mm512_loadu_si512(words);
    const __m512i half =
        upper ? _mm512_srli_epi32(word, 16) : _mm512_and_si512(word, _mm512_set1_epi32(0xFFFF));
    const auto mask = _mm512_cmpge_epu32_mask(half, _mm512_set1_epi32(static_cast<int>(least)));
    return V(_mm512_maskz_mov_ps(mask, a.raw));
  }
  if constexpr (sizeof(T) == 8 && V::width == 8) {
    const auto some = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
    const __m512i word = _mm512_maskz_cvtepu32_epi64(0xFF, some);
    const __m512i half = upper ? _mm512_maskz_srli_epi64(0xFF, word, 16)
                               : _mm512_and_si512(word, _mm512_set1_epi64(0xFFFF));
    const auto mask = _mm512_cmpge_epu64_mask(half, _mm512_set1_epi64(least));
    return V(_mm512_maskz_mov_pd(mask, a.raw));
  }
#endif
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  Bits mask[V::width];
  MINNOW_SIMD
  for (Index j = 0; j < V::width; ++j) {
    const std::uint32_t half = upper ? words[j] >> 16 : words[j] & 0xFFFFu;
    mask[j] = half >= least ? ~Bits{0} : Bits{0};
  }
  V bits;
  std::memcpy(&bits.raw, mask, sizeof bits.raw);
  return V(Eigen::internal::pand(a.raw, bits.raw));
}

/// The first `count` <= width numbers from an address; the other lanes are zero.
template <class T>
MINNOW_INLINE Pack<T> load_lanes(const T* from, Index count) {
  return count == Pack<T>::width ? Pack<T>::load(from) : Pack<T>::load(from, count);
}

/// Keeps the compiler from loading `a` once for each of its uses: a pack read at an unaligned
/// address costs two accesses, so a value with several uses belongs in a register.
template <class T, bool vector>
MINNOW_INLINE void hold(Pack<T, vector>& a) {
#if defined(__GNUC__) && defined(__AVX512F__)
  if constexpr (Pack<T, vector>::width > 1) asm("" : "+v"(a.raw));
#elif defined(__GNUC__) && defined(__SSE2__)
  if constexpr (Pack<T, vector>::width > 1) asm("" : "+x"(a.raw));
#else
  (void)a;
#endif
}

/// Stores past the caches, at an address aligned to the pack. In the body of a `parallel_for`, at
/// whose end other threads see it.
template <class T, bool vector>
MINNOW_INLINE void stream(Pack<T, vector> a, T* to) {
#if defined(EIGEN_VECTORIZE_AVX512)
  if constexpr (sizeof(a.raw) == 64)
    return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), std::bit_cast<__m512i>(a.raw));
#endif
#if defined(EIGEN_VECTORIZE_AVX)
  if constexpr (sizeof(a.raw) == 32)
    return _mm256_stream_si256(reinterpret_cast<__m256i*>(to), std::bit_cast<__m256i>(a.raw));
#endif
#if defined(EIGEN_VECTORIZE_SSE2)
  if constexpr (sizeof(a.raw) == 16)
    return _mm_stream_si128(reinterpret_cast<__m128i*>(to), std::bit_cast<__m128i>(a.raw));
#endif
  a.store(to);
}

/// The sum, or the largest, of the lanes.
template <class T, bool vector>
MINNOW_INLINE T sum(Pack<T, vector> a) {
  return Eigen::internal::predux(a.raw);
}
template <class T, bool vector>
MINNOW_INLINE T max(Pack<T, vector> a) {
  return Eigen::internal::predux_max(a.raw);
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

}  // namespace minnow::inline MINNOW_ABI
