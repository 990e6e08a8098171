#pragma once
/// @file
/// Reverse-mode automatic differentiation: `Variable<T>`, `record`, `backward`, `NoGrad`.

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "minnow/core/error.hpp"
#include "minnow/tensor.hpp"

namespace minnow::inline MINNOW_ABI {

template <class T>
class Variable;

namespace detail {

inline bool& grad_enabled() {
  thread_local bool enabled = true;
  return enabled;
}

}  // namespace detail

/// While an object of this class lives, functions called on this thread record nothing.
class NoGrad {
 public:
  NoGrad() : before_(std::exchange(detail::grad_enabled(), false)) {}
  ~NoGrad() { detail::grad_enabled() = before_; }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// True unless a NoGrad lives on this thread.
inline bool grad_enabled() { return detail::grad_enabled(); }

namespace detail {

/// One recorded call: how to get the inputs' gradients from the output's.
template <class T>
struct Node {
  using Backward = std::function<std::vector<Tensor<T>>(const Tensor<T>& dy)>;

  std::string_view name;
  std::uint64_t number = 0;  ///< grows with every recorded call, so it orders the sweep
  Shape shape;               ///< of the output
  std::vector<Variable<T>> inputs;
  Backward backward;
  Tensor<T> dy;  ///< what has arrived so far, during a sweep

  Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node() { release_inputs(); }

  /// Drops the inputs one node after the other: a long chain must not recurse through destructors.
  void release_inputs();
};

template <class T>
struct VariableState {
  Tensor<T> value;
  Tensor<T> grad;
  bool requires_grad = false;
  std::shared_ptr<Node<T>> node;  ///< null for a leaf
};

inline std::uint64_t next_node_number() {
  static std::atomic<std::uint64_t> number{0};
  return number.fetch_add(1, std::memory_order_relaxed);
}

/// target += term; takes the term's memory where nobody else holds it.
template <class T>
void accumulate(Tensor<T>& target, Tensor<T> term) {
  if (!target.defined()) {
    target = std::move(term);
    return;
  }
  check<ShapeError>(target.shape() == term.shape(), "backward(): a gradient of shape ",
                    term.shape(), " cannot be added to one of shape ", target.shape(),
                    "; zero_grad() drops the one that is there");
  if (!target.unique()) target = target.clone();
  T* out = target.data();
  const T* in = term.data();
  const Index size = target.size();
  MINNOW_SIMD
  for (Index i = 0; i < size; ++i) out[i] += in[i];
}

[[noreturn, gnu::cold]] MINNOW_NOINLINE inline void raise_undefined() {
  raise<Error>({"the variable is undefined: nothing was ever assigned to it"});
}

}  // namespace detail

/// A tensor with its place in the graph of the calculation. Copying a variable copies the handle.
/// One made from nothing is undefined, as an optional parameter may be; its members throw Error.
///
/// A variable made from a tensor is a leaf; with `requires_grad` it is a parameter, and `backward`
/// of anything computed from it adds to its `grad`. Functions of variables record themselves unless
/// a NoGrad lives. Gradients are taken once: the derivative of a gradient is not recorded.
template <class T>
class Variable {
 public:
  using value_type = T;

  Variable() = default;
  Variable(Tensor<T> value, bool requires_grad = false)  // NOLINT: a tensor is a constant variable
      : state_(std::make_shared<detail::VariableState<T>>()) {
    check(value.defined(), "Variable: the tensor is undefined");
    state_->value = std::move(value);
    state_->requires_grad = requires_grad;
  }

  bool defined() const { return state_ != nullptr; }
  const Tensor<T>& value() const { return state().value; }
  /// The value for in-place changes (optimisers, initialisers). The graph does not see them: what
  /// changes between a forward and its backward makes gradients that mix old and new numbers.
  Tensor<T>& mutable_value() { return state().value; }
  const Shape& shape() const { return value().shape(); }
  Index rank() const { return value().rank(); }
  Index size() const { return value().size(); }
  Index size(Index axis) const { return value().size(axis); }
  T item() const { return value().item(); }

  bool requires_grad() const { return state_ && state_->requires_grad; }
  /// Errors: Error for the result of a recorded function, whose need follows from its inputs.
  void set_requires_grad(bool requires_grad) {
    check(is_leaf(), "set_requires_grad: only a leaf's can be set; use detach()");
    state().requires_grad = requires_grad;
  }
  bool is_leaf() const { return !state().node; }

  /// The gradient that `backward` calls have added up since `zero_grad`; undefined if there was
  /// none.
  const Tensor<T>& grad() const { return state().grad; }
  Tensor<T>& mutable_grad() { return state().grad; }
  void zero_grad() { state().grad = Tensor<T>(); }

  /// The same value as a constant: gradients stop here.
  Variable detach() const { return Variable(value()); }

  /// Adds d(this)/d(leaf) to the `grad` of every leaf that requires it, for a variable of one
  /// element. Frees what the graph saved as it goes; with `retain_graph` a second sweep remains
  /// possible.
  void backward(bool retain_graph = false) const {
    check<ShapeError>(
        size() == 1, "backward(): the variable has shape ", shape(),
        "; without an upstream gradient it must have one element. Reduce it with sum() or "
        "mean(), or pass a gradient of its shape");
    backward(Tensor<T>::ones(shape()), retain_graph);
  }

  /// The same for d(sum(dy * this))/d(leaf). Errors: ShapeError unless dy has this variable's
  /// shape; Error if nothing requires a gradient, or the graph was freed by an earlier sweep.
  void backward(const Tensor<T>& dy, bool retain_graph = false) const;

  /// Null for a leaf. For `record` and for tests.
  const std::shared_ptr<detail::Node<T>>& node() const { return state().node; }
  long owners() const { return state_.use_count(); }

 private:
  template <class U>
  friend Variable<U> record(std::string_view, Tensor<U>, std::vector<Variable<U>>,
                            std::type_identity_t<typename detail::Node<U>::Backward>);
  friend struct detail::Node<T>;

  detail::VariableState<T>& state() const {
    if (!state_) [[unlikely]]
      detail::raise_undefined();
    return *state_;
  }
  static void add_leaf_grad(detail::VariableState<T>& leaf, Tensor<T> dx) {
    // Two leaves may be handed the same memory (the backward of x + y): each keeps its own.
    const bool shared = !leaf.grad.defined() && !dx.unique();
    detail::accumulate(leaf.grad, shared ? dx.clone() : std::move(dx));
  }

  std::shared_ptr<detail::VariableState<T>> state_;
};

/// Makes a differentiable function: this is all there is to it, for minnow's own and for yours.
///
/// `output` is what the function computed from `inputs`. `backward` maps dy, the gradient of the
/// loss with respect to the output, to one gradient per input, in order and of the input's shape. A
/// gradient may be left undefined where the input needs none (`requires_grad()` is false). It is
/// called at most once per sweep and freed after it, with everything it captured: tensors, not
/// variables, which would tie the graph's destructors into each other. `name` must be a string
/// literal.
///
/// Nothing is recorded when no input requires a gradient or a NoGrad lives.
template <class T>
Variable<T> record(std::string_view name, Tensor<T> output, std::vector<Variable<T>> inputs,
                   std::type_identity_t<typename detail::Node<T>::Backward> backward) {
  Variable<T> result(std::move(output));
  if (!grad_enabled()) return result;
  if (std::ranges::none_of(inputs, [](const auto& input) { return input.requires_grad(); }))
    return result;
  auto node = std::make_shared<detail::Node<T>>();
  node->name = name;
  node->number = detail::next_node_number();
  node->shape = result.shape();
  node->inputs = std::move(inputs);
  node->backward = std::move(backward);
  result.state_->requires_grad = true;
  result.state_->node = std::move(node);
  return result;
}

template <class T>
void detail::Node<T>::release_inputs() {
  std::vector<Variable<T>> pending = std::move(inputs);
  inputs.clear();
  while (!pending.empty()) {
    Variable<T> input = std::move(pending.back());
    pending.pop_back();
    if (!input.defined() || input.owners() > 1 || !input.node() || input.node().use_count() > 1)
      continue;
    std::vector<Variable<T>> next = std::move(input.node()->inputs);
    input.node()->inputs.clear();
    std::ranges::move(next, std::back_inserter(pending));
  }
}

template <class T>
void Variable<T>::backward(const Tensor<T>& dy, bool retain_graph) const {
  check(requires_grad(), "backward(): nothing this was computed from requires a gradient",
        grad_enabled() ? "" : " (a NoGrad lives on this thread)");
  check(dy.defined(), "backward(): dy is undefined, as a gradient is before its backward()");
  check<ShapeError>(dy.shape() == shape(), "backward(): dy has shape ", dy.shape(), ", expected ",
                    shape(), ", the variable's");
  if (is_leaf()) return add_leaf_grad(*state_, dy.clone());

  // Calls are numbered as they are recorded, so descending numbers are a valid order of the sweep,
  // and inputs are found behind the call that used them.
  std::map<std::uint64_t, std::shared_ptr<detail::Node<T>>, std::greater<>> order;
  order.emplace(node()->number, node());
  for (const auto& [number, node] : order) {
    check(static_cast<bool>(node->backward), "backward(): the graph through '", node->name,
          "' was freed by an earlier backward; compute the value again, or pass retain_graph = "
          "true the first time");
    node->dy = {};  // a sweep that failed may have left something
    for (const auto& input : node->inputs)
      if (input.requires_grad() && !input.is_leaf())
        order.emplace(input.node()->number, input.node());
  }

  node()->dy = dy;
  for (auto& [number, node] : order) {
    const Tensor<T> arrived = std::exchange(node->dy, {});
    if (!arrived.defined()) continue;
    std::vector<Tensor<T>> gradients = node->backward(arrived);
    check(gradients.size() == node->inputs.size(), "backward of '", node->name, "' returned ",
          gradients.size(), " gradients for ", node->inputs.size(), " inputs");
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const Variable& input = node->inputs[i];
      if (!input.requires_grad() || !gradients[i].defined()) continue;
      check<ShapeError>(gradients[i].shape() == input.shape(), "backward of '", node->name,
                        "': gradient ", i, " has shape ", gradients[i].shape(), ", its input has ",
                        input.shape());
      if (input.is_leaf())
        add_leaf_grad(*input.state_, std::move(gradients[i]));
      else
        detail::accumulate(input.node()->dy, std::move(gradients[i]));
    }
    if (!retain_graph) {
      node->backward = nullptr;
      node->release_inputs();
    }
    node.reset();
  }
}

}  // namespace minnow::inline MINNOW_ABI
