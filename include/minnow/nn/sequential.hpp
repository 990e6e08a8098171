#pragma once
/// @file
/// Modules one after the other, and modules in a list.

#include "minnow/nn/module.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// Feeds each module's output to the next. Children are named "0", "1", ..., as in PyTorch, or by name.
///
///     nn::Sequential model(nn::Conv2d(1, 8, 3), nn::ReLU(), nn::MaxPool2d(2));
///     model.add("head", nn::Linear(10, 2));
///
/// Errors: a ShapeError of a child is thrown on with the child's name and class in front.
template <class T = float>
class Sequential : public Module<T> {
 public:
  Sequential() = default;
  template <std::derived_from<Module<T>>... M>
    requires(sizeof...(M) > 0)
  explicit Sequential(M... modules) {
    (add(std::move(modules)), ...);
  }

  /// Appends a module under the next number, or under a name of its own. Returns *this.
  template <std::derived_from<Module<T>> M>
  Sequential& add(M module) {
    return add(std::to_string(this->children().size()), std::move(module));
  }
  template <std::derived_from<Module<T>> M>
  Sequential& add(std::string key, M module) {
    this->register_module(std::move(key), std::move(module));
    return *this;
  }

  Index size() const { return std::ssize(this->children()); }

  /// Child number `i`, or the child of that name. Errors: Error if there is none.
  Module<T>& operator[](Index i) const {
    check(i >= 0 && i < size(), "Sequential: no child ", i, " among ", size());
    return *this->children()[static_cast<std::size_t>(i)].second;
  }
  Module<T>& operator[](std::string_view key) const {
    for (const auto& [name, child] : this->children())
      if (name == key) return *child;
    throw Error(text("Sequential: no child is named '", key, "'"));
  }

  Variable<T> forward(const Variable<T>& x) override {
    Variable<T> y = x;
    for (const auto& [key, child] : this->children()) {
      try {
        y = (*child)(y);
      } catch (const ShapeError& error) {
        throw ShapeError(text(key, " (", child->name(), "): ", error.what()));
      }
    }
    return y;
  }

  std::string name() const override { return "Sequential"; }
};

template <class First, class... Rest>
Sequential(First, Rest...) -> Sequential<typename First::value_type>;

/// Modules that are registered together but called by your own code.
template <class T = float>
class ModuleList : public Module<T> {
 public:
  ModuleList() = default;

  template <std::derived_from<Module<T>> M>
  std::shared_ptr<M> add(M module) {
    return this->register_module(std::to_string(this->children().size()), std::move(module));
  }

  Index size() const { return std::ssize(this->children()); }
  Module<T>& operator[](Index i) const {
    check(i >= 0 && i < size(), "ModuleList: no child ", i, " among ", size());
    return *this->children()[static_cast<std::size_t>(i)].second;
  }

  /// Errors: always Error; a list has no order of calls.
  Variable<T> forward(const Variable<T>&) override {
    throw Error("ModuleList has no forward: call its modules, or use Sequential");
  }
  std::string name() const override { return "ModuleList"; }
};

}  // namespace minnow::inline MINNOW_ABI::nn
