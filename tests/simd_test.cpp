#include "minnow/core/simd_lanes.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "minnow/core/simd_math.hpp"

using namespace minnow;

namespace {

template <class P>
using Value = typename P::value_type;

template <class P>
constexpr std::size_t width = static_cast<std::size_t>(P::width);

template <class P>
constexpr Value<P> nan_of = std::numeric_limits<Value<P>>::quiet_NaN();
template <class P>
constexpr Value<P> infinity_of = std::numeric_limits<Value<P>>::infinity();

/// The lanes of a pack.
template <class P>
std::vector<Value<P>> lanes(P pack) {
  std::vector<Value<P>> result(width<P>);
  pack.store(result.data());
  return result;
}

/// The first numbers of `values`, over and over, as a pack.
template <class P>
P repeat(const std::vector<Value<P>>& values) {
  std::vector<Value<P>> result(width<P>);
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = values[i % values.size()];
  return P::load(result.data());
}

template <class P>
P count_up(double from, double step = 1) {
  std::vector<Value<P>> result(width<P>);
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = static_cast<Value<P>>(from + step * static_cast<double>(i));
  return P::load(result.data());
}

/// How many representable numbers `actual` is from `expected`.
template <class T>
double ulps(T actual, double expected) {
  if (static_cast<double>(actual) == expected) return 0;
  const T nearest = static_cast<T>(expected);
  const T above = std::nextafter(std::abs(nearest), std::numeric_limits<T>::infinity());
  const double unit = static_cast<double>(above) - static_cast<double>(std::abs(nearest));
  return std::abs(static_cast<double>(actual) - expected) / unit;
}

}  // namespace

#define EVERY_PACK Pack<float>, Pack<double>, Lane<float>, Lane<double>

TEST_CASE_TEMPLATE("a pack loads and stores at any address", P, EVERY_PACK) {
  using T = Value<P>;
  std::vector<T> from(4 * width<P>), to(4 * width<P>, T(-1));
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<T>(i);
  for (std::size_t offset = 0; offset < 2 * width<P>; ++offset) {
    P::load(from.data() + offset).store(to.data() + offset + 1);
    for (std::size_t i = 0; i < width<P>; ++i) CHECK(to[offset + 1 + i] == from[offset + i]);
    CHECK(to[offset + 1 + width<P>] == -1);
  }
  for (const T lane : lanes(P(T(3)))) CHECK(lane == 3);
  for (const T lane : lanes(P::zero())) CHECK(lane == 0);
}

TEST_CASE_TEMPLATE("a partial load and store touch just the first lanes", P, EVERY_PACK) {
  using T = Value<P>;
  for (std::size_t count = 1; count < width<P>; ++count) {
    // Memory that ends at the last number: a sanitizer sees any read or write beyond.
    std::vector<T> from(count), to(count, T(-1));
    for (std::size_t i = 0; i < count; ++i) from[i] = static_cast<T>(i + 1);
    const P pack = P::load(from.data(), static_cast<Index>(count));
    for (std::size_t i = 0; i < width<P>; ++i)
      CHECK(lanes(pack)[i] == (i < count ? T(i + 1) : T(0)));
    pack.store(to.data(), static_cast<Index>(count));
    CHECK(to == from);
    std::vector<T> longer(width<P> + 1, T(-1));
    P(T(5)).store(longer.data(), static_cast<Index>(count));
    for (std::size_t i = 0; i < longer.size(); ++i) CHECK(longer[i] == (i < count ? T(5) : T(-1)));
  }
}

TEST_CASE_TEMPLATE("the first lanes of one pack and the rest of another make a third", P,
                   EVERY_PACK) {
  using T = Value<P>;
  const P a = count_up<P>(1, 1), b = count_up<P>(-1, -1);
  for (std::size_t count = 1; count < width<P>; ++count) {
    const auto first = lanes(a.first(static_cast<Index>(count))),
               both = lanes(join(a, b, static_cast<Index>(count)));
    for (std::size_t i = 0; i < width<P>; ++i) {
      CHECK(first[i] == (i < count ? lanes(a)[i] : T(0)));
      CHECK(both[i] == lanes(i < count ? a : b)[i]);
    }
  }
}

TEST_CASE_TEMPLATE("packs compute lane by lane", P, EVERY_PACK) {
  using T = Value<P>;
  const P a = count_up<P>(-3.5, 1.25), b = count_up<P>(2, 0.5), c = count_up<P>(7, -3);
  P added = a, subtracted = a, multiplied = a;
  added += b;
  subtracted -= b;
  multiplied *= b;
  for (std::size_t i = 0; i < width<P>; ++i) {
    const T x = lanes(a)[i], y = lanes(b)[i], z = lanes(c)[i];
    CHECK(lanes(a + b)[i] == x + y);
    CHECK(lanes(a - b)[i] == x - y);
    CHECK(lanes(a * b)[i] == x * y);
    CHECK(lanes(a / b)[i] == x / y);
    CHECK(lanes(-a)[i] == -x);
    CHECK(lanes(added)[i] == x + y);
    CHECK(lanes(subtracted)[i] == x - y);
    CHECK(lanes(multiplied)[i] == x * y);
    CHECK(lanes(fma(a, b, c))[i] == doctest::Approx(x * y + z));
    CHECK(lanes(max(a, c))[i] == std::max(x, z));
    CHECK(lanes(min(a, c))[i] == std::min(x, z));
    CHECK(lanes(abs(a))[i] == std::abs(x));
    CHECK(lanes(sqrt(b))[i] == std::sqrt(y));
  }
  CHECK(std::signbit(lanes(-P::zero())[0]));
}

TEST_CASE_TEMPLATE("a selection goes by the comparison, which is false for NaN", P, EVERY_PACK) {
  using T = Value<P>;
  const T inf = infinity_of<P>, nan = nan_of<P>;
  const std::vector<T> left{1, 2, 3, nan, 1, -inf, T(-0.0), inf},
      right{2, 2, 2, 1, nan, inf, 0, inf};
  for (std::size_t i = 0; i < left.size(); ++i) {
    CAPTURE(i);
    const P a(left[i]), b(right[i]), yes(T(1)), no(T(0));
    CHECK(lanes(select_less(a, b, yes, no))[0] == T(left[i] < right[i]));
    CHECK(lanes(select_less_equal(a, b, yes, no))[0] == T(left[i] <= right[i]));
    CHECK(lanes(select_equal(a, b, yes, no))[0] == T(left[i] == right[i]));
  }
  // Lane by lane, not all at once.
  const P mixed = select_less(count_up<P>(0), P(T(1)), P(T(7)), count_up<P>(0));
  for (std::size_t i = 0; i < width<P>; ++i) CHECK(lanes(mixed)[i] == (i == 0 ? T(7) : T(i)));
}

TEST_CASE_TEMPLATE("a lane is kept by a half of its word or cleared, even of infinity", P,
                   EVERY_PACK) {
  using T = Value<P>;
  for (const std::uint32_t least : {0u, 1u, 0x8001u, 0xFFFFu, 0x10000u}) {
    const std::uint32_t some[] = {0x8001FFFFu, 0, 0xFFFF8000u, ~0u, 1, 0x80008001u};
    std::vector<std::uint32_t> words(width<P>);
    for (std::size_t begin = 0; begin < std::size(some); ++begin)
      for (const bool upper : {false, true}) {
        for (std::size_t i = 0; i < width<P>; ++i) words[i] = some[(begin + i) % std::size(some)];
        const auto kept = lanes(keep_at_least(count_up<P>(1), words.data(), upper, least));
        const auto infinite = lanes(keep_at_least(P(infinity_of<P>), words.data(), upper, least));
        for (std::size_t i = 0; i < width<P>; ++i) {
          const bool keeps = (upper ? words[i] / 65536 : words[i] % 65536) >= least;
          CHECK(kept[i] == (keeps ? T(i + 1) : T(0)));
          CHECK(infinite[i] == (keeps ? infinity_of<P> : T(0)));
        }
      }
  }
}

TEST_CASE_TEMPLATE("lanes add up to their sum, and the largest of them is found anywhere", P,
                   EVERY_PACK) {
  using T = Value<P>;
  const T n = static_cast<T>(P::width);
  CHECK(sum(count_up<P>(1)) == n * (n + 1) / 2);
  for (std::size_t place = 0; place < width<P>; ++place) {
    std::vector<T> values(width<P>, T(-5));
    values[place] = -2;
    CHECK(max(P::load(values.data())) == -2);
  }
}

TEST_CASE_TEMPLATE("holding a pack changes nothing", P, EVERY_PACK) {
  P pack = count_up<P>(1);
  hold(pack);
  CHECK(lanes(pack) == lanes(count_up<P>(1)));
}

TEST_CASE_TEMPLATE("elementary functions are within a few units in the last place", P, EVERY_PACK) {
  using T = Value<P>;
  struct Case {
    const char* name;
    P (*pack)(P);
    double (*reference)(double);
    double low, high, bound;
  };
  const double exp_high = sizeof(T) == 4 ? 88.72 : 709.5;
  const double exp_low = sizeof(T) == 4 ? -87.3 : -708;
  const Case cases[] = {
      {"exp", [](P a) { return exp(a); }, [](double x) { return std::exp(x); }, exp_low, exp_high,
       5},
      {"log", [](P a) { return log(a); }, [](double x) { return std::log(x); }, 1e-6, 100, 3},
      {"tanh", [](P a) { return tanh(a); }, [](double x) { return std::tanh(x); }, -10, 10, 8},
      {"erf", [](P a) { return erf(a); }, [](double x) { return std::erf(x); }, -4, 4, 1.5},
  };
  for (const Case& c : cases) {
    CAPTURE(std::string(c.name));
    double worst = 0, at = 0;
    const int steps = 20000;
    for (int i = 0; i <= steps; i += static_cast<int>(P::width)) {
      const P x = count_up<P>(c.low + (c.high - c.low) * i / steps, (c.high - c.low) / steps);
      const auto inputs = lanes(x), outputs = lanes(c.pack(x));
      for (std::size_t k = 0; k < width<P>; ++k) {
        const double in = static_cast<double>(inputs[k]);
        if (in > c.high) continue;
        const double distance = ulps(outputs[k], c.reference(in));
        if (distance > worst) worst = distance, at = in;
      }
    }
    CAPTURE(at);
    CHECK(worst < c.bound);
  }
}

TEST_CASE_TEMPLATE("elementary functions are right at the ends of their range", P, EVERY_PACK) {
  using T = Value<P>;
  const T inf = infinity_of<P>;
  const auto at = [](auto function, T x) { return lanes(function(P(x)))[0]; };
  const auto exp_ = [](P a) { return exp(a); };
  CHECK(at(exp_, 0) == 1);
  CHECK(at(exp_, -inf) == 0);
  CHECK(at(exp_, -1000) == 0);
  CHECK(at(exp_, 1000) == inf);
  CHECK(at(exp_, inf) == inf);
  CHECK(std::isnan(at(exp_, nan_of<P>)));
  const auto sqrt_ = [](P a) { return sqrt(a); };
  CHECK(at(sqrt_, 0) == 0);
  CHECK(at(sqrt_, inf) == inf);
  CHECK(at(sqrt_, std::numeric_limits<T>::min() / 4) > 0);
  CHECK(std::isnan(at(sqrt_, -1)));
  const auto log_ = [](P a) { return log(a); };
  CHECK(at(log_, 1) == 0);
  CHECK(at(log_, 0) == -inf);
  CHECK(at(log_, inf) == inf);
  CHECK(std::isnan(at(log_, -1)));
  CHECK(std::isnan(at(log_, nan_of<P>)));
  const auto tanh_ = [](P a) { return tanh(a); };
  // Eigen's rational function ends a few units off on NEON.
#if defined(EIGEN_VECTORIZE_NEON)
  constexpr double rounding = 2e-7;
#else
  constexpr double rounding = 1e-7;
#endif
  CHECK(at(tanh_, 0) == 0);
  CHECK(at(tanh_, 100) == doctest::Approx(1).epsilon(rounding));
  CHECK(at(tanh_, -inf) == doctest::Approx(-1).epsilon(rounding));
  CHECK(std::isnan(at(tanh_, nan_of<P>)));
  const auto erf_ = [](P a) { return erf(a); };
  CHECK(at(erf_, inf) == 1);
  CHECK(at(erf_, 0) == 0);
}

TEST_CASE_TEMPLATE("two packs are dealt out to even and odd and joined again", P, EVERY_PACK) {
  using T = Value<P>;
  const P a = count_up<P>(0), b = count_up<P>(static_cast<double>(P::width));
  P even, odd, first, second;
  deinterleave(a, b, even, odd);
  for (std::size_t i = 0; i < width<P>; ++i) {
    CHECK(lanes(even)[i] == T(2 * i));
    CHECK(lanes(odd)[i] == T(2 * i + 1));
  }
  interleave(even, odd, first, second);
  CHECK(lanes(first) == lanes(a));
  CHECK(lanes(second) == lanes(b));
}

TEST_CASE_TEMPLATE("three and four packs are dealt out in turn", P, EVERY_PACK) {
  using T = Value<P>;
  const auto check = []<int n>(std::integral_constant<int, n>) {
    P from[n], to[n];
    for (int q = 0; q < n; ++q) from[q] = count_up<P>(static_cast<double>(q * P::width));
    deinterleave(from, to);
    for (std::size_t p = 0; p < n; ++p)
      for (std::size_t i = 0; i < width<P>; ++i) CHECK(lanes(to[p])[i] == T(i * n + p));
  };
  check(std::integral_constant<int, 3>());
  check(std::integral_constant<int, 4>());
}

TEST_CASE_TEMPLATE("a square of packs is transposed", P, EVERY_PACK) {
  using T = Value<P>;
  P rows[width<P>];
  for (std::size_t i = 0; i < width<P>; ++i) rows[i] = count_up<P>(static_cast<double>(100 * i));
  transpose(rows);
  for (std::size_t i = 0; i < width<P>; ++i)
    for (std::size_t j = 0; j < width<P>; ++j) CHECK(lanes(rows[i])[j] == T(100 * j + i));
}
