#include "minnow/nn/batch_norm.hpp"

#include "norm_bench.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
Forward: mean and variance of each channel over all images, then y = (x - mean) * rstd * gamma + beta.
One pass adds up the distances from a number near the middle of each channel's, and their squares, image
by image, because memory is fastest where it is read on and on; a second normalises, from the end to the
beginning, because the end is still in the second-level cache. The sums of blocks of about a thousand
numbers a channel are added in double and in a fixed order, whatever the number of threads. Where planes
are long and a channel's numbers fit the second-level cache, a thread takes one channel through both
passes: memory is read and written once. That is not done where the arrays have just outgrown the
third-level cache, since distant planes are slow to read from there. Backward: one pass sums dy and
dy * xhat, a second writes dx, cut in the same way.
Planes below 32 numbers are read as rows of a matrix, lanes across its columns; a thread adds its
columns up to channels before it hands them over, since a line comes slowly from another core.
Minimal bytes of an element: forward 8 (read x, write y), backward 12 (read dy and x, write dx).
)";

void measure(Suite& suite, const ImageSize& s) {
  const Index n = s.n, c = s.c, hw = s.h * s.w;
  measure_norm(
      suite, {"batch_norm", s.text(), s.set, s.shape(), {c}, c, {s.n, s.c, s.h, s.w}},
      [=](const NormPointers& p) {
        float* const no_running = nullptr;
        kernels::batch_norm_forward(p.y, p.mean, p.rstd, no_running, no_running, p.x, p.gamma,
                                    p.beta, n, c, hw, 1e-5, 0.1);
      },
      [=](const NormPointers& p) {
        kernels::batch_norm_backward(p.dx, p.dgamma, p.dbeta, p.dy, p.x, p.mean, p.rstd, p.gamma, n,
                                     c, hw);
      },
      [=](auto book, const NormPointers& p) {
        book.batch_norm_forward(p.y, p.mean, p.rstd, p.x, p.gamma, p.beta, n, c, hw, 1e-5f);
      },
      [=](auto book, const NormPointers& p) {
        book.batch_norm_backward(p.dx, p.dgamma, p.dbeta, p.dy, p.x, p.mean, p.rstd, p.gamma, n, c,
                                 hw);
      },
      [](const auto& v) { return composed::batch_norm(v[0], v[1], v[2], 1e-5).y; },
      [running_mean = Tensor<float>::zeros({c}), running_var = Tensor<float>::ones({c})](
          const auto& x, const auto& gamma, const auto& beta) {
        return nn::batch_norm(x, running_mean, running_var, gamma, beta, true);
      });
}

}  // namespace

int main(int argc, char** argv) {
  return run("batch_norm", argc, argv, [](Suite& suite) {
    suite.about("Batch normalisation", how_it_works);
    for (const ImageSize& s : image_sizes())
      if (suite.wants(s.set, s.text(), s.quick)) measure(suite, s);
  });
}
