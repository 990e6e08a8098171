#include "minnow/kernels/plane_winograd.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "exact.hpp"

using namespace minnow;
using exact::normals;
using exact::Numbers;
using kernels::LaneConv2dSizes;
using kernels::PlaneWinograd;

namespace {

/// y by the kernel, and in double by plain sums of the same numbers.
template <class T>
struct Convolution {
  Convolution(const LaneConv2dSizes& s, Numbers<T> image, bool with_bias, bool relu)
      : y(s.k * s.oh() * s.ow()), truth(y.size()) {
    const PlaneWinograd<T> winograd(s);
    const auto weight = normals<T>(s.weights(), 2), bias = normals<T>(s.k, 3);
    const T* shift = with_bias ? bias.data() : nullptr;
    Numbers<T> packed(winograd.weights());
    winograd.pack(packed.data(), weight.data());
    // Full of NaN, since nothing unwritten may be used.
    const T nothing = std::numeric_limits<T>::quiet_NaN();
    Numbers<T> memory(winograd.memory(), exact::Place::exact, nothing),
        readable(image.size() + Pack<T>::width, exact::Place::exact, nothing);
    std::copy_n(image.data(), image.size(), readable.data());
    winograd.forward(y.data(), readable.data(), packed.data(), {.bias = shift, .relu = relu},
                     memory.data());
    CHECK(y.intact());
    CHECK(memory.intact());
    for (Index i = 0; i < y.size(); ++i) {
      const Index col = i % s.ow(), row = i / s.ow() % s.oh(), k = i / s.ow() / s.oh();
      double sum = shift ? static_cast<double>(shift[k]) : 0;
      for (Index r = 0; r < s.terms(); ++r) {
        const Index at = (r / 9 * s.h + row + r % 9 / 3) * s.w + col + r % 3;
        sum += static_cast<double>(weight[k * s.terms() + r]) * static_cast<double>(image[at]);
      }
      truth[i] = relu ? std::max(sum, 0.0) : sum;
    }
  }

  Numbers<T> y;
  Numbers<double> truth;
};

template <class T>
Numbers<T> image(const LaneConv2dSizes& s) {
  return normals<T>(s.c * s.h * s.w, 1);
}

}  // namespace

TEST_CASE_TEMPLATE("one image of all sizes", T, float, double) {
  for (Index h = 6; h <= 15; ++h)
    for (const Index w : {3, 4, 9, 17, 18, 26, 35}) {
      const LaneConv2dSizes s{1 + h % 5, h, w, 1 + (h * w) % 19, 3};
      CAPTURE(h);
      CAPTURE(w);
      const Convolution<T> c(s, image<T>(s), h % 2 == 0, w % 2 == 0);
      CHECK(exact::first_difference(c.y, c.truth, 256 * std::numeric_limits<T>::epsilon()) == -1);
    }
}

TEST_CASE_TEMPLATE("NaN reaches the outputs that read it", T, float, double) {
  const LaneConv2dSizes s{2, 12, 20, 3, 3};
  for (const bool relu : {false, true}) {
    auto x = image<T>(s);
    x[(s.h + 5) * s.w + 7] = std::numeric_limits<T>::quiet_NaN();  // row 5, column 7
    const Convolution<T> c(s, std::move(x), false, relu);
    for (Index i = 0; i < c.y.size(); ++i) {
      const Index col = i % s.ow(), row = i / s.ow() % s.oh();
      const bool near_col = col >= 5 && col <= 7;
      if (near_col && row >= 3 && row <= 5)
        REQUIRE(std::isnan(c.y[i]));
      else if (!near_col || row < 3 - 3 || row > 5 + 3)
        REQUIRE(std::isfinite(c.y[i]));
    }
  }
}

TEST_CASE("it pays for images that fill their packs, and channels enough") {
  if (Pack<float>::width == 1) return;
  const auto pays = [](const LaneConv2dSizes& s) { return PlaneWinograd<float>::pays(s); };
  CHECK(pays({64, 58, 58, 64, 3}));
  CHECK(pays({8, 26, 26, 8, 3}));
  CHECK_FALSE(pays({1, 28, 28, 8, 3}));
  CHECK_FALSE(pays({8, 26, 26, 8, {3, 5}}));
  CHECK_FALSE(pays({64, 5, 58, 64, 3}));  // three rows of outputs
}
