#pragma once
/// @file
/// Modules one after the other.

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "minnow/nn/module.hpp"
#include "minnow/nn/plan_run.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// Feeds each module's output to the next. Children are named "0", "1", ..., as in PyTorch, or by
/// name.
///
///     nn::Sequential model{nn::Conv2d(1, 8, 3), nn::ReLU(), nn::MaxPool2d(2)};
///     model.add("head", nn::Linear(10, 2));
///
/// Write braces: they have the layers made, and their weights drawn, in the order in which they
/// stand. In parentheses the compiler chooses, and GCC begins with the last, so that the same seed
/// gives other weights than with Clang. A Sequential of a single Sequential is no list but a move, in
/// C++: append the inner one by `add`.
///
/// Children that fit a `Plan` run in one go, several times faster than one by one; the others, and
/// all of them after `plan(false)`, layer by layer. The results are the same up to rounding.
///
/// Errors: a ShapeError of a child is thrown on with the child's name and class in front.
template <class T = float>
class Sequential : public Module<T> {
 public:
  Sequential() = default;
  template <std::derived_from<Module<T>>... M>
  requires(sizeof...(M) > 0) explicit Sequential(M... modules) { (add(std::move(modules)), ...); }

  /// Appends a module under the next number, or under a name of its own; one that is pointed to may
  /// stand in several places. Returns *this. Errors: Error for a null pointer, and a name that is
  /// taken, empty or holds a dot.
  template <std::derived_from<Module<T>> M>
  Sequential& add(M module) {
    return append(text(size()), std::make_shared<M>(std::move(module)));
  }
  template <std::derived_from<Module<T>> M>
  Sequential& add(std::string key, M module) {
    return append(std::move(key), std::make_shared<M>(std::move(module)));
  }

  Sequential& add(std::shared_ptr<Module<T>> module) {
    return append(text(size()), std::move(module));
  }
  Sequential& add(std::string key, std::shared_ptr<Module<T>> module) {
    return append(std::move(key), std::move(module));
  }

  Index size() const { return std::ssize(this->children()); }

  /// Child number `i`, or the child of that name. Errors: Error if there is none.
  Module<T>& operator[](Index i) const { return detail::child_of(*this, i); }
  Module<T>& operator[](std::string_view key) const {
    std::string names;
    for (const auto& [name, child] : this->children()) {
      if (name == key) return *child;
      names += text(names.empty() ? " '" : ", '", name, "'");
    }
    throw Error(text("Sequential: no child is named '", key, "'; there are",
                     names.empty() ? " none" : names));
  }

  Variable<T> forward(const Variable<T>& x) override {
    Variable<T> y = x;
    for (std::size_t i = 0; i < this->children().size();) {
      if (const auto plan = plan_from(i, y.shape())) {
        y = run_plan(plan, y);
        i += plan->children;
      } else {
        y = call(i++, y);
      }
    }
    return y;
  }

  /// Whether children may run by a plan (the state after construction), here and in the Sequentials
  /// of which this one is made.
  void plan(bool on) {
    planning_ = on;
    for (const auto& [key, child] : this->children())
      if (auto* nested = dynamic_cast<Sequential*>(child.get())) nested->plan(on);
  }

  /// What runs how for an input of shape x [N, ...], a line for each stage and each single layer.
  /// Errors: those of the layers, for a shape that they do not take.
  std::string plan_report(const Shape& x) {
    const NoGrad no_grad;
    const detail::EvalScope<T> eval(*this);
    const detail::RandomStateScope random_state;
    std::string report;
    const auto line = [&](std::size_t first, std::size_t count, std::string_view what,
                          std::string_view how) {
      const std::string last =
          count > 1 ? text('-', this->children()[first + count - 1].first) : "";
      report += text(this->children()[first].first, last, "  ", what, ": ", how, '\n');
    };
    Shape shape = x;
    for (std::size_t i = 0; i < this->children().size();) {
      if (const auto plan = plan_from(i, shape)) {
        for (const auto& stage : plan->stages) {
          line(i, stage.children, stage.layers, "a stage, one image a lane");
          i += stage.children;
        }
        Shape next{x[0]};
        for (const Index size : plan->y) next.push_back(size);
        shape = next;
      } else {
        line(i, 1, this->children()[i].second->name(), "layer by layer");
        shape = call(i++, Tensor<T>::zeros(shape)).shape();
      }
    }
    return report;
  }

  std::string name() const override { return "Sequential"; }

 private:
  /// The plans of the shapes seen so far. Several threads may run one model in evaluation.
  struct Plans {
    struct Entry {
      std::size_t first;
      Shape image;
      std::shared_ptr<const Plan<T>> plan;
    };
    std::mutex mutex;
    std::vector<Entry> entries;
  };

  MINNOW_NOINLINE Sequential& append(std::string key, std::shared_ptr<Module<T>> module) {
    this->register_module(std::move(key), std::move(module));
    plans_ = std::make_unique<Plans>();
    return *this;
  }

  Variable<T> call(std::size_t i, const Variable<T>& x) const {
    const auto& [key, child] = this->children()[i];
    try {
      return (*child)(x);
    } catch (const ShapeError& error) {
      throw ShapeError(text(key, " (", child->name(), "): ", error.what()));
    }
  }

  /// The plan to run from child `first` on, or null: layer by layer while somebody observes the
  /// layers, for images fewer than half a packet, and where no plan fits.
  std::shared_ptr<const Plan<T>> plan_from(std::size_t first, const Shape& x) {
    if (!planning_ || !plans_ || x.rank() < 2 || detail::module_observer<T>()) return nullptr;
    if (2 * x[0] < Pack<T>::width) return nullptr;
    const Shape image = x.slice(1);
    const std::lock_guard lock(plans_->mutex);
    auto& entries = plans_->entries;
    auto found = std::ranges::find_if(
        entries, [&](const auto& entry) { return entry.first == first && entry.image == image; });
    if (found == entries.end()) {
      constexpr std::size_t most_entries = 64;  // images of ever new sizes must not pile up
      if (entries.size() == most_entries) entries.clear();
      entries.push_back({first, image, make_plan<T>(this->children(), first, image)});
      found = std::prev(entries.end());
    }
    const auto& plan = found->plan;
    return plan && plan->fits_parameters() && plan->has_enough_values(x[0]) ? plan : nullptr;
  }

  bool planning_ = true;
  std::unique_ptr<Plans> plans_;
};

template <class First, class... Rest>
Sequential(First, Rest...) -> Sequential<typename First::value_type>;

}  // namespace minnow::inline MINNOW_ABI::nn
