#pragma once
/// @file
/// Transforms of a batch of images [N, C, H, W]. Those that change pixels' places come before
/// Normalize: they fill with 0, which is black only there.

#include <cmath>
#include <vector>

#include "minnow/core/parallel.hpp"
#include "minnow/data/random_affine.hpp"
#include "minnow/data/sample_keys.hpp"

namespace minnow::inline MINNOW_ABI::data {

namespace detail {

/// A batch of images of size `to`, whose pixel (y, x) is the old image's (y + top, x + left), or
/// `fill` outside of it. `corner(i)` gives image i's top and left.
template <class Corner>
Tensor<float> cut_out(const Tensor<float>& batch, Size2 to, float fill, const Corner& corner) {
  const Index n = batch.size(0), c = batch.size(1), h = batch.size(2), w = batch.size(3);
  Tensor<float> result(Shape{n, c, to.h, to.w});
  const float* const in = batch.data();
  float* const out = result.data();
  parallel_chunks(n, c * to.h * to.w, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Size2 first = corner(i);
      const Index x_begin = std::clamp(-first.w, Index{0}, to.w),
                  x_end = std::clamp(w - first.w, x_begin, to.w);
      for (Index row = 0; row < c * to.h; ++row) {
        const Index channel = row / to.h, y = row % to.h + first.h;
        float* const line = out + (i * c * to.h + row) * to.w;
        if (y < 0 || y >= h || x_begin == x_end) {
          std::fill_n(line, to.w, fill);
          continue;
        }
        std::fill_n(line, x_begin, fill);
        std::copy_n(in + ((i * c + channel) * h + y) * w + x_begin + first.w, x_end - x_begin,
                    line + x_begin);
        std::fill_n(line + x_end, to.w - x_end, fill);
      }
    }
  });
  return result;
}

inline void check_probability(const char* name, double probability) {
  check(probability >= 0 && probability <= 1, name, ": probability ", probability,
        ", expected 0 to 1");
}

}  // namespace detail

/// (x - mean) / deviation, with one number of each for all channels or one per channel.
///
/// MNIST's are 0.1307 and 0.3081, Fashion-MNIST's 0.2860 and 0.3530, KMNIST's 0.1918 and 0.3483.
/// Errors: Error for a mean that is not finite, a deviation that is not positive (as floats), or
/// means and deviations that differ in number; ShapeError for a batch of another number of channels.
class Normalize {
 public:
  Normalize(double mean, double deviation) : Normalize(std::vector{mean}, std::vector{deviation}) {}
  Normalize(std::vector<double> mean, std::vector<double> deviation)
      : mean_(std::move(mean)), deviation_(std::move(deviation)) {
    check(!mean_.empty() && mean_.size() == deviation_.size(), "Normalize: ", mean_.size(),
          " means and ", deviation_.size(), " deviations, expected one of each per channel");
    for (const double each : mean_)
      check(std::isfinite(static_cast<float>(each)), "Normalize: mean ", each,
            ", expected a finite number");
    for (const double each : deviation_)
      check(static_cast<float>(each) > 0, "Normalize: deviation ", each,
            ", expected a positive number");
  }

  void operator()(Tensor<float>& batch, const SampleKeys& keys) const {
    detail::check_images("Normalize", batch, keys);
    const Index channels = batch.size(1), pixels = batch.size(2) * batch.size(3),
                given = std::ssize(mean_);
    check<ShapeError>(given == 1 || given == channels, "Normalize: batch of shape ", batch.shape(),
                      " has ", channels, " channels, means and deviations are for ", given);
    float* const planes = batch.data();
    parallel_chunks(batch.size(0) * channels, pixels, [&](Index begin, Index end) {
      for (Index plane = begin; plane < end; ++plane) {
        const auto channel = static_cast<std::size_t>(given == 1 ? 0 : plane % channels);
        const auto mean = static_cast<float>(mean_[channel]),
                   deviation = static_cast<float>(deviation_[channel]);
        float* const x = planes + plane * pixels;
        MINNOW_SIMD
        for (Index i = 0; i < pixels; ++i) x[i] = (x[i] - mean) / deviation;
      }
    });
  }

 private:
  std::vector<double> mean_, deviation_;
};

/// Adds a border of `fill` on all four sides. Batch [N, C, H, W] to [N, C, H + 2 padding, W + 2
/// padding]. Errors: ShapeError for another rank, or a padding that is negative or above 2^30.
class Pad {
 public:
  explicit Pad(Size2 padding, float fill = 0) : padding_(padding), fill_(fill) {
    check_sides("Pad", "padding", padding, 0);
  }

  void operator()(Tensor<float>& batch, const SampleKeys& keys) const {
    detail::check_images("Pad", batch, keys);
    const Size2 size(batch.size(2) + 2 * padding_.h, batch.size(3) + 2 * padding_.w);
    batch =
        detail::cut_out(batch, size, fill_, [&](Index) { return Size2(-padding_.h, -padding_.w); });
  }

 private:
  Size2 padding_;
  float fill_;
};

struct RandomCropOptions {
  Size2 padding = 0;  ///< a border added first, on all four sides
  float fill = 0;     ///< of the border
};

/// Cuts a window of the given size out of each image at a random place, after padding it. Batch
/// [N, C, H, W] to [N, C, size].
///
/// Errors: ShapeError for another rank, where the window is larger than the padded image, and for a
/// size below 1 or a padding below 0, or either above 2^30.
class RandomCrop {
 public:
  explicit RandomCrop(Size2 size, const RandomCropOptions& options = {})
      : size_(size), options_(options) {
    check_sides("RandomCrop", "padding", options.padding, 0);
    check_sides("RandomCrop", "size", size, 1);
  }

  void operator()(Tensor<float>& batch, const SampleKeys& keys) const {
    detail::check_images("RandomCrop", batch, keys);
    const Size2 padded(batch.size(2) + 2 * options_.padding.h,
                       batch.size(3) + 2 * options_.padding.w);
    check<ShapeError>(size_.h <= padded.h && size_.w <= padded.w, "RandomCrop: a window of ", size_,
                      " in images of shape ", batch.shape(), " with padding ", options_.padding,
                      "; make the window smaller or the padding wider");
    batch = detail::cut_out(batch, size_, options_.fill, [&](Index i) {
      return Size2(keys.integer(i, 0, padded.h - size_.h + 1) - options_.padding.h,
                   keys.integer(i, 1, padded.w - size_.w + 1) - options_.padding.w);
    });
  }

 private:
  Size2 size_;
  RandomCropOptions options_;
};

/// Mirrors each image of a batch [N, C, H, W] left to right with the given probability. Errors:
/// ShapeError for another rank; Error for a probability outside of [0, 1].
class RandomHorizontalFlip {
 public:
  explicit RandomHorizontalFlip(double probability = 0.5) : probability_(probability) {
    detail::check_probability("RandomHorizontalFlip", probability);
  }

  void operator()(Tensor<float>& batch, const SampleKeys& keys) const {
    detail::check_images("RandomHorizontalFlip", batch, keys);
    const Index rows = batch.size(1) * batch.size(2), w = batch.size(3);
    float* const images = batch.data();
    parallel_chunks(batch.size(0), rows * w, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        if (keys.uniform(i, 0) >= probability_) continue;
        for (Index row = i * rows; row < (i + 1) * rows; ++row)
          std::reverse(images + row * w, images + (row + 1) * w);
      }
    });
  }

 private:
  double probability_;
};

struct RandomErasingOptions {
  double probability = 0.5;
  std::array<double, 2> area{0.02, 0.33};  ///< of the rectangle, as a share of the image's
  std::array<double, 2> ratio{0.3, 3.3};   ///< of its height to its width
  float value = 0;
};

/// Overwrites a random rectangle of each image of a batch [N, C, H, W], with the given probability.
/// An image for which ten random rectangles did not fit stays as it is. Errors: ShapeError for
/// another rank; Error for a probability outside of [0, 1], and for shares or ratios that make no
/// range.
///
/// Paper: Zhong, Zheng, Kang, Li, Yang, "Random erasing data augmentation", AAAI 2020.
class RandomErasing {
 public:
  explicit RandomErasing(const RandomErasingOptions& options = {}) : options_(options) {
    detail::check_probability("RandomErasing", options.probability);
    check(0 <= options.area[0] && options.area[0] <= options.area[1] && options.area[1] <= 1,
          "RandomErasing: area from ", options.area[0], " to ", options.area[1],
          ", expected shares of the image, the least first");
    check(0 < options.ratio[0] && options.ratio[0] <= options.ratio[1] &&
              std::isfinite(options.ratio[1]),
          "RandomErasing: ratio from ", options.ratio[0], " to ", options.ratio[1],
          ", expected two positive numbers, the least first");
  }

  void operator()(Tensor<float>& batch, const SampleKeys& keys) const {
    detail::check_images("RandomErasing", batch, keys);
    for (Index i = 0; i < batch.size(0); ++i)
      if (keys.uniform(i, 0) < options_.probability) erase(batch, i, keys);
  }

 private:
  void erase(Tensor<float>& batch, Index i, const SampleKeys& keys) const {
    const Index c = batch.size(1), h = batch.size(2), w = batch.size(3);
    for (std::uint64_t draw = 1; draw < 41; draw += 4) {
      const double area =
          static_cast<double>(h * w) * keys.uniform(i, draw, options_.area[0], options_.area[1]);
      const double ratio = std::exp(
          keys.uniform(i, draw + 1, std::log(options_.ratio[0]), std::log(options_.ratio[1])));
      const double rows = std::round(std::sqrt(area * ratio)),
                   columns = std::round(std::sqrt(area / ratio));
      if (!(rows < static_cast<double>(h) && columns < static_cast<double>(w))) continue;
      const auto height = static_cast<Index>(rows), width = static_cast<Index>(columns);
      const Index top = keys.integer(i, draw + 2, h - height + 1),
                  left = keys.integer(i, draw + 3, w - width + 1);
      for (Index channel = 0; channel < c; ++channel)
        for (Index y = top; y < top + height; ++y)
          std::fill_n(batch.data() + ((i * c + channel) * h + y) * w + left, width, options_.value);
      return;
    }
  }

  RandomErasingOptions options_;
};

}  // namespace minnow::inline MINNOW_ABI::data
