#pragma once
/// @file
/// Philox 4x32-10, a random number generator without a state: four 32-bit words are a function of a
/// key and of the number of a block.
///
/// Paper: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

#include <array>
#include <type_traits>
#include <utility>

#include "minnow/core/config.hpp"
#include "minnow/core/intrinsics.hpp"

namespace minnow::inline MINNOW_ABI {

/// The name of one sequence of random numbers.
struct RandomKey {
  std::uint64_t seed = 0;
  /// What the numbers are for: `Generator`s use 0, data pipelines others.
  std::uint32_t stream = 0;
  std::uint32_t step = 0;  ///< the number of the sequence within the stream

  friend bool operator==(const RandomKey&, const RandomKey&) = default;
};

/// Stands for an array of equal words.
struct SameWord {
  std::uint32_t value;
  std::uint32_t operator[](int) const { return value; }
};

namespace detail {

MINNOW_INLINE std::uint64_t multiply_words(std::uint32_t a, std::uint32_t b) {
  return std::uint64_t{a} * b;
}
/// (product >> 32) ^ word ^ key
MINNOW_INLINE std::uint32_t mix_words(std::uint64_t product, std::uint32_t word,
                                      std::uint32_t key) {
  return static_cast<std::uint32_t>(product >> 32) ^ word ^ key;
}

#if defined(__SSE2__)
/// `count` words, each in a lane of 64 bits whose upper half does not matter: so products need not
/// be taken apart.
struct WideWords {
#if defined(__AVX512F__)
  using Raw = __m512i;
#elif defined(__AVX2__)
  using Raw = __m256i;
#else
  using Raw = __m128i;
#endif
  static constexpr int count = sizeof(Raw) / 8;

  Raw raw;

  explicit WideWords(Raw a) : raw(a) {}
#if defined(__AVX512F__)
  /// The intrinsics without a mask begin with an undefined register, of which GCC warns.
  static constexpr __mmask8 all = 0xFF;

  explicit WideWords(std::uint32_t word) : raw(_mm512_set1_epi64(std::int64_t{word})) {}
  static WideWords load(const std::uint32_t* from) {
    return WideWords(_mm512_maskz_cvtepu32_epi64(
        all, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
  }
  /// Writes the words of a and then those of b.
  static void store(WideWords a, WideWords b, std::uint32_t* to) {
    const Raw lower = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi32(a.raw, lower, b.raw));
  }
#elif defined(__AVX2__)
  explicit WideWords(std::uint32_t word) : raw(_mm256_set1_epi64x(std::int64_t{word})) {}
  static WideWords load(const std::uint32_t* from) {
    return WideWords(
        _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  }
  static void store(WideWords a, WideWords b, std::uint32_t* to) {
    const auto lower = _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(a.raw), _mm256_castsi256_ps(b.raw), 0x88));
    _mm256_storeu_si256(reinterpret_cast<Raw*>(to), _mm256_permute4x64_epi64(lower, 0xD8));
  }
#else
  explicit WideWords(std::uint32_t word) : raw(_mm_set1_epi64x(std::int64_t{word})) {}
  static WideWords load(const std::uint32_t* from) {
    const Raw words = _mm_loadl_epi64(reinterpret_cast<const Raw*>(from));
    return WideWords(_mm_unpacklo_epi32(words, words));
  }
  static void store(WideWords a, WideWords b, std::uint32_t* to) {
    _mm_storeu_si128(
        reinterpret_cast<Raw*>(to),
        _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(a.raw), _mm_castsi128_ps(b.raw), 0x88)));
  }
#endif
};

MINNOW_INLINE WideWords multiply_words(WideWords a, std::uint32_t b) {
  const WideWords factor(b);
#if defined(__AVX512F__)
  return WideWords(_mm512_maskz_mul_epu32(WideWords::all, a.raw, factor.raw));
#elif defined(__AVX2__)
  return WideWords(_mm256_mul_epu32(a.raw, factor.raw));
#else
  return WideWords(_mm_mul_epu32(a.raw, factor.raw));
#endif
}
MINNOW_INLINE WideWords mix_words(WideWords product, WideWords word, std::uint32_t key) {
  const WideWords k(key);
#if defined(__AVX512F__)
  constexpr int exclusive_or = 0x96;
  return WideWords(_mm512_ternarylogic_epi64(
      _mm512_maskz_srli_epi64(WideWords::all, product.raw, 32), word.raw, k.raw, exclusive_or));
#elif defined(__AVX2__)
  return WideWords(
      _mm256_xor_si256(_mm256_srli_epi64(product.raw, 32), _mm256_xor_si256(word.raw, k.raw)));
#else
  return WideWords(_mm_xor_si128(_mm_srli_epi64(product.raw, 32), _mm_xor_si128(word.raw, k.raw)));
#endif
}
#endif

/// The words of a block, or of several, between two rounds.
template <class Words>
struct PhiloxState {
  Words c0, c1, c2, c3;

  PhiloxState(const RandomKey& key, Words low, Words high)
      : c0(low), c1(high), c2(key.step), c3(key.stream) {}

  MINNOW_INLINE void round(std::uint32_t k0, std::uint32_t k1) {
    const auto p0 = multiply_words(c0, 0xD2511F53u), p1 = multiply_words(c2, 0xCD9E8D57u);
    c0 = mix_words(p1, c1, k0);
    c1 = Words(p1);
    c2 = mix_words(p0, c3, k1);
    c3 = Words(p0);
  }
};

/// Calls `round(k0, k1)` for the ten rounds with the keys of each.
template <class Round>
MINNOW_INLINE void philox_rounds(const RandomKey& key, const Round& round) {
  auto k0 = static_cast<std::uint32_t>(key.seed), k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int i = 0; i < 10; ++i) {
    round(k0, k1);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

}  // namespace detail

/// The words of `lanes` blocks at once: word w of lane j goes to out[w][j]. low and high, the
/// halves of a block's number, are arrays of `lanes` words, or `SameWord`.
template <int lanes, class Low, class High>
MINNOW_INLINE void philox(std::uint32_t (&out)[4][lanes], const RandomKey& key, const Low& low,
                          const High& high) {
#if defined(__SSE2__)
  using Wide = detail::WideWords;
  constexpr int count = Wide::count;
  if constexpr (lanes % (2 * count) == 0) {
    const auto load = [](const auto& words, int at) {
      if constexpr (std::is_same_v<decltype(words), const SameWord&>)
        return Wide(words.value);
      else
        return Wide::load(words + at);
    };
    // All states go through a round together: each has to wait for its products.
    const auto run = [&]<int... v>(std::integer_sequence<int, v...>) {
      detail::PhiloxState<Wide> s[] = {{key, load(low, v * count), load(high, v * count)}...};
      detail::philox_rounds(key,
                            [&](std::uint32_t k0, std::uint32_t k1) { (s[v].round(k0, k1), ...); });
      const auto store = [&](int i) {
        Wide::store(s[i].c0, s[i + 1].c0, out[0] + i * count);
        Wide::store(s[i].c1, s[i + 1].c1, out[1] + i * count);
        Wide::store(s[i].c2, s[i + 1].c2, out[2] + i * count);
        Wide::store(s[i].c3, s[i + 1].c3, out[3] + i * count);
      };
      ((v % 2 == 0 ? store(v) : void()), ...);
    };
    return run(std::make_integer_sequence<int, lanes / count>());
  }
#endif
  MINNOW_SIMD
  for (int j = 0; j < lanes; ++j) {
    detail::PhiloxState<std::uint32_t> state(key, low[j], high[j]);
    detail::philox_rounds(key, [&](std::uint32_t k0, std::uint32_t k1) { state.round(k0, k1); });
    out[0][j] = state.c0;
    out[1][j] = state.c1;
    out[2][j] = state.c2;
    out[3][j] = state.c3;
  }
}

/// The four words of one block.
inline std::array<std::uint32_t, 4> philox(const RandomKey& key, std::uint64_t block) {
  std::uint32_t out[4][1];
  philox<1>(out, key, SameWord{static_cast<std::uint32_t>(block)},
            SameWord{static_cast<std::uint32_t>(block >> 32)});
  return {out[0][0], out[1][0], out[2][0], out[3][0]};
}

}  // namespace minnow::inline MINNOW_ABI
