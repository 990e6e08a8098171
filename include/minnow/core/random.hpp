#pragma once
/// @file
/// Counter-based random numbers: a number is a pure function of its name, so any thread can compute
/// any of them in any order.

#include <array>
#include <atomic>
#include <cmath>
#include <numbers>

#include "minnow/core/config.hpp"

namespace minnow::inline MINNOW_ABI {

/// The name of one sequence of random numbers.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint32_t stream =
      0;                   ///< what the numbers are for: `Generator`s use 0, data pipelines others
  std::uint32_t step = 0;  ///< the how-manieth sequence of this stream

  friend bool operator==(const RandomKey&, const RandomKey&) = default;
};

namespace detail {

// What a lane of the vectorised Philox keeps a 32-bit word in. Where vectors multiply 64-bit lanes,
// the words stay in such lanes, with the rest of a product above them, and no round has to widen,
// narrow or shuffle. Elsewhere narrow lanes are faster.
#if defined(__AVX512DQ__)
using PhiloxWord = std::uint64_t;
#else
using PhiloxWord = std::uint32_t;
#endif

}  // namespace detail

/// Stands for an array of equal words.
struct SameWord {
  std::uint32_t value;
  std::uint32_t operator[](int) const { return value; }
};

/// Philox 4x32-10: four 32-bit words from a key and the 64-bit number of a block, for `lanes`
/// blocks at once. Word w of lane j goes to out[w][j]. low and high are arrays of `lanes` words, or
/// `SameWord`, which saves a sixth of the work.
///
/// Paper: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
template <int lanes, class Low, class High>
MINNOW_INLINE void philox(std::uint32_t (&out)[4][lanes], const RandomKey& key, const Low& low,
                          const High& high) {
  using Word = detail::PhiloxWord;
  MINNOW_SIMD
  for (int j = 0; j < lanes; ++j) {
    Word c0 = low[j], c1 = high[j], c2 = key.step, c3 = key.stream;
    auto k0 = static_cast<std::uint32_t>(key.seed);
    auto k1 = static_cast<std::uint32_t>(key.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * static_cast<std::uint32_t>(c0);
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * static_cast<std::uint32_t>(c2);
      c0 = static_cast<Word>(p1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<Word>(p1);
      c2 = static_cast<Word>(p0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<Word>(p0);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    out[0][j] = static_cast<std::uint32_t>(c0);
    out[1][j] = static_cast<std::uint32_t>(c1);
    out[2][j] = static_cast<std::uint32_t>(c2);
    out[3][j] = static_cast<std::uint32_t>(c3);
  }
}

/// The four words of one block.
inline std::array<std::uint32_t, 4> philox(const RandomKey& key, std::uint64_t block) {
  std::uint32_t out[4][1];
  philox<1>(out, key, SameWord{static_cast<std::uint32_t>(block)},
            SameWord{static_cast<std::uint32_t>(block >> 32)});
  return {out[0][0], out[1][0], out[2][0], out[3][0]};
}

/// Number `index` of the sequence, evenly spread over [0, 1), with 53 random bits.
inline double random_uniform(const RandomKey& key, std::uint64_t index) {
  const auto words = philox(key, index);
  const std::uint64_t bits = (std::uint64_t{words[0]} << 32) | words[1];
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

/// Number `index` of the sequence, normally distributed with mean 0 and variance 1 (Box-Muller).
inline double random_normal(const RandomKey& key, std::uint64_t index) {
  const auto words = philox(key, index);
  const std::uint64_t a = (std::uint64_t{words[0]} << 32) | words[1];
  const std::uint64_t b = (std::uint64_t{words[2]} << 32) | words[3];
  const double u =
      (static_cast<double>(a >> 11) + 1) * 0x1.0p-53;  // in (0, 1], its logarithm is finite
  const double v = static_cast<double>(b >> 11) * 0x1.0p-53;
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

/// An integer in [0, bound), without bias worth mentioning (below bound / 2^64).
inline std::uint64_t random_integer(const RandomKey& key, std::uint64_t index,
                                    std::uint64_t bound) {
  const auto words = philox(key, index);
  const std::uint64_t bits = (std::uint64_t{words[0]} << 32) | words[1];
  // The high half of the 128-bit product bits * bound, in 32-bit steps.
  const std::uint64_t b0 = bound & 0xFFFFFFFFu, b1 = bound >> 32;
  const std::uint64_t a0 = bits & 0xFFFFFFFFu, a1 = bits >> 32;
  const std::uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
  const std::uint64_t cross = (middle & 0xFFFFFFFFu) + a0 * b1;
  return a1 * b1 + (middle >> 32) + (cross >> 32);
}

/// Hands out one key after the other. Its whole state is two numbers, so a run can be resumed.
class Generator {
 public:
  explicit Generator(std::uint64_t seed = 0) : seed_(seed) {}

  /// The key of the next sequence. May be called by any thread.
  RandomKey next() { return {seed_.load(), 0, step_.fetch_add(1)}; }

  /// The key that `next` will return.
  RandomKey state() const { return {seed_.load(), 0, step_.load()}; }
  void set_state(const RandomKey& state) {
    seed_ = state.seed;
    step_ = state.step;
  }

 private:
  std::atomic<std::uint64_t> seed_;
  std::atomic<std::uint32_t> step_{0};
};

/// The generator that initialisers and dropout draw from unless they are given another.
inline Generator& default_generator() {
  static Generator generator;
  return generator;
}

/// Starts the default generator afresh: the same seed gives the same numbers from here on.
inline void manual_seed(std::uint64_t seed) { default_generator().set_state({seed, 0, 0}); }

}  // namespace minnow::inline MINNOW_ABI
