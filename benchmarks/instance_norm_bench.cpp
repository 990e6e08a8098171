#include "minnow/nn/instance_norm.hpp"

#include "norm_bench.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
Group normalisation with as many groups as channels: each plane of each image is normalised by itself,
while it is in cache, by the same kernel. Forward, planes below eight registers are rows of layer norm,
gamma and beta a second pass in cache. Backward, planes smaller than a register are rows in lanes, in
blocks of whole images, so that what a lane holds belongs to the same channels in all blocks.
Minimal bytes of an element: forward 8 (read x, write y), backward 12 (read dy and x, write dx).
)";

void measure(Suite& suite, const ImageSize& s) {
  const Index n = s.n, c = s.c, hw = s.h * s.w;
  measure_norm(
      suite, {"instance_norm", s.text(), s.set, s.shape(), {c}, n * c, {s.n, s.c, s.h, s.w}},
      [=](const NormPointers& p) {
        kernels::group_norm_forward(p.y, p.mean, p.rstd, p.x, p.gamma, p.beta, n, c, hw, c, 1e-5);
      },
      [=](const NormPointers& p) {
        kernels::group_norm_backward(p.dx, p.dgamma, p.dbeta, p.dy, p.x, p.mean, p.rstd, p.gamma, n,
                                     c, hw, c);
      },
      [=](auto book, const NormPointers& p) {
        book.group_norm_forward(p.y, p.mean, p.rstd, p.x, p.gamma, p.beta, n, c, hw, c, 1e-5f);
      },
      [=](auto book, const NormPointers& p) {
        book.group_norm_backward(p.dx, p.dgamma, p.dbeta, p.dy, p.x, p.mean, p.rstd, p.gamma, n, c,
                                 hw, c);
      },
      [](const auto& v) { return composed::instance_norm(v[0], v[1], v[2], 1e-5); },
      [=](const auto& x, const auto& gamma, const auto& beta) {
        return nn::instance_norm(x, {}, {}, gamma, beta);
      });
}

}  // namespace

int main(int argc, char** argv) {
  return run("instance_norm", argc, argv, [](Suite& suite) {
    suite.about("Instance normalisation", how_it_works);
    for (const ImageSize& s : image_sizes())
      if (suite.wants(s.set, s.text(), s.quick)) measure(suite, s);
  });
}
