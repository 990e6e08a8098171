#include "minnow/nn/layer_norm.hpp"

#include "norm_bench.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
Each row (the last axis) has statistics of its own. Rows of one to eight registers are added up sixteen
at a time, two steps a row in place of a sum across lanes; the last register of a row ends where the row
ends, so there are no tails. Shorter rows would be mostly tails, so blocks of them are transposed in
registers, one row a lane, two sets side by side to hide the latency of the sums, and transposed back.
Longer rows fill registers by themselves. Forward, the loop that writes a row adds up the next one, so that
memory is read and written without a pause and a row's last sums, its root and its quotient have the time
of a whole row; backward, up to four rows go through each step side by side.
Backward: the two means of a row in one pass; in the second, dx and the rows' shares of dgamma and dbeta,
which stay in registers meanwhile. Chunks of rows have column sums of their own, added in a fixed order.
Minimal bytes of an element: forward 8 (read x, write y), backward 12 (read dy and x, write dx), and no
more pass the memory bus: results that fill the caches are written past them, rows that are not whole
registers by way of a block in L1.
)";

void measure(Suite& suite, const RowSize& s) {
  const Index rows = s.rows, cols = s.cols;
  measure_norm(
      suite, {"layer_norm", s.text, s.set, {rows, cols}, {cols}, rows, {rows, cols}},
      [=](const NormPointers& p) {
        kernels::layer_norm_forward(p.y, p.mean, p.rstd, p.x, p.gamma, p.beta, rows, cols, 1e-5);
      },
      [=](const NormPointers& p) {
        kernels::layer_norm_backward(p.dx, p.dgamma, p.dbeta, p.dy, p.x, p.mean, p.rstd, p.gamma,
                                     rows, cols);
      },
      [=](auto book, const NormPointers& p) {
        book.layer_norm_forward(p.y, p.mean, p.rstd, p.x, p.gamma, p.beta, rows, cols, 1e-5f);
      },
      [=](auto book, const NormPointers& p) {
        book.layer_norm_backward(p.dx, p.dgamma, p.dbeta, p.dy, p.x, p.mean, p.rstd, p.gamma, rows,
                                 cols);
      },
      [=](const auto& v) { return composed::layer_norm(v[0], {cols}, v[1], v[2], 1e-5); },
      [=](const auto& x, const auto& gamma, const auto& beta) {
        return nn::layer_norm(x, Shape{cols}, gamma, beta);
      });
}

}  // namespace

int main(int argc, char** argv) {
  return run("layer_norm", argc, argv, [](Suite& suite) {
    suite.about("Layer normalisation", how_it_works);
    for (const RowSize& s : row_sizes())
      if (suite.wants(s.set, s.text, s.quick)) measure(suite, s);
  });
}
