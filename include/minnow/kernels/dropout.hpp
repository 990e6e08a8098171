#pragma once
/// @file
/// Dropout whose mask is a function of each element's place and a key: the same for any number of
/// threads, and one image a lane as layer by layer.

#include <algorithm>
#include <bit>
#include <cstring>

#include "minnow/core/parallel.hpp"
#include "minnow/core/random.hpp"

namespace minnow::inline MINNOW_ABI::kernels {

/// Which elements dropout keeps. The same everywhere: layer by layer, fused, forward and backward.
///
/// x is seen as [samples, size]. One Philox block, numbered by the 64-bit counter (low = i / 8,
/// high = n), decides about eight neighbouring elements: element (n, i) belongs to the 16-bit half
/// h = i % 8 of the block's words, the low half of word h / 2 for even h, the high half for odd h.
/// It is kept if the half is at least `threshold`.
///
/// The threshold is p * 65536 rounded to the next integer, so the share that is dropped can differ
/// from p by at most 1 / 131072. Kept elements are multiplied by `scale` = 1 / (1 - p).
struct DropoutRule {
  static constexpr Index block_size = 8;

  RandomKey key;
  std::uint32_t threshold;
  double scale;

  DropoutRule(const RandomKey& random_key, double p)
      : key(random_key),
        threshold(static_cast<std::uint32_t>(p * 65536 + 0.5)),
        scale(p < 1 ? 1 / (1 - p) : 0) {}
};

/// What one call of `dropout_halves` is good for.
inline constexpr Index dropout_batch = 128;

/// The random halves of elements [begin, begin + 128) of sample n, in the order of the elements;
/// begin is a multiple of 8. Element begin + i is kept if halves[i] >= rule.threshold.
MINNOW_INLINE void dropout_halves(std::uint16_t (&halves)[dropout_batch], const DropoutRule& rule,
                                  Index n, Index begin) {
  constexpr int blocks = dropout_batch / DropoutRule::block_size;
  alignas(64) std::uint32_t low[blocks], words[4][blocks];
  const auto first = static_cast<std::uint32_t>(begin / DropoutRule::block_size);
  MINNOW_SIMD
  for (int j = 0; j < blocks; ++j) low[j] = first + static_cast<std::uint32_t>(j);
  philox<blocks>(words, rule.key, low, SameWord{static_cast<std::uint32_t>(n)});
  // A block's words one after the other are its halves in order, on machines that store low bytes
  // first.
  alignas(64) std::uint32_t ordered[4 * blocks];
  constexpr int turn = std::endian::native == std::endian::little ? 0 : 16;
  MINNOW_SIMD
  for (int j = 0; j < blocks; ++j) {
    ordered[4 * j] = std::rotl(words[0][j], turn);
    ordered[4 * j + 1] = std::rotl(words[1][j], turn);
    ordered[4 * j + 2] = std::rotl(words[2][j], turn);
    ordered[4 * j + 3] = std::rotl(words[3][j], turn);
  }
  std::memcpy(halves, ordered, sizeof halves);
}

/// Dropout.
///
///     y[n, i] = x[n, i] * scale, kept[n, i] = 1    where the rule keeps (n, i), else both are 0
///
/// x, y and kept are [samples, size]; writes y, which may be x, and kept, which the backward reads:
/// a byte an element is less work than to draw the numbers again. Parallel over pieces of 2048
/// elements of a sample.
template <class T>
void dropout_forward(T* y, std::uint8_t* kept, const T* x, Index samples, Index size,
                     const DropoutRule& rule) {
  constexpr Index piece = 16 * dropout_batch;
  const Index pieces = (size + piece - 1) / piece;
  const auto scale = static_cast<T>(rule.scale);
  if (rule.threshold > 0xFFFF) {  // nothing is kept, and 16 bits do not say so
    std::fill_n(y, samples * size, T(0));
    std::fill_n(kept, samples * size, std::uint8_t{0});
    return;
  }
  const auto threshold = static_cast<std::uint16_t>(rule.threshold);
  parallel_chunks(samples * pieces, std::min(size, piece), [=](Index first, Index last) {
    std::uint16_t halves[dropout_batch];
    alignas(64) std::uint8_t keep[dropout_batch];
    for (Index item = first; item < last; ++item) {
      const Index n = item / pieces, begin = item % pieces * piece,
                  end = std::min(size, begin + piece);
      for (Index at = begin; at < end; at += dropout_batch) {
        // While numbers are drawn, memory would rest: the hardware looks ahead from reads only.
        const char* ahead = reinterpret_cast<const char*>(x + n * size + at + 8 * dropout_batch);
        for (Index line = 0; line < dropout_batch * Index{sizeof(T)}; line += 64)
          __builtin_prefetch(ahead + line);
        dropout_halves(halves, rule, n, at);
        MINNOW_SIMD
        for (Index i = 0; i < dropout_batch; ++i) keep[i] = halves[i] >= threshold;
        const Index count = std::min(dropout_batch, end - at), place = n * size + at;
        std::memcpy(kept + place, keep, static_cast<std::size_t>(count));
        // Chosen, not multiplied by a mask: what is dropped is 0 even if it was infinite.
        MINNOW_SIMD
        for (Index i = 0; i < count; ++i) {
          const T value = x[place + i] * scale;
          y[place + i] = keep[i] ? value : T(0);
        }
      }
    }
  });
}

/// The backward of dropout: dx[i] = dy[i] * scale where kept[i], else 0. dx, dy and kept are
/// [size]; writes dx, which may be dy. Parallel over pieces.
template <class T>
void dropout_backward(T* dx, const T* dy, const std::uint8_t* kept, Index size, double scale) {
  const auto factor = static_cast<T>(scale);
  parallel_chunks(size, 1, [=](Index begin, Index end) {
    MINNOW_SIMD
    for (Index i = begin; i < end; ++i) {
      const T value = dy[i] * factor;
      dx[i] = kept[i] ? value : T(0);
    }
  });
}

/// Dropout of whole channels, forward and backward.
///
///     y[n, c, :] = x[n, c, :] * scale    where the rule keeps element c of sample n, else 0
///
/// x and y are [samples, channels, size]; writes y, which may be x. Parallel over samples.
template <class T>
void dropout_channels(T* y, const T* x, Index samples, Index channels, Index size,
                      const DropoutRule& rule) {
  const auto scale = static_cast<T>(rule.scale);
  parallel_chunks(samples, channels * size, [&](Index first, Index last) {
    std::uint16_t halves[dropout_batch];
    for (Index n = first; n < last; ++n)
      for (Index c = 0; c < channels; ++c) {
        if (c % dropout_batch == 0) dropout_halves(halves, rule, n, c);
        const Index at = (n * channels + c) * size;
        if (halves[c % dropout_batch] >= rule.threshold) {
          MINNOW_SIMD
          for (Index i = 0; i < size; ++i) y[at + i] = x[at + i] * scale;
        } else {
          std::fill_n(y + at, size, T(0));
        }
      }
  });
}

}  // namespace minnow::inline MINNOW_ABI::kernels
