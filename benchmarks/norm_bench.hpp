#pragma once
/// @file
/// What the benchmarks of the normalisations share: the sizes, and how one is measured.

#include "oracle.hpp"
#include "textbook.hpp"

namespace bench {

/// Images [n, c, h, w] and into how many groups group norm cuts the channels.
struct ImageSize {
  std::string set;
  Index n, c, h, w, groups = 2;
  bool quick = false;  ///< measured in quick runs, too

  Shape shape() const { return {n, c, h, w}; }
  std::string text() const { return shape_text({n, c, h, w}); }
};

inline std::vector<ImageSize> image_sizes() {
  std::vector<ImageSize> sizes{{"seed", 128, 8, 26, 26},      {"seed", 128, 8, 24, 24},
                               {"seed", 128, 8, 22, 22},      {"seed", 128, 12, 9, 9},
                               {"seed", 128, 14, 7, 7},       {"seed", 128, 8, 7, 7},
                               {"seed", 128, 26, 5, 5},       {"seed", 128, 50, 5, 5},
                               {"wide", 32, 64, 56, 56, 32},  {"wide", 32, 256, 14, 14, 32, true},
                               {"wide", 8, 64, 112, 112, 32}, {"one", 1, 8, 26, 26},
                               {"one", 1, 64, 56, 56, 32}};
  for (const Index size : {5, 7, 9, 22, 24, 26}) sizes.push_back({"tiny", 128, 64, 1, size});
  for (const Index size : {257, 301, 1023}) sizes.push_back({"odd", 32, 62, 1, size});
  sizes.push_back({"odd", 32, 64, 55, 55, 32});
  for (const Index n : {1, 4, 16, 64, 256, 1024, 4096})
    sizes.push_back({"sweep", n, 16, 16, 16, 2, n == 1 || n == 16 || n == 256});
  return sizes;
}

/// Rows to be normalised, and the images they are taken from, if any.
struct RowSize {
  std::string set;
  Index rows, cols;
  std::string text;
  bool quick = false;
};

inline std::vector<RowSize> row_sizes() {
  std::vector<RowSize> sizes;
  const auto add = [&](const std::string& set, Index rows, Index cols, bool quick = false) {
    sizes.push_back({set, rows, cols, shape_text({rows, cols}), quick});
  };
  for (const ImageSize& s : image_sizes())
    if (s.set == "seed" || s.set == "wide" || s.set == "one")
      sizes.push_back({s.set, s.n * s.c * s.h, s.w, s.text(), s.quick});
  add("rows", 4096, 768, true);
  add("rows", 8192, 1024);
  add("rows", 65536, 26, true);
  for (const Index cols : {5, 7, 9, 22, 24, 26}) add("tiny", (1 << 18) / cols, cols);
  for (const Index cols : {257, 301, 1023}) add("odd", (1 << 20) / cols, cols);
  add("one", 1, 26);
  add("one", 1, 1024);
  for (const Index cols : {4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 4096, 16384})
    add("sweep", (1 << 20) / cols, cols, cols == 8 || cols == 64 || cols == 1024);
  return sizes;
}

/// A textbook's sums in one float lose digits; they are not ours to repair.
inline constexpr double textbook_tolerance = 1e-2;

/// The arrays of one measurement, as kernels take them.
struct NormPointers {
  float *y, *dx, *dgamma, *dbeta, *mean, *rstd;
  const float *x, *dy, *gamma, *beta;
};

struct NormCase {
  std::string layer, shape, set;
  Shape x, parameters;
  Index statistics;         ///< how many means
  std::vector<long> sizes;  ///< for peers
  bool has_beta = true;
};

/// Measures forward and backward. `forward(p)` and `backward(p)` call the kernels with
/// NormPointers, `book_forward(book, p)` and `book_backward(book, p)` a Textbook; `formula(v)` is
/// the oracle of x, gamma and beta, `layer(x, gamma, beta)` the differentiable function.
template <class Forward, class Backward, class BookForward, class BookBackward, class Formula,
          class Layer>
void measure_norm(Suite& suite, const NormCase& c, const Forward& forward, const Backward& backward,
                  const BookForward& book_forward, const BookBackward& book_backward,
                  const Formula& formula, const Layer& layer) {
  const auto x = normal(c.x, 1), dy = normal(c.x, 2), gamma = normal(c.parameters, 3);
  const auto beta = c.has_beta ? normal(c.parameters, 4) : Tensor<float>();
  Tensor<float> y(c.x), dx(c.x), dgamma(c.parameters), dbeta(c.parameters);
  Tensor<float> mean(Shape{c.statistics}), rstd(Shape{c.statistics});
  const NormPointers p{y.data(),    dx.data(), dgamma.data(), dbeta.data(), mean.data(),
                       rstd.data(), x.data(),  dy.data(),     gamma.data(), beta.data()};
  const Oracle right = oracle(formula, {x, gamma, beta}, dy);
  Outputs of_forward, of_backward;
  of_forward.expect(y, right.y);
  of_backward.expect(dx, right.gradients[0]);
  of_backward.expect(dgamma, right.gradients[1]);
  if (c.has_beta) of_backward.expect(dbeta, right.gradients[2]);

  const auto book = [&](const char* name, auto run) {
    return Way{.name = name, .run = run, .serial = true, .tolerance = textbook_tolerance};
  };
  const Variable<float> vx(x, true), vgamma(gamma, true);
  const Variable<float> vbeta = c.has_beta ? Variable<float>(beta, true) : Variable<float>();
  const auto function = [=] { return layer(vx, vgamma, vbeta); };
  Gradients gradients{{vx, dx}, {vgamma, dgamma}};
  if (c.has_beta) gradients.emplace_back(vbeta, dbeta);

  const double elements = static_cast<double>(x.size()), size = sizeof(float);
  // Operations an element: sum, squared distance (3), normalisation (3); two sums (4), dx (5).
  suite.measure({.layer = c.layer,
                 .direction = "forward",
                 .shape = c.shape,
                 .set = c.set,
                 .elements = elements,
                 .bytes = 2 * size * elements,
                 .flops = 7 * elements},
                of_forward,
                {book("naive", [=] { book_forward(Naive(), p); }),
                 book("vectorised", [=] { book_forward(Vectorised(), p); }),
                 {"minnow", [=] { forward(p); }},
                 layer_forward(function, y)},
                {c.layer, "forward", c.sizes});
  forward(p);  // for the statistics
  suite.measure({.layer = c.layer,
                 .direction = "backward",
                 .shape = c.shape,
                 .set = c.set,
                 .elements = elements,
                 .bytes = 3 * size * elements,
                 .flops = 9 * elements},
                of_backward,
                {book("naive", [=] { book_backward(Naive(), p); }),
                 book("vectorised", [=] { book_backward(Vectorised(), p); }),
                 {"minnow", [=] { backward(p); }},
                 layer_backward(function(), dy, gradients)},
                {c.layer, "backward", c.sizes});
}

}  // namespace bench
