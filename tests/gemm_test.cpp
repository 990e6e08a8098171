#include "minnow/kernels/gemm.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "exact.hpp"

using namespace minnow;
using exact::integers;
using exact::normals;
using exact::Numbers;
using exact::Place;

namespace {

struct Sizes {
  Index m, n, k;
};

template <class T>
Numbers<T> transposed(const Numbers<T>& a, Index rows, Index cols, Place place) {
  Numbers<T> result(rows * cols, place);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) result[j * rows + i] = a[i * cols + j];
  return result;
}

/// All four transposes of one product of integers, in both places in memory.
template <class T>
void check_product(Index m, Index n, Index k) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  for (const Place place : {Place::exact, Place::unaligned}) {
    const auto a = integers<T>(m * k, 1, place), b = integers<T>(k * n, 2, place);
    const auto at = transposed(a, m, k, place), bt = transposed(b, k, n, place);
    Numbers<T> expected(m * n, Place::exact, 0);
    for (Index i = 0; i < m; ++i)
      for (Index r = 0; r < k; ++r)
        for (Index j = 0; j < n; ++j) expected[i * n + j] += a[i * k + r] * b[r * n + j];
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true}) {
        CAPTURE(transpose_a);
        CAPTURE(transpose_b);
        Numbers<T> c(m * n, place);
        kernels::gemm(c.data(), (transpose_a ? at : a).data(), (transpose_b ? bt : b).data(), m, n,
                      k, transpose_a, transpose_b);
        REQUIRE(exact::first_difference(c, expected) == -1);
        REQUIRE(c.intact());
      }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("a product of integers is exact for every transpose", T, float, double) {
  constexpr Index w = Pack<T>::width;
  SUBCASE("small") {
    for (Index m : {Index{0}, Index{1}, Index{2}, Index{5}, Index{8}, Index{9}, w + 1})
      for (Index n : {Index{0}, Index{1}, Index{2}, Index{5}, w - 1, w, w + 1, 3 * w + 1})
        for (Index k : {Index{0}, Index{1}, Index{2}, Index{9}, w - 1, w, w + 1, 3 * w + 1})
          check_product<T>(m, n, k);
  }
  SUBCASE("one large size") {
    for (Index large : {47, 48, 49, 100, 170, 171, 341})
      for (Index small : {2, 7}) {
        check_product<T>(large, small, small + 1);
        check_product<T>(small, large, small + 1);
        check_product<T>(small, small + 1, large);
      }
  }
  SUBCASE("around the depth that is summed in one go") {
    constexpr Index depth = kernels::detail::gemm_depth<T>;
    for (Index k : {depth - 1, depth, depth + 1, 2 * depth, 2 * depth + 3})
      check_product<T>(9, kernels::tile_cols<T> + 1, k);
  }
  SUBCASE("several blocks of rows and columns") {
    check_product<T>(49, 170, 100);
    check_product<T>(171, 48, 49);
    check_product<T>(16 * kernels::tile_rows + 3, 3 * kernels::tile_cols<T> + 5, 171);
    check_product<T>(48 * kernels::tile_rows, 6 * kernels::tile_cols<T> + 1, 10);
  }
}

TEST_CASE_TEMPLATE("a vector times a matrix is exact for every transpose", T, float, double) {
  constexpr Index w = Pack<T>::width;
  for (Index size : {Index{1}, Index{2}, w - 1, w, w + 1, 3 * w + 1, 4 * w - 1, 4 * w, 4 * w + 1,
                     5 * w, 8 * w + w / 2, 11 * w + 1, Index{341}, Index{3000}})
    for (Index k :
         {Index{0}, Index{1}, Index{2}, w - 1, w, w + 1, 4 * w, 4 * w + 1, 7 * w + 3, Index{170}}) {
      check_product<T>(1, size, k);
      check_product<T>(size, 1, k);
    }
  check_product<T>(1, 1, 3000);
}

TEST_CASE_TEMPLATE("the error of a product is within k roundings of the terms' magnitudes", T,
                   float, double) {
  for (const Sizes& s : {Sizes{9, 49, 500}, {1, 49, 500}, {49, 1, 500}}) {
    const Index m = s.m, n = s.n, k = s.k;
    CAPTURE(m);
    CAPTURE(n);
    auto a = normals<T>(m * k, 1);
    const auto b = normals<T>(k * n, 2);
    for (Index i = 0; i < m * k; ++i) a[i] += T(1e4);
    Numbers<T> c(m * n);
    kernels::gemm(c.data(), a.data(), b.data(), m, n, k);
    for (Index i = 0; i < m; ++i)
      for (Index j = 0; j < n; ++j) {
        long double sum = 0, magnitude = 0;
        for (Index r = 0; r < k; ++r) {
          const long double term =
              static_cast<long double>(a[i * k + r]) * static_cast<long double>(b[r * n + j]);
          sum += term;
          magnitude += std::abs(term);
        }
        const auto bound =
            static_cast<long double>(k) * std::numeric_limits<T>::epsilon() / 2 * magnitude;
        REQUIRE(std::abs(static_cast<long double>(c[i * n + j]) - sum) <= bound);
      }
  }
}

TEST_CASE_TEMPLATE("products have the same bits for any number of threads", T, float, double) {
  for (const Sizes& s :
       {Sizes{300, 170, 200}, {3, 400, 900}, {1, 3000, 170}, {3000, 1, 170}, {1, 9, 30000}})
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true}) {
        const Index m = s.m, n = s.n, k = s.k;
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(transpose_a);
        CAPTURE(transpose_b);
        const auto a = normals<T>(m * k, 1), b = normals<T>(k * n, 2);
        const auto product = [&](int threads) {
          const exact::Threads scope(threads);
          Numbers<T> c(m * n);
          kernels::gemm(c.data(), a.data(), b.data(), m, n, k, transpose_a, transpose_b);
          return c;
        };
        const auto one = product(1);
        for (const int threads : {2, 4}) {
          const auto c = product(threads);
          CHECK(std::memcmp(one.data(), c.data(), static_cast<std::size_t>(m * n) * sizeof(T)) ==
                0);
        }
      }
}

TEST_CASE_TEMPLATE("rows of 1e30 give finite and right products", T, float, double) {
  const Index m = 3, n = 20, k = 5;
  const Numbers<T> a(m * k, Place::exact, T(1e30));
  Numbers<T> b(k * n, Place::exact, T(0)), c(m * n);
  for (Index j = 0; j < n; ++j) b[(j % k) * n + j] = T(2);
  kernels::gemm(c.data(), a.data(), b.data(), m, n, k);
  for (Index i = 0; i < m * n; ++i) CHECK(c[i] == T(2) * T(1e30));
}
