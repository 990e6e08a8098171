#pragma once
/// @file
/// What all benchmarks share: every way to compute something is compared with the oracle first,
/// then all are timed in turns by Google Benchmark, printed, and written down for the report.

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "minnow/autograd.hpp"
#include "peers/peer.hpp"

namespace bench {

using namespace minnow;

/// What is measured, and what it must cost at least.
struct Row {
  std::string layer, direction, shape;
  /// Rows of a set stand in one table: "seed" (of the three MNIST networks, and summed up), "wide",
  /// "depthwise", "rows", "tiny", "odd", "one" (a batch of one), "sweep" (a curve over sizes).
  std::string set;
  double elements = 0;
  double bytes = 0;  ///< by the minimal byte model: each tensor is read or written once
  double flops = 0;
  /// Bound by arithmetic, so held against the multiply-add peak; other rows against a copy of as
  /// many bytes.
  bool computes = false;
};

/// One way to compute a row's outputs.
struct Way {
  std::string name;
  std::function<void()> run;
  /// Brings results to where `Outputs` looks for them, where `run` left them elsewhere. Not timed.
  std::function<void()> finish = {};
  std::function<void()> prepare = {};  ///< called before the run that is checked, for state
  bool serial = false;                 ///< for one thread only
  double tolerance = 1e-4;             ///< a larger error is not timed
};

/// What a row's ways write, and what it should be.
class Outputs {
 public:
  enum class Measure { largest, root_mean_square };
  explicit Outputs(Measure measure = Measure::largest) : measure_(measure) {}

  void expect(const Tensor<float>& actual, const Tensor<double>& expected);
  void poison();
  /// The largest |actual - expected| / max(|expected|, their root mean square) of all elements;
  /// or, for whole networks, in which a number next to zero may fall on either side of a relu, the
  /// root mean square of the differences over that of what is expected.
  double error() const;

 private:
  Measure measure_;
  std::vector<std::pair<Tensor<float>, Tensor<double>>> pairs_;
};

/// The run of a program: what was asked for, and what has been measured.
class Suite {
 public:
  virtual ~Suite() = default;

  virtual bool quick() const = 0;
  /// False for rows that the command line leaves out. Sets other than "seed" are for full runs,
  /// unless `quick_too`.
  virtual bool wants(const std::string& set, const std::string& shape, bool quick_too = false) = 0;
  /// How the kernels of this program work, in about ten lines, for the report.
  virtual void about(const std::string& title, const std::string& lines) = 0;
  /// Verifies and times a row for each number of threads, with every peer that can do `work`.
  virtual void measure(const Row& row, Outputs& outputs, const std::vector<Way>& ways,
                       const Work& work = {}) = 0;
  /// A figure that is not a time, for the report.
  virtual void note(const std::string& name, double value, const std::string& unit) = 0;
  virtual const std::vector<std::string>& peer_files() const = 0;
};

/// A program's main function: reads the command line, measures the machine, runs `body`, writes the
/// file. `stem` names both. Returns 1 if anything was wrong.
int run(const std::string& stem, int argc, char** argv, const std::function<void(Suite&)>& body);

/// Loads a peer's module; null, with a message, where that fails.
Peer* load_peer(const std::string& file);

/// "128x8x26x26"
std::string shape_text(std::initializer_list<Index> sizes);

inline Tensor<float> normal(const Shape& shape, std::uint32_t step) {
  return Tensor<float>::normal(shape, 0, 1, {42, 0, step});
}

/// A differentiable function as a user calls it: recorded, its result freshly allocated.
inline Way layer_forward(std::function<Variable<float>()> f, Tensor<float> y) {
  auto result = std::make_shared<Variable<float>>();
  return {"layer", [=] { *result = f(); },
          [=]() mutable { y.copy_from(result->value().reshape(y.shape())); }};
}

/// Its backward through the engine; `gradients` are leaves and the outputs their gradients go to.
using Gradients = std::vector<std::pair<Variable<float>, Tensor<float>>>;
inline Way layer_backward(const Variable<float>& y, const Tensor<float>& dy, Gradients gradients) {
  return {"layer",
          [y, dy, gradients]() mutable {
            for (auto& [leaf, dx] : gradients) leaf.zero_grad();
            y.backward(dy, true);
          },
          [gradients]() mutable {
            for (auto& [leaf, dx] : gradients) dx.copy_from(leaf.grad().reshape(dx.shape()));
          }};
}

}  // namespace bench
