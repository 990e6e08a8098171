#include "minnow/nn/group_norm.hpp"

#include "norm_bench.hpp"

using namespace bench;

namespace {

constexpr const char* how_it_works = R"(
A group of channels of one image is one run of memory with statistics of its own, so all that happens
to it happens while it is in cache: sum, sum of squared distances, and the pass that writes y, in which
the next group is added up if both fit the first-level cache.
Backward likewise: the sums of dy and dy * xhat of each plane are at once the terms of dgamma and
dbeta and, weighted by gamma, the two means that dx needs; then dx is written from numbers that are
still in cache. Chunks of groups run in parallel, each with sums of its own for dgamma and dbeta,
added in a fixed order, two numbers a channel: what comes from another core comes slowly. Groups of up to eight registers go forward by layer norm's kernels for rows of
that length, and gamma and beta follow while y is in cache. Where channels are small, groups are rows
whose columns have scales of their own, several side by side: while one waits, the others compute.
Minimal bytes of an element: forward 8 (read x, write y), backward 12 (read dy and x, write dx), and no
more pass the memory bus as long as a group fits the second-level cache.
)";

void measure(Suite& suite, const ImageSize& s) {
  const Index n = s.n, c = s.c, hw = s.h * s.w, groups = s.groups;
  measure_norm(
      suite,
      {"group_norm",
       s.text() + ", " + std::to_string(groups) + " groups",
       s.set,
       s.shape(),
       {c},
       n * groups,
       {s.n, s.c, s.h, s.w, groups}},
      [=](const NormPointers& p) {
        kernels::group_norm_forward(p.y, p.mean, p.rstd, p.x, p.gamma, p.beta, n, c, hw, groups,
                                    1e-5);
      },
      [=](const NormPointers& p) {
        kernels::group_norm_backward(p.dx, p.dgamma, p.dbeta, p.dy, p.x, p.mean, p.rstd, p.gamma, n,
                                     c, hw, groups);
      },
      [=](auto book, const NormPointers& p) {
        book.group_norm_forward(p.y, p.mean, p.rstd, p.x, p.gamma, p.beta, n, c, hw, groups, 1e-5f);
      },
      [=](auto book, const NormPointers& p) {
        book.group_norm_backward(p.dx, p.dgamma, p.dbeta, p.dy, p.x, p.mean, p.rstd, p.gamma, n, c,
                                 hw, groups);
      },
      [=](const auto& v) { return composed::group_norm(v[0], groups, v[1], v[2], 1e-5); },
      [=](const auto& x, const auto& gamma, const auto& beta) {
        return nn::group_norm(x, groups, gamma, beta);
      });
}

}  // namespace

int main(int argc, char** argv) {
  return run("group_norm", argc, argv, [](Suite& suite) {
    suite.about("Group normalisation", how_it_works);
    for (const ImageSize& s : image_sizes())
      if (suite.wants(s.set, s.text(), s.quick)) measure(suite, s);
  });
}
