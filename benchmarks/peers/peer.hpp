#pragma once
/// @file
/// Another library on the same work, in a module that benchmarks load when they are told to.
/// Without a word of minnow in it, so that its headers may be compiled by the standard they were
/// written for.

#include <functional>
#include <string>
#include <vector>

namespace bench {

/// What is timed, as a peer sees it.
///
///     layer            sizes
///     batch_norm       n, c, h, w          training, with scale and shift; so the other norms
///     instance_norm    n, c, h, w
///     group_norm       n, c, h, w, groups
///     layer_norm       rows, cols
///     conv2d           n, c, h, w, k, kernel, padding, groups   stride 1, no bias
///     max_pool2d       n, c, h, w, kernel  stride as the kernel; so avg_pool2d
///     dropout          elements
///     relu, gelu, ...  elements
///     softmax          rows, cols          so log_softmax, cross_entropy
///     linear           n, in, out          with bias
///     sgd, adam        the number of elements of each parameter
///     train_step       n                   of the networks of seed_net.hpp
///     inference        n                   of the same
///     stage            n, c, h, k, kernel  convolution, norm, dropout and relu
struct Work {
  std::string layer, direction;  ///< "forward", "backward", "backward data", "backward weights"
  std::vector<long> sizes;
  std::string norm = {};  ///< "batch", "group" or "layer", for whole nets and stages
  double dropout = 0;
};

/// One way in which a peer does it.
struct PeerWay {
  std::string name;  ///< "oneDNN nchw"
  std::function<void()> run;
};

class Peer {
 public:
  virtual ~Peer() = default;
  /// Name and version.
  virtual std::string version() const = 0;
  virtual void set_num_threads(int threads) = 0;
  /// None where the library has no such thing. Memory is held by the ways.
  virtual std::vector<PeerWay> ways(const Work& work) = 0;
};

}  // namespace bench

/// What a module of a peer exports; the peer lives as long as the program.
extern "C" bench::Peer* minnow_bench_peer();
