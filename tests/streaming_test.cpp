#include "minnow/kernels/streaming.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "minnow/kernels/batch_norm.hpp"
#include "minnow/kernels/elementwise.hpp"
#include "minnow/kernels/group_norm.hpp"
#include "minnow/kernels/layer_norm.hpp"
#include "minnow/kernels/rms_norm.hpp"
#include "minnow/tensor.hpp"

using namespace minnow;

namespace {

// Rows whose results, all together, are written past the caches, and in two halves are not. The
// bits must be the same.
struct Data {
  Data(Index rows, Index cols)
      : x(Tensor<float>::normal({rows, cols}, 1, 2, RandomKey{1, 1, 0})),
        dy(Tensor<float>::normal({rows, cols}, 0, 1, RandomKey{2, 2, 0})),
        gamma(Tensor<float>::normal({cols}, 1, 1, RandomKey{3, 3, 0})) {}

  Tensor<float> x, dy, gamma;
};

using Rows = std::function<void(float* out, Index first, Index count)>;

void check_same_in_halves(Index rows, Index cols, const Rows& run) {
  REQUIRE(kernels::detail::goes_past_caches<float>(rows * cols, 16));
  REQUIRE_FALSE(kernels::detail::goes_past_caches<float>(rows / 2 * cols, 16));
  Tensor<float> whole({rows, cols}), halves({rows, cols});
  run(whole.data(), 0, rows);
  run(halves.data(), 0, rows / 2);
  run(halves.data() + rows / 2 * cols, rows / 2, rows - rows / 2);
  CHECK(std::ranges::equal(whole.values(), halves.values()));
}

}  // namespace

TEST_CASE("what is written past the caches is what is written to them") {
  struct Sizes {
    Index rows, cols;
  };
  for (const Sizes& sizes : {Sizes{4096, 1024},
                             {4096, 1029},
                             {80004, 56},
                             {37504, 112},
                             {600004, 7},
                             {300004, 14},
                             {90004, 47},
                             {46000, 93}}) {
    const Index rows = sizes.rows, cols = sizes.cols;
    CAPTURE(cols);
    const Data d(rows, cols);
    std::vector<float> mean(static_cast<std::size_t>(rows)), rstd(mean.size());

    check_same_in_halves(rows, cols, [&](float* y, Index first, Index count) {
      kernels::layer_norm_forward<float>(y, mean.data() + first, rstd.data() + first,
                                         d.x.data() + first * cols, d.gamma.data(), nullptr, count,
                                         cols, 1e-5);
    });
    check_same_in_halves(rows, cols, [&](float* dx, Index first, Index count) {
      kernels::layer_norm_backward<float>(dx, nullptr, nullptr, d.dy.data() + first * cols,
                                          d.x.data() + first * cols, mean.data() + first,
                                          rstd.data() + first, d.gamma.data(), count, cols);
    });
    check_same_in_halves(rows, cols, [&](float* y, Index first, Index count) {
      kernels::rms_norm_forward<float>(y, rstd.data() + first, d.x.data() + first * cols,
                                       d.gamma.data(), count, cols, 1e-5);
    });
    check_same_in_halves(rows, cols, [&](float* y, Index first, Index count) {
      const auto twice = [](Pack<float> v) { return v + v; };
      kernels::map(twice, y, count * cols, 1, d.x.data() + first * cols);
    });

    // A row is an image of two channels in one group.
    const Index channels = 2;
    const auto group_forward = [&](float* y, Index first, Index count) {
      kernels::group_norm_forward<float>(y, mean.data() + first, rstd.data() + first,
                                         d.x.data() + first * cols, d.gamma.data(), nullptr,
                                         count / channels, channels, cols, 1, 1e-5);
    };
    check_same_in_halves(rows, cols, group_forward);
    group_forward(Tensor<float>({rows, cols}).data(), 0, rows);
    check_same_in_halves(rows, cols, [&](float* dx, Index first, Index count) {
      kernels::group_norm_backward<float>(dx, nullptr, nullptr, d.dy.data() + first * cols,
                                          d.x.data() + first * cols, mean.data() + first / channels,
                                          rstd.data() + first / channels, d.gamma.data(),
                                          count / channels, channels, cols, 1);
    });

    // Batch norm's passes over everything at once.
    const std::vector<kernels::detail::Affine<float>> affine{{1, 2, 3}, {0.5f, -1, 0.25f}};
    check_same_in_halves(rows, cols, [&](float* y, Index first, Index count) {
      kernels::normalize_batch(y, d.x.data() + first * cols, affine.data(), count / channels,
                               channels, cols);
    });
    const std::vector<kernels::detail::GradientWeights<float>> weights{{1, 2, 3, 2, 1},
                                                                       {3, 1, 2, 3, 2}};
    check_same_in_halves(rows, cols, [&](float* dx, Index first, Index count) {
      kernels::gradient_batch(dx, d.dy.data() + first * cols, d.x.data() + first * cols,
                              weights.data(), count / channels, channels, cols);
    });
  }
}

TEST_CASE("batch norm takes a channel at a time past the caches") {
  // Planes whose distance is, and is not, a multiple of a pack.
  for (const Index hw : {4096, 4101}) {
    CAPTURE(hw);
    const Index n = 16, c = 68;
    REQUIRE(kernels::detail::channels_at_a_time<float>(n, c, hw, 2));
    REQUIRE(kernels::detail::goes_past_caches<float>(n * c * hw, 16));
    const auto x = Tensor<float>::normal({n, c, hw}, 3, 2, RandomKey{1, 2, 0}),
               dy = Tensor<float>::normal({n, c, hw}, 0, 1, RandomKey{1, 3, 0});
    Tensor<float> y({n, c, hw}), dx({n, c, hw}), dgamma(Shape{c}), dbeta(Shape{c}), mean(Shape{c}),
        rstd(Shape{c});
    kernels::batch_norm_forward<float>(y.data(), mean.data(), rstd.data(), nullptr, nullptr,
                                       x.data(), nullptr, nullptr, n, c, hw, 1e-5, 0.1);
    kernels::batch_norm_backward<float>(dx.data(), dgamma.data(), dbeta.data(), dy.data(), x.data(),
                                        mean.data(), rstd.data(), nullptr, n, c, hw);
    double worst_y = 0, worst_dx = 0;
    const double m = static_cast<double>(n * hw);
    for (Index i = 0; i < x.size(); ++i) {
      const Index ch = i / hw % c;
      const double r = static_cast<double>(rstd[ch]),
                   xhat = (static_cast<double>(x[i]) - static_cast<double>(mean[ch])) * r;
      const double expected = r * (static_cast<double>(dy[i]) - static_cast<double>(dbeta[ch]) / m -
                                   xhat * static_cast<double>(dgamma[ch]) / m);
      worst_y = std::max(worst_y, std::abs(static_cast<double>(y[i]) - xhat));
      worst_dx = std::max(worst_dx, std::abs(static_cast<double>(dx[i]) - expected));
    }
    CHECK(worst_y < 1e-5);
    CHECK(worst_dx < 1e-5);
  }
}
