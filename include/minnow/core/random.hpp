#pragma once
/// @file
/// Counter-based random numbers: a number is a pure function of its name, so any thread can compute
/// any of them in any order.

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <concepts>
#include <numbers>

#include "minnow/core/config.hpp"
#include "minnow/core/error.hpp"
#include "minnow/core/parallel.hpp"
#include "minnow/core/philox.hpp"

namespace minnow::inline MINNOW_ABI {

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

/// Fills out[0, count) with independent numbers, out[i] with number i of the sequence: uniform in
/// [low, high). Errors: Error where low > high.
template <std::floating_point T>
void fill_uniform(T* out, Index count, double low, double high, const RandomKey& key) {
  check(low <= high, "uniform: low = ", low, " is above high = ", high);
  // Numbers just below `high` may round up to it.
  const T last = std::nextafter(static_cast<T>(high), static_cast<T>(low));
  parallel_chunks(count, 64, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const double u = random_uniform(key, static_cast<std::uint64_t>(i));
      out[i] = std::min(last, static_cast<T>(low + (high - low) * u));
    }
  });
}

/// The same, normally distributed. Errors: Error for a negative standard deviation.
template <std::floating_point T>
void fill_normal(T* out, Index count, double mean, double deviation, const RandomKey& key) {
  check(deviation >= 0, "normal: the standard deviation ", deviation, " is negative");
  parallel_chunks(count, 64, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      out[i] = static_cast<T>(mean + deviation * random_normal(key, static_cast<std::uint64_t>(i)));
  });
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

/// Starts the default generator afresh: the same seed gives the same numbers from here on. A
/// DataLoader draws from a seed of its own.
inline void manual_seed(std::uint64_t seed) { default_generator().set_state({seed, 0, 0}); }

}  // namespace minnow::inline MINNOW_ABI
