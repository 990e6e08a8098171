#include "minnow/kernels/lane_winograd_weight.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "exact.hpp"
#include "minnow/core/format.hpp"

using namespace minnow;
using exact::normals;
using exact::Numbers;
using kernels::WinogradSizes;

namespace {

/// The weights' gradient by the kernel, and by plain sums in T and in double.
template <class T>
struct WeightGradient {
  explicit WeightGradient(const WinogradSizes& s)
      : kernel(9 * s.k * s.c), sum(kernel.size()), exact(kernel.size()) {
    constexpr Index lanes = Pack<T>::width;
    const Index dy_pitch = (s.ow + 1) * lanes;
    const auto x = normals<T>(s.c * s.h * s.w * lanes, 1);
    const auto dy = normals<T>(s.k * s.oh * dy_pitch, 2);
    // Aligned, since numbers of whole packs are; full of NaN, since nothing unwritten, and nothing
    // between the rows of dy, may be read.
    const Index size = kernels::winograd_weight_memory<T>(s);
    const Scratch<T> memory(size), aligned_x(x.size()), aligned_dy(dy.size());
    std::fill_n(memory.data(), size, kernel[0]);
    std::copy_n(x.data(), x.size(), aligned_x.data());
    std::fill_n(aligned_dy.data(), dy.size(), kernel[0]);
    for (Index row = 0; row < s.k * s.oh; ++row)
      std::copy_n(dy.data() + row * dy_pitch, s.ow * lanes, aligned_dy.data() + row * dy_pitch);
    kernels::winograd_backward_weight(kernel.data(), aligned_dy.data(), dy_pitch, aligned_x.data(),
                                      s, memory.data());
    for (Index k = 0; k < s.k; ++k)
      for (Index c = 0; c < s.c; ++c)
        for (Index tap = 0; tap < 9; ++tap) {
          T total = 0;
          double truth = 0;
          for (Index i = 0; i < s.oh; ++i)
            for (Index j = 0; j < s.ow * lanes; ++j) {
              const T g = dy[(k * s.oh + i) * dy_pitch + j],
                      value = x[((c * s.h + i + tap / 3) * s.w + tap % 3) * lanes + j];
              total = std::fma(g, value, total);
              truth += static_cast<double>(g) * static_cast<double>(value);
            }
          const Index at = (k * s.c + c) * 9 + tap;
          sum[at] = total;
          exact[at] = truth;
        }
  }

  double error(const Numbers<T>& actual) const {
    return ::exact::root_mean_square_distance(actual, exact);
  }

  Numbers<T> kernel, sum;
  Numbers<double> exact;
};

}  // namespace

TEST_CASE_TEMPLATE("rows of all lengths, in one strip and in several", T, float, double) {
  for (Index ow = 4; ow <= 29; ++ow) {
    const Index oh = 1 + ow * 7 % 30;
    const WinogradSizes s{1 + ow % 7, oh + 2, ow + 2 + ow % 2, 1 + ow * 3 % 18, oh, ow};
    CAPTURE(ow);
    const WeightGradient<T> gradient(s);
    const T bound = 256 * std::numeric_limits<T>::epsilon() *
                    static_cast<T>(std::sqrt(oh * ow * Pack<T>::width));
    CHECK(exact::first_difference(gradient.kernel, gradient.exact, bound) == -1);
  }
}

TEST_CASE("values of many channels are cut into strips of rows") {
  const WinogradSizes s{
      .c = 5, .h = 13, .w = 34, .k = 640 / Pack<float>::width, .oh = 11, .ow = 32};
  REQUIRE(kernels::detail::WinogradStrips<float>{s}.rows.count > 1);
  const WeightGradient<float> gradient(s);
  CHECK(gradient.error(gradient.kernel) > 0);
  CHECK(gradient.error(gradient.kernel) < 2 * gradient.error(gradient.sum));
}

TEST_CASE("the error is at most twice that of the direct sum") {
  for (const Index side : {12, 16, 24}) {
    const WeightGradient<float> gradient({8, side + 2, side + 2, 8, side, side});
    CAPTURE(side);
    CHECK(gradient.error(gradient.kernel) > 0);
    CHECK(gradient.error(gradient.kernel) < 2 * gradient.error(gradient.sum));
  }
}

TEST_CASE("it pays for enough channels and positions") {
  const auto pays = [](Index c, Index k, Index size) {
    return kernels::winograd_dots_pay({c, size + 2, size + 2, k, size, size});
  };
  CHECK(pays(8, 8, 24));
  CHECK(pays(32, 16, 12));
  CHECK_FALSE(pays(4, 8, 24));
  CHECK_FALSE(pays(8, 4, 24));
  CHECK_FALSE(pays(8, 12, 9));
}
