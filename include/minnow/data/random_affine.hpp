#pragma once
/// @file
/// `RandomAffine`: images turned, shifted, scaled and sheared by chance.

#include <array>
#include <cmath>
#include <numbers>

#include "minnow/core/items.hpp"
#include "minnow/data/sample_keys.hpp"

namespace minnow::inline MINNOW_ABI::data {

/// One affine map of an image about its centre, as torchvision's `affine` takes it.
struct Affine {
  double degrees = 0;             ///< clockwise
  std::array<double, 2> shift{};  ///< to the right and down, in pixels
  double scale = 1;
  std::array<double, 2> shear{};  ///< along x and y, in degrees

  /// m with: output pixel (x, y) shows the input at (m[0] x + m[1] y + m[2], m[3] x + m[4] y +
  /// m[5]), both counted from the centre. The map is rotation * shear_y * shear_x * scale, then the
  /// shift.
  std::array<double, 6> inverse() const {
    constexpr double radian = std::numbers::pi / 180;
    const double angle = degrees * radian, shear_x = shear[0] * radian, shear_y = shear[1] * radian;
    const double a = std::cos(angle - shear_y) / std::cos(shear_y);
    const double b = -a * std::tan(shear_x) - std::sin(angle);
    const double c = std::sin(angle - shear_y) / std::cos(shear_y);
    const double d = -c * std::tan(shear_x) + std::cos(angle);
    // The determinant of (a b; c d) is 1.
    std::array<double, 6> m{d / scale, -b / scale, 0, -c / scale, a / scale, 0};
    m[2] = -m[0] * shift[0] - m[1] * shift[1];
    m[5] = -m[3] * shift[0] - m[4] * shift[1];
    return m;
  }
};

namespace detail {

/// Draws `plane` [h, w] anew under the map, bilinearly; outside of the image everything is `fill`.
/// `padded` is working memory of (h + 3) * (w + 3) numbers. Places are computed in float: pixels in
/// [0, 1] come within 3e-5 of the exact ones in images of up to 65 pixels a side.
inline void draw_affine(float* plane, float* padded, Index h, Index w,
                        const std::array<double, 6>& m, float fill) {
  // One row and column of fill before the image and two behind it: then every position, once it is
  // clamped, has its four neighbours in memory.
  const Index pitch = w + 3;
  std::fill_n(padded, (h + 3) * pitch, fill);
  for (Index y = 0; y < h; ++y) std::copy_n(plane + y * w, w, padded + (y + 1) * pitch + 1);

  const double centre_x = 0.5 * static_cast<double>(w - 1),
               centre_y = 0.5 * static_cast<double>(h - 1);
  const auto right = static_cast<float>(w + 1), bottom = static_cast<float>(h + 1);
  const auto step_x = static_cast<float>(m[0]), step_y = static_cast<float>(m[3]);
  const auto stride = static_cast<int>(pitch), count = static_cast<int>(w);
  for (Index y = 0; y < h; ++y) {
    const double from_centre = static_cast<double>(y) - centre_y;
    const auto start_x =
        static_cast<float>(m[1] * from_centre + m[2] - m[0] * centre_x + centre_x + 1);
    const auto start_y =
        static_cast<float>(m[4] * from_centre + m[5] - m[3] * centre_x + centre_y + 1);
    float* const MINNOW_RESTRICT out = plane + y * w;
    const float* const MINNOW_RESTRICT in = padded;
    MINNOW_SIMD
    for (int x = 0; x < count; ++x) {
      float at_x = start_x + step_x * static_cast<float>(x);
      float at_y = start_y + step_y * static_cast<float>(x);
      at_x = at_x > 0 ? at_x : 0;  // also for NaN
      at_y = at_y > 0 ? at_y : 0;
      at_x = at_x < right ? at_x : right;
      at_y = at_y < bottom ? at_y : bottom;
      const int left = static_cast<int>(at_x), top = static_cast<int>(at_y);
      const float share_x = at_x - static_cast<float>(left),
                  share_y = at_y - static_cast<float>(top);
      const int corner = top * stride + left;
      const float above = in[corner] + share_x * (in[corner + 1] - in[corner]);
      const float below =
          in[corner + stride] + share_x * (in[corner + stride + 1] - in[corner + stride]);
      out[x] = above + share_y * (below - above);
    }
  }
}

/// Applies `map_of(i)` to every image of the batch.
template <class MapOf>
void apply_affine(Tensor<float>& batch, float fill, const MapOf& map_of) {
  const Index c = batch.size(1), h = batch.size(2), w = batch.size(3);
  float* const images = batch.data();
  const Index padded_size = (h + 3) * (w + 3);
  for_each_item<float>(batch.size(0), 8 * c * h * w, padded_size, 0, [&](Index i, float* padded) {
    const std::array<double, 6> m = map_of(i).inverse();
    for (Index channel = 0; channel < c; ++channel)
      draw_affine(images + (i * c + channel) * h * w, padded, h, w, m, fill);
  });
}

}  // namespace detail

struct RandomAffineOptions {
  double degrees = 0;                 ///< turn by up to so many degrees either way
  double translate = 0;               ///< shift along each axis by up to this share of the size
  std::array<double, 2> scale{1, 1};  ///< the least and the largest factor
  double shear = 0;                   ///< shear along x by up to so many degrees either way
  float fill = 0;                     ///< what lies outside of the image
};

/// Turns, scales, shears and shifts every image about its centre by its own random amounts, each
/// uniform in its range, and samples it bilinearly.
///
/// The map and the ranges are those of torchvision's RandomAffine, with these differences: sampling
/// is always bilinear, one `translate` serves both axes, shifts are not rounded to whole pixels,
/// and `fill` blends into the image's edge as a neighbouring pixel would. `translate` 0.05 on 28 x
/// 28 pixels is up to 1.4 pixels. Put it before Normalize, where 0 is black.
///
/// batch [N, C, H, W], changed in place; parallel over images. Errors: ShapeError for another rank;
/// Error for a negative range, a scale that is not positive, a turn, scale or fill that is not
/// finite, a translate above 1 or a shear of 90 degrees.
class RandomAffine {
 public:
  explicit RandomAffine(const RandomAffineOptions& options) : options_(options) {
    check(options.degrees >= 0 && options.translate >= 0 && options.shear >= 0,
          "RandomAffine: degrees ", options.degrees, ", translate ", options.translate, ", shear ",
          options.shear, "; each is how far to go either way, so none can be negative");
    check(options.scale[0] > 0 && options.scale[0] <= options.scale[1] &&
              std::isfinite(options.scale[1]),
          "RandomAffine: scale from ", options.scale[0], " to ", options.scale[1],
          ", expected two positive factors, the least first");
    check(std::isfinite(options.degrees), "RandomAffine: degrees ", options.degrees,
          ", expected a finite number");
    check(options.translate <= 1, "RandomAffine: translate ", options.translate,
          ", expected a share of the size, at most 1");
    check(options.shear < 90, "RandomAffine: shear ", options.shear,
          ", expected less than 90 degrees");
    check(std::isfinite(options.fill), "RandomAffine: fill ", options.fill,
          ", expected a finite number: it blends into the edges");
  }

  void operator()(Tensor<float>& batch, const SampleKeys& keys) const {
    detail::check_images("RandomAffine", batch, keys);
    const double shift_x = options_.translate * static_cast<double>(batch.size(3));
    const double shift_y = options_.translate * static_cast<double>(batch.size(2));
    detail::apply_affine(batch, options_.fill, [&](Index i) {
      const auto either_way = [&](std::uint64_t draw, double most) {
        return keys.uniform(i, draw, -most, most);
      };
      return Affine{.degrees = either_way(0, options_.degrees),
                    .shift = {either_way(1, shift_x), either_way(2, shift_y)},
                    .scale = keys.uniform(i, 3, options_.scale[0], options_.scale[1]),
                    .shear = {either_way(4, options_.shear), 0}};
    });
  }

 private:
  RandomAffineOptions options_;
};

}  // namespace minnow::inline MINNOW_ABI::data
