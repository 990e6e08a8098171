#pragma once
/// @file
/// What a transform of a batch is, and where its randomness comes from.

#include <functional>
#include <span>

#include "minnow/core/error.hpp"
#include "minnow/core/random.hpp"
#include "minnow/tensor.hpp"

namespace minnow::inline MINNOW_ABI::data {

/// Streams of the data pipeline's keys: the order of an epoch, and one for each transform in turn.
inline constexpr std::uint32_t shuffle_stream = 1;
inline constexpr std::uint32_t first_transform_stream = 2;

/// The random numbers of a batch. Those of a sample depend on the key and on the sample's place in
/// the data set, so they are the same in whatever batch it appears: numbers 0 to 2^32 - 1 of each.
struct SampleKeys {
  RandomKey key;
  std::span<const Index> samples;  ///< places in the data set of the batch's samples

  /// Number `draw` of sample `i` of the batch, uniform in [low, high).
  double uniform(Index i, std::uint64_t draw, double low = 0, double high = 1) const {
    return low + (high - low) * random_uniform(key, number(i, draw));
  }
  /// The same as an integer in [0, bound).
  Index integer(Index i, std::uint64_t draw, Index bound) const {
    return static_cast<Index>(
        random_integer(key, number(i, draw), static_cast<std::uint64_t>(bound)));
  }

 private:
  std::uint64_t number(Index i, std::uint64_t draw) const {
    const auto sample = static_cast<std::uint64_t>(samples[static_cast<std::size_t>(i)]);
    // The first few of all samples lie side by side, the others in a range of their own.
    constexpr std::uint64_t few = 64;
    return draw < few ? sample * few + draw : std::uint64_t{1} << 63 | sample << 32 | draw;
  }
};

/// Changes a batch, in place or by putting another tensor there. Any callable of this form will do;
/// what it does to a sample must depend on nothing but the sample and its random numbers.
using Transform = std::function<void(Tensor<float>& batch, const SampleKeys& keys)>;

namespace detail {

inline void check_images(const char* name, const Tensor<float>& batch, const SampleKeys& keys) {
  check<ShapeError>(batch.rank() == 4, name, ": batch of shape ", batch.shape(),
                    ", expected [N, C, H, W]");
  check<ShapeError>(batch.size(0) == std::ssize(keys.samples), name, ": a batch of ", batch.size(0),
                    " images, but keys for ", keys.samples.size());
}

}  // namespace detail

}  // namespace minnow::inline MINNOW_ABI::data
