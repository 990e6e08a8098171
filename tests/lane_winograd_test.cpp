#include "minnow/kernels/lane_winograd.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "exact.hpp"
#include "minnow/core/format.hpp"

using namespace minnow;
using exact::normals;
using exact::Numbers;
using kernels::WinogradSizes;

namespace {

/// y, its correlation by the kernel, and by plain sums in T and in double.
template <class T>
struct Correlation {
  static constexpr Index lanes = Pack<T>::width;

  Correlation(const WinogradSizes& s, Numbers<T> images, bool with_bias, bool relu)
      : sizes(s),
        x(std::move(images)),
        weight(normals<T>(s.k * s.c * 9, 2)),
        bias(normals<T>(s.k, 3)),
        y(s.k * s.oh * s.ow * lanes),
        sum(y.size()),
        exact(y.size()) {
    const T* shift = with_bias ? bias.data() : nullptr;
    Numbers<Index> offset(9 * s.c, exact::Place::exact, 0);
    kernels::winograd_offsets<T>(offset.data(), s);
    Numbers<T> packed(s.weights());
    kernels::winograd_pack(packed.data(), weight.data(), s, 9 * s.c, 9, false);
    // Aligned, since numbers of whole packs are; full of NaN, since nothing unwritten may be read.
    const Scratch<T> memory(kernels::winograd_memory<T>(s)), aligned_x(x.size()),
        aligned_y(y.size());
    std::fill_n(memory.data(), kernels::winograd_memory<T>(s), y[0]);
    std::copy_n(x.data(), x.size(), aligned_x.data());
    std::fill_n(aligned_y.data(), y.size(), y[0]);
    kernels::winograd_correlate(aligned_y.data(), aligned_x.data(), packed.data(),
                                {.bias = shift, .relu = relu, .far = s.k % 2 == 0}, offset.data(),
                                s, memory.data());
    std::copy_n(aligned_y.data(), y.size(), y.data());
    for (Index k = 0; k < s.k; ++k)
      for (Index i = 0; i < s.oh; ++i)
        for (Index j = 0; j < s.ow; ++j)
          for (Index lane = 0; lane < lanes; ++lane) {
            const Index at = ((k * s.oh + i) * s.ow + j) * lanes + lane;
            T total = shift ? shift[k] : T(0);
            double truth = static_cast<double>(total);
            for (Index c = 0; c < s.c; ++c)
              for (Index a = 0; a < 3; ++a)
                for (Index b = 0; b < 3; ++b) {
                  const Index row = s.first + i + a;
                  if (row < 0 || row >= s.h) continue;
                  const T value = x[((c * s.h + row) * s.w + j + b) * lanes + lane],
                          factor = weight[((k * s.c + c) * 3 + a) * 3 + b];
                  total = std::fma(factor, value, total);
                  truth += static_cast<double>(factor) * static_cast<double>(value);
                }
            sum[at] = relu ? std::max(total, T(0)) : total;
            exact[at] = relu ? std::max(truth, 0.0) : truth;
          }
  }

  double error(const Numbers<T>& actual) const {
    return ::exact::root_mean_square_distance(actual, exact);
  }

  WinogradSizes sizes;
  Numbers<T> x, weight, bias, y, sum;
  Numbers<double> exact;
};

template <class T>
Correlation<T> correlate(const WinogradSizes& s, bool bias = false, bool relu = false) {
  return {s, normals<T>(s.c * s.h * s.w * Pack<T>::width, 1), bias, relu};
}

}  // namespace

TEST_CASE_TEMPLATE("rows of all lengths, and rows that do not exist", T, float, double) {
  for (Index ow = 4; ow <= 29; ++ow)
    for (const Index first : {0, -1, -2}) {
      const Index h = 1 + ow % 5 + (first == 0 ? 2 : 0), oh = h - 2 - 2 * first;
      const WinogradSizes s{1 + ow % 7, h, ow + 2, 1 + (ow * 3 - first) % 18, oh, ow, first};
      CAPTURE(ow);
      CAPTURE(first);
      const auto c = correlate<T>(s, ow % 2 == 0, ow % 3 == 0);
      const T bound = 256 * std::numeric_limits<T>::epsilon();
      CHECK(exact::first_difference(c.y, c.exact, bound) == -1);
    }
}

TEST_CASE_TEMPLATE("a row of x wider than y needs it", T, float, double) {
  const auto c = correlate<T>({.c = 3, .h = 5, .w = 17, .k = 2, .oh = 3, .ow = 9});
  CHECK(exact::first_difference(c.y, c.exact, 256 * std::numeric_limits<T>::epsilon()) == -1);
}

TEST_CASE("the error is at most twice that of the direct sum") {
  for (const Index channels : {4, 8, 26, 64}) {
    const auto c = correlate<float>({channels, 12, 26, 8, 10, 24});
    CAPTURE(channels);
    CHECK(c.error(c.sum) > 0);
    CHECK(c.error(c.y) < 2 * c.error(c.sum));
  }
}

TEST_CASE_TEMPLATE("infinity and NaN reach the outputs that read them", T, float, double) {
  for (const T strange :
       {std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN()}) {
    const WinogradSizes s{.c = 4, .h = 5, .w = 14, .k = 5, .oh = 3, .ow = 12};
    auto x = normals<T>(s.c * s.h * s.w * Pack<T>::width, 1);
    x[(s.w + 6) * Pack<T>::width] = strange;
    const Correlation<T> c(s, std::move(x), false, false);
    Index strange_sums = 0;
    for (Index i = 0; i < c.y.size(); ++i)
      if (!std::isfinite(c.sum[i])) {
        ++strange_sums;
        CHECK(!std::isfinite(c.y[i]));
      }
    CHECK(strange_sums == s.k * 2 * 3);
    // Other lanes hold other images.
    for (Index i = 0; i < c.y.size(); ++i)
      if (i % Pack<T>::width != 0) REQUIRE(std::isfinite(c.y[i]));
  }
}

TEST_CASE("taps may be read backwards, and inputs and outputs change places") {
  const WinogradSizes s{.c = 5, .h = 6, .w = 8, .k = 9, .oh = 4, .ow = 6};
  const auto weight = normals<double>(s.k * s.c * 9, 1);
  auto turned = weight;
  for (Index k = 0; k < s.k; ++k)
    for (Index c = 0; c < s.c; ++c)
      for (Index tap = 0; tap < 9; ++tap)
        turned[(k * s.c + c) * 9 + tap] = weight[(c * s.k + k) * 9 + 8 - tap];
  Numbers<double> packed(s.weights()), packed_turned(s.weights());
  kernels::winograd_pack(packed.data(), weight.data(), s, 9, 9 * s.k, true);
  kernels::winograd_pack(packed_turned.data(), turned.data(), s, 9 * s.c, 9, false);
  CHECK(exact::first_difference(packed, packed_turned) == -1);
}

TEST_CASE("it pays for enough channels and rows that tiles of four fill") {
  const auto pays = [](Index c, Index k, Index ow) {
    return kernels::winograd_pays({c, 9, ow + 2, k, 7, ow});
  };
  CHECK(pays(8, 8, 24));
  CHECK(pays(4, 4, 4));
  CHECK(pays(8, 12, 9));
  CHECK_FALSE(pays(8, 26, 5));
  CHECK_FALSE(pays(8, 8, 3));
  CHECK_FALSE(pays(1, 8, 26));
  CHECK_FALSE(pays(8, 1, 26));
}
