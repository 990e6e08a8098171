#include "minnow/nn/conv2d.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "exact.hpp"
#include "minnow/testing/compare.hpp"
#include "minnow/testing/composed.hpp"
#include "minnow/testing/gradcheck.hpp"

using namespace minnow;
using exact::first_difference;
using exact::integers;
using exact::normals;
using exact::Numbers;
using exact::Place;
using kernels::Conv2dSizes;
using testing::compare;
using testing::gradcheck;
using testing::same_bits;

namespace {

std::string describe(const Conv2dSizes& s) {
  return text('[', s.n, ", ", s.c, ", ", s.h, ", ", s.w, "] -> ", s.k, ", kernel ", s.kernel,
              ", stride ", s.stride, ", padding ", s.padding, ", dilation ", s.dilation,
              ", groups ", s.groups);
}

Index x_size(const Conv2dSizes& s) { return s.n * s.c * s.h * s.w; }
Index y_size(const Conv2dSizes& s) { return s.n * s.k * s.oh() * s.ow(); }
Index weight_size(const Conv2dSizes& s) { return s.k * s.terms(); }

/// Calls f(y's, x's, weight's position) for every product that the convolution adds up.
template <class F>
void for_each_product(const Conv2dSizes& s, const F& f) {
  for (Index n = 0; n < s.n; ++n)
    for (Index k = 0; k < s.k; ++k)
      for (Index c = 0; c < s.group_c(); ++c)
        for (Index a = 0; a < s.kernel.h; ++a)
          for (Index b = 0; b < s.kernel.w; ++b)
            for (Index i = 0; i < s.oh(); ++i) {
              const Index u = i * s.stride.h + a * s.dilation.h - s.padding.h;
              if (u < 0 || u >= s.h) continue;
              const Index channel = k / s.group_k() * s.group_c() + c;
              for (Index j = 0; j < s.ow(); ++j) {
                const Index v = j * s.stride.w + b * s.dilation.w - s.padding.w;
                if (v < 0 || v >= s.w) continue;
                f(((n * s.k + k) * s.oh() + i) * s.ow() + j,
                  ((n * s.c + channel) * s.h + u) * s.w + v,
                  ((k * s.group_c() + c) * s.kernel.h + a) * s.kernel.w + b);
              }
            }
}

/// How far a result may be from the sum of integers: rows of three taps may be computed through
/// polynomials' values, which are fractions (winograd.hpp).
template <class T>
T rounding(const Conv2dSizes& s) {
  return s.kernel.w == 3 && s.stride == Size2(1) && s.dilation.w == 1 ? T(0.01) : T(0);
}

/// The four kernels against the sums above, on integers: equal to the last bit, or nearly where the
/// way of the computation allows no more. `before` is called
/// before each of them.
template <class T>
void check_kernels(
    const Conv2dSizes& s, void (*before)() = [] {}) {
  const std::string sizes = describe(s);
  CAPTURE(sizes);
  const Index plane = s.oh() * s.ow();
  const auto zeros = [](Index size) { return Numbers<T>(size, Place::exact, T(0)); };
  for (const Place place : {Place::exact, Place::unaligned}) {
    const auto x = integers<T>(x_size(s), 1, place), weight = integers<T>(weight_size(s), 2, place),
               bias = integers<T>(s.k, 3, place), dy = integers<T>(y_size(s), 4, place);
    auto y0 = zeros(y_size(s)), dx0 = zeros(x_size(s)), dweight0 = zeros(weight_size(s));
    for_each_product(s, [&](Index at_y, Index at_x, Index at_weight) {
      y0[at_y] += weight[at_weight] * x[at_x];
      dx0[at_x] += weight[at_weight] * dy[at_y];
      dweight0[at_weight] += dy[at_y] * x[at_x];
    });

    // The sizes choose one of the ways; each must be right for all that it can do.
    auto shifted0 = y0;
    auto dbias0 = zeros(s.k);
    for (Index i = 0; i < y_size(s); ++i) {
      dbias0[i / plane % s.k] += dy[i];
      shifted0[i] += bias[i / plane % s.k];
    }
    const bool fits_lanes = kernels::detail::fits_lanes(s),
               fits_winograd = kernels::detail::fits_winograd<T>(s),
               depthwise = kernels::detail::is_depthwise<T>(s);
    for (const auto forward :
         {&kernels::conv2d_forward<T>, &kernels::detail::forward_by_planes<T>,
          &kernels::detail::forward_by_channels<T>, &kernels::detail::forward_by_images<T>,
          &kernels::detail::forward_by_winograd<T>, &kernels::detail::forward_depthwise<T>}) {
      if (forward == &kernels::detail::forward_depthwise<T> && !depthwise) continue;
      if (forward == &kernels::detail::forward_by_images<T> && !fits_lanes) continue;
      if (forward == &kernels::detail::forward_by_winograd<T> && !fits_winograd) continue;
      Numbers<T> y(y_size(s), place), shifted(y_size(s), place);
      before();
      forward(y.data(), x.data(), weight.data(), static_cast<const T*>(nullptr), s);
      const bool exact = forward == &kernels::detail::forward_by_planes<T> ||
                         forward == &kernels::detail::forward_by_channels<T> ||
                         forward == &kernels::detail::forward_depthwise<T>;
      const T bound = exact ? T(0) : rounding<T>(s);
      REQUIRE(first_difference(y, y0, bound) == -1);
      REQUIRE(y.intact());
      forward(shifted.data(), x.data(), weight.data(), bias.data(), s);
      REQUIRE(first_difference(shifted, shifted0, bound) == -1);
      REQUIRE(shifted.intact());
    }
    for (const auto backward_data :
         {&kernels::conv2d_backward_data<T>, &kernels::detail::backward_data_by_planes<T>,
          &kernels::detail::backward_data_by_channels<T>,
          &kernels::detail::backward_data_by_images<T>,
          &kernels::detail::backward_data_by_winograd<T>,
          &kernels::detail::backward_data_depthwise<T>}) {
      if (backward_data == &kernels::detail::backward_data_depthwise<T> && !depthwise) continue;
      if (backward_data == &kernels::detail::backward_data_by_images<T> && !fits_lanes) continue;
      if (backward_data == &kernels::detail::backward_data_by_winograd<T> && !fits_winograd)
        continue;
      if (backward_data == &kernels::detail::backward_data_by_channels<T> && s.stride != Size2(1))
        continue;
      Numbers<T> dx(x_size(s), place);
      before();
      backward_data(dx.data(), dy.data(), weight.data(), s);
      const bool exact = backward_data == &kernels::detail::backward_data_by_planes<T> ||
                         backward_data == &kernels::detail::backward_data_by_channels<T> ||
                         backward_data == &kernels::detail::backward_data_depthwise<T>;
      const T bound = exact ? T(0) : rounding<T>(s);
      REQUIRE(first_difference(dx, dx0, bound) == -1);
      REQUIRE(dx.intact());
    }
    for (const auto backward_weight :
         {&kernels::conv2d_backward_weight<T>, &kernels::detail::backward_weight_by_planes<T>,
          &kernels::detail::backward_weight_by_channels<T>,
          &kernels::detail::backward_weight_by_images<T>,
          &kernels::detail::backward_weight_by_winograd<T>,
          &kernels::detail::backward_weight_depthwise<T>}) {
      if (backward_weight == &kernels::detail::backward_weight_depthwise<T> && !depthwise) continue;
      if (backward_weight == &kernels::detail::backward_weight_by_images<T> && !fits_lanes)
        continue;
      if (backward_weight == &kernels::detail::backward_weight_by_winograd<T> &&
          !kernels::detail::fits_winograd_weight<T>(s))
        continue;
      Numbers<T> dweight(weight_size(s), place);
      before();
      backward_weight(dweight.data(), dy.data(), x.data(), s);
      const bool exact = backward_weight == &kernels::detail::backward_weight_by_planes<T> ||
                         backward_weight == &kernels::detail::backward_weight_by_channels<T> ||
                         backward_weight == &kernels::detail::backward_weight_depthwise<T>;
      REQUIRE(first_difference(dweight, dweight0, exact ? T(0) : rounding<T>(s)) == -1);
      REQUIRE(dweight.intact());
    }
    Numbers<T> dbias(s.k, place);
    kernels::conv2d_backward_bias(dbias.data(), dy.data(), s.n, s.k, plane);
    REQUIRE(first_difference(dbias, dbias0) == -1);
    REQUIRE(dbias.intact());
  }
}

/// Sizes of all kinds, small: the number chooses them.
Conv2dSizes random_sizes(std::uint64_t number, Index largest_image = 13) {
  std::uint64_t draws = 0;
  const auto draw = [&](Index least, Index most) {
    return least +
           static_cast<Index>(random_integer({7, 0, static_cast<std::uint32_t>(number)}, draws++,
                                             static_cast<std::uint64_t>(most - least + 1)));
  };
  Conv2dSizes s{.n = draw(1, 4), .c = 0, .h = 0, .w = 0, .k = 0};
  s.groups = draw(0, 2) == 0 ? draw(2, 4) : 1;
  s.c = s.groups * draw(1, 3);
  s.k = s.groups * draw(1, draw(0, 2) == 0 ? 11 : 3);
  s.kernel = {draw(1, 5), draw(1, 5)};
  s.stride = {draw(1, 4), draw(1, 4)};
  s.padding = {draw(0, 3), draw(0, 3)};
  s.dilation = {draw(1, 3), draw(1, 3)};
  const auto image = [&](Index kernel, Index dilation, Index padding) {
    const Index least = std::max<Index>(1, dilation * (kernel - 1) + 1 - 2 * padding);
    return draw(least, std::max(least, largest_image));
  };
  s.h = image(s.kernel.h, s.dilation.h, s.padding.h);
  s.w = image(s.kernel.w, s.dilation.w, s.padding.w);
  return s;
}

/// x, weight, bias for a call of nn::conv2d.
template <class T>
struct Arguments {
  Variable<T> x, weight, bias;

  explicit Arguments(const Conv2dSizes& s)
      : x(Tensor<T>::normal({s.n, s.c, s.h, s.w}, 0, 1, {1, 0, 0}), true),
        weight(Tensor<T>::normal({s.k, s.group_c(), s.kernel.h, s.kernel.w}, 0, 1, {2, 0, 0}),
               true),
        bias(Tensor<T>::normal({s.k}, 0, 1, {3, 0, 0}), true) {}
};

nn::Conv2dOptions options_of(const Conv2dSizes& s) {
  return {.stride = s.stride, .padding = s.padding, .dilation = s.dilation, .groups = s.groups};
}

}  // namespace

TEST_CASE("the sizes of a convolution's output") {
  const Conv2dSizes s{.n = 2,
                      .c = 6,
                      .h = 11,
                      .w = 20,
                      .k = 4,
                      .kernel = {3, 5},
                      .stride = {2, 3},
                      .padding = {1, 0},
                      .dilation = {1, 2},
                      .groups = 2};
  CHECK(s.oh() == 6);
  CHECK(s.ow() == 4);
  CHECK(s.group_c() == 3);
  CHECK(s.group_k() == 2);
  CHECK(s.terms() == 45);
}

TEST_CASE_TEMPLATE("every kind of convolution of integers is exact", T, float, double) {
  for (std::uint64_t number = 0; number < 150; ++number) check_kernels<T>(random_sizes(number));
}

TEST_CASE_TEMPLATE("a convolution reads no scratch memory that it has not written", T, float,
                   double) {
  for (std::uint64_t number = 3000; number < 3030; ++number)
    check_kernels<T>(random_sizes(number), exact::poison_scratch);
  check_kernels<T>({.n = 2, .c = 33, .h = 5, .w = 7, .k = 2, .kernel = 3, .stride = 4},
                   exact::poison_scratch);
}

TEST_CASE_TEMPLATE("rows of three taps, of all widths and paddings", T, float, double) {
  for (Index width = 3; width <= 30; ++width)
    for (Index padding = 0; padding < 3; ++padding) {
      const Index more = width % 5;
      check_kernels<T>({.n = 1 + more,
                        .c = 4 + more,
                        .h = 3 + width % 4,
                        .w = width,
                        .k = 4 + (width + padding) % 14,
                        .kernel = 3,
                        .padding = {1 - padding % 2, padding}},
                       exact::poison_scratch);
    }
  check_kernels<T>({.n = 2 * Pack<T>::width + 1, .c = 4, .h = 4, .w = 9, .k = 5, .kernel = 3});
}

TEST_CASE_TEMPLATE("rows of three taps with channels in lanes", T, float, double) {
  constexpr Index w = Pack<T>::width;
  // Widths around whole tiles, packs of tiles, and rows of tiles that are taken together.
  for (Index width : {Index{1}, Index{4}, Index{5}, 4 * w - 1, 4 * w + 2, Index{59}, Index{231}})
    for (Index k : {Index{1}, w + 1, 2 * w, 3 * w + 2})
      check_kernels<T>(
          {.n = 2, .c = 3, .h = 3, .w = width, .k = k, .kernel = 3, .padding = {k % 2, 1}},
          exact::poison_scratch);
  // Kernels of any height, and rows apart.
  for (Index height = 1; height <= 5; ++height)
    check_kernels<T>({.n = 3,
                      .c = 4,
                      .h = 9,
                      .w = 10,
                      .k = 2 * w,
                      .kernel = {height, 3},
                      .padding = {height % 3, height % 2},
                      .dilation = {1 + height % 2, 1},
                      .groups = 1 + height % 2});
  // More padding than the kernel reaches: backward, some of the rows are cut off.
  check_kernels<T>({.n = 2, .c = 5, .h = 4, .w = 6, .k = 2 * w, .kernel = 3, .padding = {4, 5}});
  // Several images in a piece and one left, bands of an image, and few images cut by channels.
  check_kernels<T>({.n = 21, .c = 20, .h = 7, .w = 9, .k = w + 3, .kernel = 3, .padding = 1});
  check_kernels<T>({.n = 2, .c = 40, .h = 71, .w = 30, .k = w, .kernel = 3, .padding = 1});
  check_kernels<T>({.n = 1, .c = 6, .h = 12, .w = 15, .k = 16 * w + 5, .kernel = 3});
}

TEST_CASE_TEMPLATE("gradients of rows of three taps with channels in lanes", T, float, double) {
  constexpr Index w = Pack<T>::width;
  for (Index width : {Index{3}, Index{4}, Index{5}, 2 * w + 1, Index{59}})
    for (Index k : {Index{1}, kernels::tile_rows + 1, 2 * w + 3})
      check_kernels<T>(
          {.n = 2, .c = w, .h = 3, .w = width, .k = k, .kernel = 3, .padding = {k % 2, width % 2}},
          exact::poison_scratch);
  for (Index height = 1; height <= 5; ++height)
    check_kernels<T>({.n = 3,
                      .c = (1 + height % 2) * 2 * w,
                      .h = 9,
                      .w = 10,
                      .k = 10,
                      .kernel = {height, 3},
                      .padding = {height % 3, height % 2},
                      .dilation = {1 + height % 2, 1},
                      .groups = 1 + height % 2},
                     exact::poison_scratch);
  // Several images in a piece and one left, bands of an image, more padding than the kernel
  // reaches.
  check_kernels<T>({.n = 41, .c = 2 * w, .h = 7, .w = 9, .k = 5, .kernel = 3, .padding = 1});
  check_kernels<T>({.n = 2, .c = 3 * w, .h = 97, .w = 21, .k = 12, .kernel = 3, .padding = 1});
  check_kernels<T>({.n = 2, .c = w, .h = 4, .w = 6, .k = 3, .kernel = 3, .padding = {4, 5}});
  check_kernels<T>({.n = 0, .c = w, .h = 4, .w = 6, .k = 3, .kernel = 3});
}

TEST_CASE_TEMPLATE("depthwise convolutions", T, float, double) {
  constexpr Index w = Pack<T>::width;
  const auto check = [](Conv2dSizes s) {
    s.k = s.groups = s.c;
    check_kernels<T>(s, exact::poison_scratch);
  };
  // Channels around a pack: groups of planes begin with any of them.
  for (Index c : {Index{2}, w - 1, w, w + 1, 2 * w, 3 * w + 5})
    for (Index n : {1, 5})
      check({.n = n, .c = c, .h = 7, .w = 9, .k = c, .kernel = 3, .padding = 1});
  for (Index size = 1; size <= 20; ++size)
    check({.n = 3,
           .c = 11,
           .h = size + 2,
           .w = size,
           .k = 0,
           .kernel = {1 + size % 3, size % 5 + 1},
           .stride = {1 + size % 2, 1 + size % 3},
           .padding = {size % 4, 3},
           .dilation = {1 + size % 2, 1}});
  // Padding that whole windows lie in, rows and columns that nothing reads, bands of rows.
  check({.n = 2, .c = 20, .h = 3, .w = 4, .k = 0, .kernel = 3, .stride = 2, .padding = {5, 4}});
  check({.n = 2, .c = 20, .h = 11, .w = 13, .k = 0, .kernel = {2, 1}, .stride = {4, 5}});
  check({.n = 1, .c = w, .h = 90, .w = 101, .k = 0, .kernel = 5, .padding = 2});
  check({.n = 1, .c = w + 1, .h = 117, .w = 120, .k = 0, .kernel = 3, .stride = 2, .padding = 1});
  check({.n = 0, .c = 3, .h = 5, .w = 5, .k = 0, .kernel = 3});
}

TEST_CASE("half the multiplications at most double the rounding error") {
  for (const Conv2dSizes& s :
       {Conv2dSizes{.n = 1, .c = 4, .h = 12, .w = 30, .k = 32, .kernel = 3, .padding = 1},
        Conv2dSizes{.n = 2, .c = 96, .h = 14, .w = 14, .k = 40, .kernel = 3, .padding = 1}}) {
    const auto x = normals<float>(x_size(s), 1), weight = normals<float>(weight_size(s), 2),
               dy = normals<float>(y_size(s), 3);
    const auto wide = [](const Numbers<float>& numbers) {
      Numbers<double> result(numbers.size());
      std::copy_n(numbers.data(), numbers.size(), result.data());
      return result;
    };
    const auto error = [](const Numbers<float>& actual, const Numbers<double>& truth) {
      double squares = 0;
      for (Index i = 0; i < truth.size(); ++i)
        squares += std::pow(static_cast<double>(actual[i]) - truth[i], 2);
      return std::sqrt(squares / static_cast<double>(truth.size()));
    };
    Numbers<float> y(y_size(s)), y_direct(y_size(s)), dx(x_size(s)), dx_direct(x_size(s)),
        dweight(weight_size(s)), dweight_direct(weight_size(s));
    Numbers<double> y_true(y_size(s)), dx_true(x_size(s)), dweight_true(weight_size(s));
    const float* const no_bias = nullptr;
    kernels::detail::forward_by_winograd(y.data(), x.data(), weight.data(), no_bias, s);
    kernels::detail::forward_by_channels(y_direct.data(), x.data(), weight.data(), no_bias, s);
    kernels::detail::backward_data_by_winograd(dx.data(), dy.data(), weight.data(), s);
    kernels::detail::backward_data_by_channels(dx_direct.data(), dy.data(), weight.data(), s);
    const auto x2 = wide(x), weight2 = wide(weight), dy2 = wide(dy);
    kernels::detail::forward_by_planes<double>(y_true.data(), x2.data(), weight2.data(), nullptr,
                                               s);
    kernels::detail::backward_data_by_planes(dx_true.data(), dy2.data(), weight2.data(), s);
    CHECK(error(y_direct, y_true) > 0);
    CHECK(error(y, y_true) < 2 * error(y_direct, y_true));
    CHECK(error(dx_direct, dx_true) > 0);
    CHECK(error(dx, dx_true) < 2 * error(dx_direct, dx_true));
    if (!kernels::detail::fits_winograd_weight<float>(s)) continue;
    kernels::detail::backward_weight_by_winograd(dweight.data(), dy.data(), x.data(), s);
    kernels::detail::backward_weight_by_channels(dweight_direct.data(), dy.data(), x.data(), s);
    kernels::detail::backward_weight_by_planes(dweight_true.data(), dy2.data(), x2.data(), s);
    CHECK(error(dweight_direct, dweight_true) > 0);
    CHECK(error(dweight, dweight_true) < 2 * error(dweight_direct, dweight_true));
  }
}

TEST_CASE_TEMPLATE("infinity and NaN reach the outputs that read them, and no other rows", T, float,
                   double) {
  const Conv2dSizes s{.n = 3, .c = 5, .h = 6, .w = 21, .k = 40, .kernel = 3, .padding = 1};
  const auto weight = normals<T>(weight_size(s), 2);
  for (const T strange :
       {std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN()}) {
    auto x = normals<T>(x_size(s), 1);
    x[((s.c + 2) * s.h + 3) * s.w + 20] = strange;  // image 1, channel 2, row 3, column 20
    Numbers<T> y(y_size(s));
    kernels::conv2d_forward(y.data(), x.data(), weight.data(), static_cast<const T*>(nullptr), s);
    for (Index i = 0; i < y.size(); ++i) {
      const Index col = i % s.w, row = i / s.w % s.h, image = i / s.w / s.h / s.k;
      const bool near_row = image == 1 && row >= 2 && row <= 4;
      if (near_row && col >= 19)
        REQUIRE(!std::isfinite(y[i]));
      else if (!near_row || col < 19 - 3)
        REQUIRE(std::isfinite(y[i]));
    }
  }
}

TEST_CASE_TEMPLATE("convolutions at the edges of what there is", T, float, double) {
  const Conv2dSizes cases[] = {
      // one pixel, one tap
      {.n = 1, .c = 1, .h = 1, .w = 1, .k = 1},
      // kernels of 1 x 1, and of one row or column
      {.n = 3, .c = 5, .h = 7, .w = 4, .k = 9},
      {.n = 2, .c = 4, .h = 5, .w = 9, .k = 3, .kernel = 1, .stride = {3, 2}, .groups = 1},
      {.n = 2, .c = 2, .h = 1, .w = 30, .k = 2, .kernel = {1, 7}, .padding = {0, 3}},
      {.n = 2, .c = 2, .h = 30, .w = 1, .k = 2, .kernel = {7, 1}, .padding = {3, 0}},
      // a kernel as large as the padded image: one output
      {.n = 2, .c = 3, .h = 6, .w = 4, .k = 5, .kernel = {6, 4}},
      {.n = 2, .c = 3, .h = 4, .w = 3, .k = 2, .kernel = {8, 5}, .padding = {2, 1}},
      {.n = 3, .c = 1, .h = 5, .w = 7, .k = 2, .kernel = {3, 3}, .dilation = {2, 3}},
      // strides beyond the kernel: rows and columns that nothing reads
      {.n = 2, .c = 2, .h = 11, .w = 13, .k = 3, .kernel = {2, 1}, .stride = {4, 5}},
      {.n = 2, .c = 2, .h = 9, .w = 9, .k = 3, .kernel = {2, 2}, .stride = {3, 3}, .padding = 1},
      // a last row and column beyond the last window
      {.n = 2, .c = 2, .h = 8, .w = 10, .k = 3, .kernel = {3, 3}, .stride = {2, 4}},
      // taps that share some remainders of the stride, or one
      {.n = 2, .c = 2, .h = 9, .w = 9, .k = 3, .kernel = 3, .stride = 2, .dilation = 2},
      {.n = 1, .c = 2, .h = 17, .w = 19, .k = 2, .kernel = 3, .stride = {4, 6}, .dilation = {2, 3}},
      // padding that whole windows lie in
      {.n = 2, .c = 1, .h = 2, .w = 1, .k = 2, .kernel = {2, 1}, .stride = 2, .padding = {5, 3}},
      {.n = 1, .c = 2, .h = 3, .w = 3, .k = 2, .kernel = 3, .stride = {7, 5}, .padding = {9, 6}},
      // depthwise, with one and with several outputs a channel
      {.n = 2, .c = 7, .h = 6, .w = 8, .k = 7, .kernel = 3, .padding = 1, .groups = 7},
      {.n = 2, .c = 4, .h = 6, .w = 8, .k = 12, .kernel = 3, .stride = 2, .groups = 4},
  };
  for (const Conv2dSizes& s : cases) check_kernels<T>(s);
}

TEST_CASE_TEMPLATE("convolutions of widths and channels around a pack and a tile", T, float,
                   double) {
  constexpr Index w = Pack<T>::width;
  for (Index width :
       {Index{1}, Index{2}, w - 1, w, w + 1, 2 * w + 1, 3 * w, 3 * w + 1, 6 * w + 1}) {
    if (width < 1) continue;
    check_kernels<T>({.n = 1, .c = 2, .h = 1, .w = width, .k = 3});
    check_kernels<T>({.n = 2, .c = 1, .h = 3, .w = width + 2, .k = 9, .kernel = 3, .padding = 0});
    check_kernels<T>({.n = 1, .c = width, .h = 3, .w = 4, .k = 2, .kernel = 2});
    check_kernels<T>({.n = 1, .c = 2, .h = 3, .w = 4, .k = width, .kernel = 2});
  }
  for (Index k = 1; k <= 2 * kernels::tile_rows + 2; ++k)
    check_kernels<T>({.n = 2, .c = 3, .h = 4, .w = 5, .k = k, .kernel = 2});
  // Channels in lanes: rows around a tile of positions, channels around two packs.
  constexpr Index positions = kernels::detail::tile_positions;
  for (Index width : {positions / 2 - 1, positions / 2, positions - 1, positions, positions + 1,
                      positions + positions / 2, 2 * positions + 1})
    check_kernels<T>({.n = 2,
                      .c = 2 * w + 1,
                      .h = 2,
                      .w = width,
                      .k = 2 * w,
                      .kernel = {1, 3},
                      .padding = {0, 1}});
  for (Index k : {w, w + 1, 2 * w - 1, 2 * w, 2 * w + 1, 3 * w, 4 * w + 1})
    check_kernels<T>({.n = 2, .c = k, .h = 3, .w = positions, .k = k});
  for (Index c = 1; c <= 7; ++c)
    check_kernels<T>({.n = 2, .c = c, .h = 4, .w = 5, .k = 5, .kernel = {1, 2}});
}

TEST_CASE_TEMPLATE("convolutions of many images", T, float, double) {
  for (Index n : {1, 3, 17, 130}) {
    check_kernels<T>({.n = n, .c = 2, .h = 10, .w = 12, .k = 3, .kernel = 3});
    check_kernels<T>({.n = n,
                      .c = 2,
                      .h = 9,
                      .w = 7,
                      .k = 4,
                      .kernel = 3,
                      .stride = 2,
                      .padding = 1,
                      .groups = 2});
    check_kernels<T>({.n = n, .c = 20, .h = 20, .w = 24, .k = 3, .kernel = {1, 3}});
  }
  // So many that a thread goes from a full piece to the last, which holds fewer images.
  check_kernels<T>(
      {.n = 1000, .c = 1, .h = 19, .w = 23, .k = 1, .kernel = {1, 3}, .padding = {0, 1}});
  check_kernels<T>(
      {.n = 301, .c = 22, .h = 19, .w = 23, .k = 1, .kernel = {1, 3}, .padding = {0, 1}});
}

TEST_CASE_TEMPLATE("convolutions of no image give no output and a gradient of zero", T, float,
                   double) {
  check_kernels<T>({.n = 0, .c = 2, .h = 5, .w = 5, .k = 3, .kernel = 3});
  check_kernels<T>({.n = 0, .c = 2, .h = 5, .w = 5, .k = 4, .kernel = 3, .stride = 2, .groups = 2});
}

TEST_CASE("the bias's gradient of a large plane is as exact as that of a small one") {
  const Index plane = 1 << 20;
  const auto dy = Tensor<float>::full({plane}, 0.1f);
  float dbias = 0;
  kernels::conv2d_backward_bias(&dbias, dy.data(), 1, 1, plane);
  const double exact = double{0.1f} * static_cast<double>(plane);
  CHECK(std::abs(double{dbias} - exact) < 2e-6 * exact);
}

TEST_CASE_TEMPLATE("convolutions of no channel are the bias, and of no output channel nothing", T,
                   float, double) {
  check_kernels<T>({.n = 2, .c = 0, .h = 5, .w = 5, .k = 3, .kernel = 3});
  check_kernels<T>({.n = 2, .c = 2, .h = 5, .w = 5, .k = 0, .kernel = 3});
  check_kernels<T>({.n = 2, .c = 2, .h = 0, .w = 5, .k = 2, .kernel = 3, .padding = 2});
}

TEST_CASE_TEMPLATE("images that are cut into bands of rows", T, float, double) {
  check_kernels<T>({.n = 1, .c = 3, .h = 200, .w = 300, .k = 4, .kernel = 3, .padding = 1});
  check_kernels<T>({.n = 2, .c = 64, .h = 56, .w = 56, .k = 5, .kernel = 3, .padding = 1});
  // A shorter last band, and so many of them that a thread goes from one image to the next.
  check_kernels<T>(
      {.n = 33, .c = 128, .h = 70, .w = 40, .k = 1, .kernel = {2, 1}, .padding = {1, 0}});
  // A stride, padding and dilation.
  check_kernels<T>({.n = 3,
                    .c = 64,
                    .h = 141,
                    .w = 100,
                    .k = 2,
                    .kernel = 3,
                    .stride = {2, 3},
                    .padding = {1, 0}});
  check_kernels<T>({.n = 1,
                    .c = 3,
                    .h = 300,
                    .w = 290,
                    .k = 5,
                    .kernel = {5, 3},
                    .stride = {3, 2},
                    .padding = {2, 1},
                    .dilation = {2, 3}});
  // Groups.
  check_kernels<T>({.n = 1,
                    .c = 192,
                    .h = 61,
                    .w = 48,
                    .k = 4,
                    .kernel = 3,
                    .padding = {2, 1},
                    .dilation = {2, 1},
                    .groups = 2});
  // Rows so long that a band is one of them.
  check_kernels<T>(
      {.n = 1, .c = 40, .h = 9, .w = 1500, .k = 2, .kernel = {7, 2}, .padding = {1, 0}});
}

TEST_CASE_TEMPLATE("sums of more terms than are taken in one go", T, float, double) {
  check_kernels<T>({.n = 2, .c = 64, .h = 9, .w = 8, .k = 9, .kernel = 3, .padding = 1});
  check_kernels<T>({.n = 1, .c = 256, .h = 5, .w = 7, .k = 3, .kernel = 3, .stride = 2});
  check_kernels<T>({.n = 1, .c = 3, .h = 7, .w = 6, .k = 200, .kernel = 3});
  check_kernels<T>({.n = 1, .c = 512, .h = 3, .w = 3, .k = 2});
  check_kernels<T>({.n = 1, .c = 513, .h = 3, .w = 3, .k = 2});
}

TEST_CASE_TEMPLATE("the error of a convolution is within the roundings of its terms", T, float,
                   double) {
  for (const double centre : {0.0, 1e4}) {
    for (const Conv2dSizes& s :
         {Conv2dSizes{.n = 2, .c = 30, .h = 9, .w = 11, .k = 5, .kernel = 3, .padding = 1},
          Conv2dSizes{.n = 40, .c = 2, .h = 26, .w = 28, .k = 5, .kernel = 3}}) {
      const std::string sizes = describe(s);
      CAPTURE(sizes);
      CAPTURE(centre);
      auto x = normals<T>(x_size(s), 1);
      for (Index i = 0; i < x.size(); ++i) x[i] += static_cast<T>(centre);
      const auto weight = normals<T>(weight_size(s), 2), dy = normals<T>(y_size(s), 3);
      Numbers<T> y(y_size(s)), dx(x_size(s)), dweight(weight_size(s)), dbias(s.k);
      kernels::conv2d_forward(y.data(), x.data(), weight.data(), static_cast<const T*>(nullptr), s);
      kernels::conv2d_backward_data(dx.data(), dy.data(), weight.data(), s);
      kernels::conv2d_backward_weight(dweight.data(), dy.data(), x.data(), s);
      kernels::conv2d_backward_bias(dbias.data(), dy.data(), s.n, s.k, s.oh() * s.ow());

      struct Sum {
        long double value = 0, magnitude = 0;
        void add(T a, T b) {
          const long double term = static_cast<long double>(a) * static_cast<long double>(b);
          value += term;
          magnitude += std::abs(term);
        }
        bool close(T actual, double roundings) const {
          return std::abs(static_cast<long double>(actual) - value) <=
                 static_cast<long double>(roundings) * std::numeric_limits<T>::epsilon() / 2 *
                     magnitude;
        }
      };
      const auto sums = [](Index size) { return std::vector<Sum>(static_cast<std::size_t>(size)); };
      const auto at = [](auto& list, Index i) -> auto& {
        return list[static_cast<std::size_t>(i)];
      };
      auto y0 = sums(y.size()), dx0 = sums(dx.size()), dweight0 = sums(dweight.size()),
           dbias0 = sums(s.k);
      for_each_product(s, [&](Index at_y, Index at_x, Index at_weight) {
        at(y0, at_y).add(weight[at_weight], x[at_x]);
        at(dx0, at_x).add(weight[at_weight], dy[at_y]);
        at(dweight0, at_weight).add(dy[at_y], x[at_x]);
      });
      for (Index i = 0; i < dy.size(); ++i) at(dbias0, i / (s.oh() * s.ow()) % s.k).add(dy[i], 1);

      for (Index i = 0; i < y.size(); ++i)
        REQUIRE(at(y0, i).close(y[i], static_cast<double>(s.terms())));
      for (Index i = 0; i < dx.size(); ++i)
        REQUIRE(at(dx0, i).close(dx[i], static_cast<double>(s.k * s.taps())));
      for (Index i = 0; i < dweight.size(); ++i)
        REQUIRE(at(dweight0, i).close(dweight[i], static_cast<double>(s.n * s.oh() * s.ow())));
      for (Index i = 0; i < s.k; ++i)
        REQUIRE(at(dbias0, i).close(dbias[i], static_cast<double>(s.oh() * s.ow())));
    }
  }
}

TEST_CASE_TEMPLATE("gradients of weights and biases are added up over images in double", T, float,
                   double) {
  // 1e8 swallows a small number in float, unless it lies in another chunk of images.
  const Conv2dSizes s{.n = 96, .c = 1, .h = 100, .w = 100, .k = 1};
  const Numbers<T> x(x_size(s), Place::exact, T(1));
  Numbers<T> dy(y_size(s), Place::exact, T(0)), dweight(1), dbias(1);
  const auto image = [&](Index i) -> T& { return dy[i * s.h * s.w]; };
  for (Index i = 20; i < 76; ++i) image(i) = T(1);
  image(0) = T(1e8);
  image(95) = T(-1e8);
  kernels::conv2d_backward_weight(dweight.data(), dy.data(), x.data(), s);
  kernels::conv2d_backward_bias(dbias.data(), dy.data(), s.n, s.k, s.h * s.w);
  CHECK(dweight[0] == T(56));
  CHECK(dbias[0] == T(56));
}

TEST_CASE_TEMPLATE("numbers of 1e30 stay finite beside padding", T, float, double) {
  const Conv2dSizes s{.n = 1, .c = 1, .h = 4, .w = 5, .k = 2, .kernel = 3, .padding = 1};
  const Numbers<T> x(x_size(s), Place::exact, T(1e30)), weight(weight_size(s), Place::exact, T(1));
  Numbers<T> y(y_size(s));
  kernels::conv2d_forward(y.data(), x.data(), weight.data(), static_cast<const T*>(nullptr), s);
  for (Index k = 0; k < 2; ++k)
    for (Index i = 0; i < 4; ++i)
      for (Index j = 0; j < 5; ++j) {
        const double taps = (i % 3 == 0 ? 2 : 3) * (j % 4 == 0 ? 2 : 3);
        CHECK(double{y[(k * 4 + i) * 5 + j]} == doctest::Approx(taps * 1e30).epsilon(1e-6));
      }
}

TEST_CASE_TEMPLATE("convolutions have the same bits for any number of threads", T, float, double) {
  for (const Conv2dSizes& s :
       {Conv2dSizes{.n = 70, .c = 3, .h = 28, .w = 26, .k = 8, .kernel = 3},
        Conv2dSizes{.n = 3, .c = 20, .h = 40, .w = 50, .k = 12, .kernel = 3, .padding = 1},
        Conv2dSizes{
            .n = 9, .c = 8, .h = 30, .w = 31, .k = 8, .kernel = 3, .stride = 2, .groups = 4},
        Conv2dSizes{.n = 5, .c = 48, .h = 31, .w = 30, .k = 70, .kernel = 3, .padding = 1},
        Conv2dSizes{.n = 7, .c = 40, .h = 31, .w = 30, .k = 40, .kernel = 3, .groups = 40},
        Conv2dSizes{.n = 1, .c = 3, .h = 120, .w = 200, .k = 8, .kernel = 3, .padding = 1}}) {
    const std::string sizes = describe(s);
    CAPTURE(sizes);
    const auto x = normals<T>(x_size(s), 1), weight = normals<T>(weight_size(s), 2),
               bias = normals<T>(s.k, 3), dy = normals<T>(y_size(s), 4);
    const auto results = [&](int threads) {
      const exact::Threads scope(threads);
      std::array<Numbers<T>, 4> r{Numbers<T>(y_size(s)), Numbers<T>(x_size(s)),
                                  Numbers<T>(weight_size(s)), Numbers<T>(s.k)};
      kernels::conv2d_forward(r[0].data(), x.data(), weight.data(), bias.data(), s);
      kernels::conv2d_backward_data(r[1].data(), dy.data(), weight.data(), s);
      kernels::conv2d_backward_weight(r[2].data(), dy.data(), x.data(), s);
      kernels::conv2d_backward_bias(r[3].data(), dy.data(), s.n, s.k, s.oh() * s.ow());
      return r;
    };
    const auto one = results(1);
    for (const int threads : {2, 4}) {
      const auto many = results(threads);
      for (std::size_t i = 0; i < one.size(); ++i)
        CHECK(std::memcmp(one[i].data(), many[i].data(),
                          static_cast<std::size_t>(one[i].size()) * sizeof(T)) == 0);
    }
  }
}

TEST_CASE_TEMPLATE("conv2d agrees with its composition from plain operations", T, float, double) {
  const double tolerance = sizeof(T) == 4 ? 2e-5 : 1e-13;
  for (std::uint64_t number = 1000; number < 1040; ++number) {
    const Conv2dSizes s = random_sizes(number);
    const std::string sizes = describe(s);
    CAPTURE(sizes);
    Arguments<T> a(s), b(s);
    if (number % 3 == 0) a.bias = b.bias = {};
    const auto y = nn::conv2d(a.x, a.weight, a.bias, options_of(s));
    const auto expected =
        testing::composed::conv2d(b.x, b.weight, b.bias, s.stride, s.padding, s.dilation, s.groups);
    const auto dy = Tensor<T>::normal(y.shape(), 0, 1, {4, 0, 0});
    y.backward(dy);
    expected.backward(dy);
    // Sums of up to a few hundred terms of size one: the tolerance is absolute.
    const auto near = [&](const Tensor<T>& actual, const Tensor<T>& wanted) {
      return compare(actual, wanted, tolerance, 20 * tolerance);
    };
    CHECK(near(y.value(), expected.value()));
    CHECK(near(a.x.grad(), b.x.grad()));
    CHECK(near(a.weight.grad(), b.weight.grad()));
    if (a.bias.defined()) CHECK(near(a.bias.grad(), b.bias.grad()));
  }
}

TEST_CASE("conv2d's gradients are those of finite differences") {
  const auto check_gradients = [](const Conv2dSizes& s) {
    const std::string sizes = describe(s);
    CAPTURE(sizes);
    const Arguments<double> a(s);
    // A stride may pass over every pixel, and padding hold every window.
    const bool touched = [&] {
      bool any = false;
      for_each_product(s, [&](Index, Index, Index) { any = true; });
      return any;
    }();
    const auto options = options_of(s);
    const testing::GradcheckOptions check{.step = 1e-3, .relative = 1e-8, .allow_zero = !touched};
    const auto with_bias =
        gradcheck([&](const auto& in) { return nn::conv2d(in[0], in[1], in[2], options); },
                  {a.x, a.weight, a.bias}, check);
    CHECK_MESSAGE(with_bias, with_bias.str());
    const auto without =
        gradcheck([&](const auto& in) { return nn::conv2d(in[0], in[1], {}, options); },
                  {a.x, a.weight}, check);
    CHECK_MESSAGE(without, without.str());
  };
  for (std::uint64_t number = 2000; number < 2040; ++number)
    check_gradients(random_sizes(number, 7));
  check_gradients({.n = 2, .c = 3, .h = 6, .w = 4, .k = 5, .kernel = {6, 4}});
  check_gradients({.n = 1, .c = 2, .h = 9, .w = 8, .k = 3, .kernel = {2, 1}, .stride = {4, 3}});
  check_gradients({.n = 2, .c = 5, .h = 4, .w = 6, .k = 5, .kernel = 3, .padding = 1, .groups = 5});
}

TEST_CASE("conv2d computes gradients only for inputs that need them") {
  const Conv2dSizes s{.n = 2, .c = 2, .h = 5, .w = 6, .k = 3, .kernel = 3};
  for (int needed = 0; needed < 8; ++needed) {
    CAPTURE(needed);
    Arguments<float> a(s);
    a.x.set_requires_grad(needed & 1);
    a.weight.set_requires_grad(needed & 2);
    a.bias.set_requires_grad(needed & 4);
    const auto y = nn::conv2d(a.x, a.weight, a.bias);
    REQUIRE(y.is_leaf() == (needed == 0));
    if (needed == 0) continue;
    CHECK(y.node()->name == "conv2d");
    const auto gradients = y.node()->backward(Tensor<float>::ones(y.shape()));
    REQUIRE(gradients.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) CHECK(gradients[i].defined() == ((needed >> i & 1) == 1));
  }
  const Arguments<float> a(s);
  const NoGrad no_grad;
  CHECK(nn::conv2d(a.x, a.weight, a.bias).is_leaf());
}

TEST_CASE("conv2d's errors carry both shapes and the way out") {
  const auto zeros = [](const Shape& shape) {
    return Variable<float>(Tensor<float>::zeros(shape));
  };
  const auto x = zeros({2, 6, 5, 7}), weight = zeros({4, 6, 3, 3});
  CHECK_THROWS_WITH_AS(nn::conv2d(zeros({6, 5, 7}), weight),
                       "conv2d: x has shape [6, 5, 7], expected [N, C, H, W]", ShapeError);
  CHECK_THROWS_WITH_AS(
      nn::conv2d(x, zeros({4, 6})),
      "conv2d: weight has shape [4, 6], expected [out channels, in channels / groups, kernel "
      "height, kernel width]",
      ShapeError);
  CHECK_THROWS_WITH_AS(nn::conv2d(x, zeros({4, 3, 3, 3})),
                       "conv2d: x has shape [2, 6, 5, 7], so 6 channels, but weight [4, 3, 3, 3] "
                       "with 1 group takes 3",
                       ShapeError);
  CHECK_THROWS_WITH_AS(nn::conv2d(x, weight, {}, {.groups = 2}),
                       "conv2d: x has shape [2, 6, 5, 7], so 6 channels, but weight [4, 6, 3, 3] "
                       "with 2 groups takes 12",
                       ShapeError);
  CHECK_THROWS_WITH_AS(nn::conv2d(x, zeros({4, 2, 3, 3}), {}, {.groups = 3}),
                       "conv2d: weight [4, 2, 3, 3]: 4 output channels cannot be divided into 3 "
                       "groups",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      nn::conv2d(x, zeros({4, 6, 3, 5}), {}, {.padding = {0, 1}, .dilation = {1, 3}}),
      "conv2d: x has shape [2, 6, 5, 7], and with padding (0, 1) that is smaller than the kernel "
      "(3, 5) with dilation (1, 3); use a smaller kernel or more padding",
      ShapeError);
  CHECK_THROWS_WITH_AS(nn::conv2d(x, zeros({4, 6, 6, 3})),
                       "conv2d: x has shape [2, 6, 5, 7], and with padding 0 that is smaller than "
                       "the kernel (6, 3) with dilation 1; use a smaller kernel or more padding",
                       ShapeError);
  CHECK_THROWS_WITH_AS(nn::conv2d(x, weight, zeros({6})),
                       "conv2d: bias has shape [6], expected [4]", ShapeError);
  CHECK_THROWS_WITH_AS(nn::conv2d(x, zeros({4, 6, 0, 3})),
                       "conv2d: kernel (0, 3), expected 1 to 1073741824", ShapeError);
  CHECK_THROWS_WITH_AS(nn::conv2d(x, weight, {}, {.stride = {1, 0}}),
                       "conv2d: stride (1, 0), expected 1 to 1073741824", ShapeError);
  CHECK_THROWS_WITH_AS(nn::conv2d(x, weight, {}, {.dilation = Index{1} << 62}),
                       "conv2d: dilation 4611686018427387904, expected 1 to 1073741824",
                       ShapeError);
}

TEST_CASE("Conv2d's errors name the option") {
  CHECK_THROWS_WITH_AS(nn::Conv2d(1, 8, {0, 3}), "Conv2d: kernel (0, 3), expected 1 to 1073741824",
                       ShapeError);
  CHECK_THROWS_WITH_AS(nn::Conv2d(1, 8, 3, {.stride = 0}),
                       "Conv2d: stride 0, expected 1 to 1073741824", ShapeError);
  CHECK_THROWS_WITH_AS(nn::Conv2d(1, 8, 3, {.padding = {1, -1}}),
                       "Conv2d: padding (1, -1), expected 0 to 1073741824", ShapeError);
  CHECK_THROWS_WITH_AS(nn::Conv2d(1, 8, 3, {.dilation = {-1, 2}}),
                       "Conv2d: dilation (-1, 2), expected 1 to 1073741824", ShapeError);
  CHECK_THROWS_WITH_AS(nn::Conv2d(1, 8, 3, {.groups = 0}), "Conv2d: groups = 0 must be positive",
                       ShapeError);
  CHECK_THROWS_WITH_AS(nn::Conv2d(0, 8, 3),
                       "Conv2d(0, 8): the numbers of channels must be positive", ShapeError);
  CHECK_THROWS_WITH_AS(nn::Conv2d(8, -1, 3),
                       "Conv2d(8, -1): the numbers of channels must be positive", ShapeError);
  CHECK_THROWS_WITH_AS(nn::Conv2d(6, 8, 3, {.groups = 3}),
                       "Conv2d(6, 8): both numbers of channels must be multiples of groups = 3",
                       ShapeError);
  CHECK_THROWS_WITH_AS(nn::Conv2d(8, 6, 3, {.groups = 4}),
                       "Conv2d(8, 6): both numbers of channels must be multiples of groups = 4",
                       ShapeError);
}

TEST_CASE("Conv2d holds a weight and a bias, float unless told otherwise") {
  nn::Conv2d conv(4, 6, {3, 5}, {.stride = 2, .padding = {1, 2}, .groups = 2});
  static_assert(std::is_same_v<decltype(conv), nn::Conv2d<float>>);
  static_assert(std::is_same_v<decltype(nn::Conv2d(1, 8, 3)), nn::Conv2d<float>>);
  CHECK(conv.name() == "Conv2d");
  CHECK(conv.kernel() == Size2(3, 5));
  CHECK(conv.options().stride == Size2(2));
  CHECK(conv.options().padding == Size2(1, 2));
  CHECK(conv.options().dilation == Size2(1));
  CHECK(conv.options().groups == 2);

  const auto parameters = conv.named_parameters();
  REQUIRE(parameters.size() == 2);
  CHECK(parameters[0].first == "weight");
  CHECK(parameters[0].second.shape() == Shape{6, 2, 3, 5});
  CHECK(parameters[0].second.requires_grad());
  CHECK(parameters[1].first == "bias");
  CHECK(parameters[1].second.shape() == Shape{6});
  CHECK(parameters[1].second.requires_grad());
  CHECK(conv.named_buffers().empty());

  const auto x = Variable<float>(Tensor<float>::normal({2, 4, 9, 8}));
  CHECK(conv(x).shape() == Shape{2, 6, 5, 4});
  const auto expected =
      nn::conv2d(x, conv.weight(), conv.bias(), {.stride = 2, .padding = {1, 2}, .groups = 2});
  CHECK(same_bits(conv(x).value(), expected.value()));
  conv.eval();
  CHECK(same_bits(conv(x).value(), expected.value()));

  const nn::Conv2d<double> bare(4, 6, 3, {.bias = false});
  CHECK(bare.named_parameters().size() == 1);
  CHECK_FALSE(bare.bias().defined());
}

TEST_CASE("Conv2d starts within one over the root of the number of terms, as PyTorch's") {
  manual_seed(3);
  const nn::Conv2d conv(32, 64, {3, 5}, {.groups = 2});
  const float bound = 1 / std::sqrt(16.0f * 15);
  for (const auto& parameter : conv.parameters()) {
    float least = 1, largest = -1;
    for (const float value : parameter.value().values()) {
      least = std::min(least, value);
      largest = std::max(largest, value);
    }
    CHECK(largest <= bound);
    CHECK(least >= -bound);
    CHECK(largest > 0.9f * bound);
    CHECK(least < -0.9f * bound);
  }
  manual_seed(3);
  const nn::Conv2d same(32, 64, {3, 5}, {.groups = 2});
  CHECK(same_bits(conv.weight().value(), same.weight().value()));
  CHECK(same_bits(conv.bias().value(), same.bias().value()));
  const nn::Conv2d other(32, 64, {3, 5}, {.groups = 2});
  CHECK_FALSE(same_bits(conv.weight().value(), other.weight().value()));
}

TEST_CASE("Conv2d's state loads into another, also of another type") {
  nn::Conv2d conv(3, 4, 3), other(3, 4, 3);
  const auto x = Variable<float>(Tensor<float>::normal({2, 3, 6, 6}));
  REQUIRE_FALSE(same_bits(conv(x).value(), other(x).value()));
  other.load_state_dict(conv.state_dict());
  CHECK(same_bits(conv(x).value(), other(x).value()));
  nn::Conv2d<double> wide(3, 4, 3);
  wide.load_state_dict(conv.state_dict());
  CHECK(compare(wide(x.value().to<double>()).value(), conv(x).value(), 1e-4, 1e-5));
  nn::Conv2d bare(3, 4, 3, {.bias = false});
  CHECK_THROWS_WITH_AS(bare.load_state_dict(conv.state_dict()),
                       "Conv2d: the state does not fit:\n  unexpected: bias", Error);
}
