#include "minnow/kernels/moments.hpp"

#include <doctest/doctest.h>

#include "norm_reference.hpp"

using namespace minnow;
using namespace norm_reference;
using kernels::Moments;

namespace {

/// By definition, in long double: the mean first, then the distances from it.
template <class T>
Moments plain_moments(const T* x, Index count, Index runs = 1, Index stride = 0) {
  long double mean = 0, m2 = 0;
  const auto n = static_cast<long double>(count * runs);
  for (Index run = 0; run < runs; ++run)
    for (Index i = 0; i < count; ++i) mean += static_cast<long double>(x[run * stride + i]) / n;
  for (Index run = 0; run < runs; ++run)
    for (Index i = 0; i < count; ++i) {
      const long double d = static_cast<long double>(x[run * stride + i]) - mean;
      m2 += d * d;
    }
  return {static_cast<double>(n), static_cast<double>(mean), static_cast<double>(m2)};
}

/// Within `tolerance` standard deviations for the mean, and relatively for m2.
void check_close(const Moments& actual, const Moments& expected, double tolerance) {
  CHECK(actual.count == expected.count);
  CHECK(std::abs(actual.mean - expected.mean) <= tolerance * std::sqrt(expected.variance()));
  CHECK(std::abs(actual.m2 - expected.m2) <= tolerance * expected.m2);
}

}  // namespace

TEST_CASE_TEMPLATE("moments agree with their definition for any length and address", T, float,
                   double) {
  const Index W = Pack<T>::width;
  const auto x = numbers<T>(3 * 4096 + 9, 1);
  for (const Index count : {Index{1}, Index{2}, W - 1, W, W + 1, 2 * W, 3 * W + 1, 4 * W, 5 * W - 1,
                            7 * W + 3, Index{1023}, Index{4096}, Index{4097}, Index{3 * 4096}})
    for (const Index offset : {0, 1, 5}) {
      if (count == 0) continue;
      check_close(kernels::moments(x.data() + offset, count),
                  plain_moments(x.data() + offset, count), 1e-6);
    }
}

TEST_CASE_TEMPLATE("strided runs count as one set, and nothing between them is read", T, float,
                   double) {
  struct Case {
    Index count, runs, stride;
  };
  const Index W = Pack<T>::width;
  for (const Case& c : {Case{1, 5, 3}, Case{W + 1, 7, W + 2}, Case{25, 40, 50}, Case{3, 1, 3},
                        Case{4097, 3, 4100}, Case{3000, 2, 3001}}) {
    auto x = numbers<T>(c.runs * c.stride, 1);
    for (Index i = 0; i < x.size(); ++i)
      if (i % c.stride >= c.count) x[i] = std::numeric_limits<T>::quiet_NaN();
    check_close(kernels::moments(x.data(), c.count, c.runs, c.stride),
                plain_moments(x.data(), c.count, c.runs, c.stride), 1e-6);
  }
}

TEST_CASE_TEMPLATE("no numbers have no moments", T, float, double) {
  const T* nothing = nullptr;
  for (const Moments& none : {kernels::moments(nothing, 0), kernels::moments(nothing, 0, 5, 7),
                              kernels::moments(nothing, 5, 0, 7)}) {
    CHECK(none.count == 0);
    CHECK(none.mean == 0);
    CHECK(none.m2 == 0);
    CHECK(none.variance() == 0);
  }
  CHECK(kernels::sum_squares(nothing, 0) == 0);
}

TEST_CASE_TEMPLATE("a large mean costs the variance nothing", T, float, double) {
  for (const Index count : {50, 5000, 100000})
    for (const double deviation : {1.0, 0.01}) {
      const auto x = numbers<T>(count, 1, 1e4, deviation);
      check_close(kernels::moments(x.data(), count), plain_moments(x.data(), count), 1e-6);
    }
}

TEST_CASE_TEMPLATE("a pivot far from the mean costs no digits", T, float, double) {
  // The pivot is the mean of the first and last number and two between them: all four lie 1e4
  // deviations off, or at the far end of two clusters, or the mean is 30 deviations from 0.
  const Index count = 3001;
  auto outliers = numbers<T>(count, 1, 0, 1);
  for (const Index i : {0, 1000, 2000, 3000}) outliers[i] = T(1e4);
  auto clusters = numbers<T>(count, 2, 0, 0.01);
  for (Index i = 0; i < count; ++i)
    if (i % 1000 != 0) clusters[i] += T(1);
  auto zeros = numbers<T>(count, 3, 30, 1);
  for (const Index i : {0, 1000, 2000, 3000}) zeros[i] = T(0);
  for (const auto& x : {outliers, clusters, zeros}) {
    check_close(kernels::moments(x.data(), count), plain_moments(x.data(), count), 1e-6);
    // As runs with gaps, too.
    check_close(kernels::moments(x.data(), 500, 6, 500), plain_moments(x.data(), 500, 6, 500),
                1e-6);
  }
}

TEST_CASE_TEMPLATE("a constant has exactly itself for mean and no deviation", T, float, double) {
  for (const double constant : {0.1, -12345.678, 1e20, 1e30})
    for (const Index count : {1, 7, 100, 12345}) {
      const auto x = Tensor<T>::full({count}, static_cast<T>(constant));
      const Moments m = kernels::moments(x.data(), count);
      CHECK(m.mean == static_cast<double>(x[0]));
      CHECK(m.m2 == 0);
    }
}

TEST_CASE_TEMPLATE("squares may overflow the type of the numbers", T, float, double) {
  for (const Index count : {5, 1000, 9000}) {
    const auto x = numbers<T>(count, 1, 1e30, 1e30);
    check_close(kernels::moments(x.data(), count), plain_moments(x.data(), count), 1e-6);
    double squares = 0;
    for (Index i = 0; i < count; ++i)
      squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    CHECK(kernels::sum_squares(x.data(), count) == doctest::Approx(squares).epsilon(1e-12));
  }
}

TEST_CASE_TEMPLATE("what is not a number stays visible", T, float, double) {
  for (const T odd : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
    auto x = numbers<T>(100, 1);
    x[70] = odd;
    CHECK(std::isnan(kernels::moments(x.data(), 100).m2));
    CHECK(!std::isfinite(kernels::sum_squares(x.data(), 100)));
  }
}

TEST_CASE_TEMPLATE("sum_squares agrees with its definition", T, float, double) {
  const Index W = Pack<T>::width;
  const auto x = numbers<T>(10000, 1);
  for (const Index count : {Index{1}, W, W + 1, 3 * W + 1, Index{10000}}) {
    double squares = 0;
    for (Index i = 0; i < count; ++i)
      squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    CHECK(kernels::sum_squares(x.data(), count) == doctest::Approx(squares).epsilon(1e-6));
  }
}

TEST_CASE("merging two parts gives the moments of the whole") {
  const auto x = numbers<double>(100, 1, 1e4, 1);
  const Moments whole = plain_moments(x.data(), 100);
  for (const Index cut : {1, 30, 99})
    check_close(merge(plain_moments(x.data(), cut), plain_moments(x.data() + cut, 100 - cut)),
                whole, 1e-10);
  for (const Moments& same : {merge(whole, {}), merge({}, whole)}) {
    CHECK(same.count == whole.count);
    CHECK(same.mean == whole.mean);
    CHECK(same.m2 == whole.m2);
  }
  CHECK(kernels::merge({}, {}).count == 0);
}
