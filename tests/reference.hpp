#pragma once
/// @file
/// PyTorch's numbers, from the files that tests/reference/generate.py wrote, and comparisons with
/// them.

#include <doctest/doctest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "minnow/nn/module.hpp"
#include "minnow/testing/compare.hpp"

namespace minnow_test {

using namespace minnow;

/// The named tensors of tests/reference/<stem>.txt: two lines each, the name with the sizes and the
/// values.
class Reference {
 public:
  explicit Reference(const std::string& stem)
      : path_(std::string(MINNOW_SOURCE_DIR) + "/tests/reference/" + stem + ".txt") {
    std::ifstream file(path_);
    check<DataError>(file.is_open(), "cannot open ", path_);
    std::string head, values;
    while (std::getline(file, head) && std::getline(file, values)) {
      std::istringstream words(head);
      std::string name;
      words >> name;
      Shape shape;
      for (Index size = 0; words >> size;) shape.push_back(size);
      Tensor<double> tensor(shape);
      const char* at = values.c_str();
      for (double& value : tensor.values()) {
        char* end = nullptr;
        value = std::strtod(at, &end);  // unlike a stream, it reads nan and inf
        check<DataError>(end != at, path_, ": too few values for ", name, ' ', shape);
        at = end;
      }
      check<DataError>(*at == '\0', path_, ": too many values for ", name, ' ', shape);
      tensors_.emplace(name, tensor);
    }
  }

  template <class T = double>
  Tensor<T> tensor(const std::string& name) const {
    const auto found = tensors_.find(name);
    check<DataError>(found != tensors_.end(), path_, " has no ", name);
    used_.insert(name);
    return found->second.template to<T>();
  }

  /// The names that nobody asked for: what PyTorch was asked and minnow was not.
  std::string unused() const {
    std::string names;
    for (const auto& [name, tensor] : tensors_)
      if (!used_.contains(name)) names += ' ' + name;
    return names;
  }

 private:
  std::string path_;
  std::map<std::string, Tensor<double>> tensors_;
  mutable std::set<std::string> used_;
};

/// Checks against the tensor of that name. In double to the nine digits of the files; in float to
/// `float_error` times the values' size, since sums of large terms may be small.
template <class T>
void check_close(const Tensor<T>& actual, const Reference& reference, const std::string& name,
                 double float_error = 1e-5) {
  const Tensor<double> expected = reference.tensor(name);
  double largest = 0;
  for (const double value : expected.values()) largest = std::max(largest, std::abs(value));
  const bool in_double = std::is_same_v<T, double>;
  const auto comparison = minnow::testing::compare(
      actual, expected, in_double ? 1e-8 : 0, in_double ? 1e-9 * largest : float_error * largest);
  CHECK_MESSAGE(comparison.close, name, ": ", comparison.message);
}

/// How a function's case lies in a file.
struct FunctionCase {
  std::vector<std::string> inputs = {"x"};
  std::string output = "y";
  std::vector<std::string> constants = {};  ///< the inputs that require no gradient
  double float_error = 1e-5;
};

/// Checks f(inputs) and the gradients of sum(d<output> * f).
template <class T, class F>
void check_function(const Reference& reference, const std::string& name, const F& f,
                    const FunctionCase& c = {}) {
  std::vector<Variable<T>> inputs;
  for (const std::string& key : c.inputs)
    inputs.emplace_back(reference.tensor<T>(name + '/' + key),
                        std::ranges::find(c.constants, key) == c.constants.end());
  const Variable<T> y = f(inputs);
  check_close(y.value(), reference, name + '/' + c.output, c.float_error);
  y.backward(reference.tensor<T>(name + "/d" + c.output));
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].requires_grad())
      check_close(inputs[i].grad(), reference, name + "/d" + c.inputs[i], c.float_error);
}

/// Sets the module's parameters to those of the file.
template <class T>
void load_parameters(const Reference& reference, const std::string& name,
                     const nn::Module<T>& module) {
  for (auto& [key, parameter] : module.named_parameters())
    Variable<T>(parameter).mutable_value().copy_from(reference.tensor<T>(name + '/' + key));
}

/// One forward and one backward: output, gradients, and the buffers afterwards.
template <class T>
void check_pass(const Reference& reference, const std::string& name, nn::Module<T>& module) {
  module.zero_grad();
  check_function<T>(reference, name, [&](const auto& inputs) { return module(inputs[0]); });
  for (const auto& [key, parameter] : module.named_parameters())
    check_close(parameter.grad(), reference, name + "/d" + key);
  for (const auto& entry : module.named_buffers()) {
    const std::string key = name + "/after/" + entry.first;
    std::visit([&](const auto& buffer) { check_close(buffer, reference, key); }, entry.second);
  }
}

template <class T>
void check_layer(const Reference& reference, const std::string& name, nn::Module<T>&& module) {
  load_parameters(reference, name, module);
  check_pass(reference, name, module);
}

}  // namespace minnow_test
