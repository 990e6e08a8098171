#include "minnow/nn/rms_norm.hpp"

#include "norm_bench.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
Layer normalisation without the mean: y = x * rstd * gamma, rstd = 1 / sqrt(mean(x^2) + eps). The same
code, with the passes over the mean left out at compile time; rows below a register lie in lanes, and of long
rows the next is added up while one is written. Backward: one mean instead of two.
Minimal bytes of an element: forward 8 (read x, write y), backward 12 (read dy and x, write dx).
)";

void measure(Suite& suite, const RowSize& s) {
  const Index rows = s.rows, cols = s.cols;
  measure_norm(
      suite, {"rms_norm", s.text, s.set, {rows, cols}, {cols}, rows, {rows, cols}, false},
      [=](const NormPointers& p) {
        kernels::rms_norm_forward(p.y, p.rstd, p.x, p.gamma, rows, cols, 1e-5);
      },
      [=](const NormPointers& p) {
        kernels::rms_norm_backward(p.dx, p.dgamma, p.dy, p.x, p.rstd, p.gamma, rows, cols);
      },
      [=](auto book, const NormPointers& p) {
        book.layer_norm_forward(p.y, nullptr, p.rstd, p.x, p.gamma, nullptr, rows, cols, 1e-5f);
      },
      [=](auto book, const NormPointers& p) {
        book.layer_norm_backward(p.dx, p.dgamma, nullptr, p.dy, p.x, nullptr, p.rstd, p.gamma, rows,
                                 cols);
      },
      [=](const auto& v) { return composed::rms_norm(v[0], {cols}, v[1], 1e-5); },
      [=](const auto& x, const auto& gamma, const auto&) {
        return nn::rms_norm(x, Shape{cols}, gamma, 1e-5);
      });
}

}  // namespace

int main(int argc, char** argv) {
  return run("rms_norm", argc, argv, [](Suite& suite) {
    suite.about("RMS normalisation", how_it_works);
    for (const RowSize& s : row_sizes())
      if (suite.wants(s.set, s.text, s.quick)) measure(suite, s);
  });
}
