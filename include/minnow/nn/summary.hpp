#pragma once
/// @file
/// A model as a table: its layers, their output shapes and parameters, in torchsummary's layout.

#include <string>
#include <utility>
#include <vector>

#include "minnow/core/format.hpp"
#include "minnow/core/random.hpp"
#include "minnow/nn/module.hpp"

namespace minnow::inline MINNOW_ABI::nn {

/// One call of a layer.
struct SummaryRow {
  std::string layer;     ///< class and number of the call: "Conv2d-1"
  Shape output;          ///< of one sample, without the batch
  Index parameters = 0;  ///< the layer's own, without its children's
};

/// Sums over the model. Sizes are bytes for one sample, of numbers of the model's type.
struct SummaryTotals {
  Index parameters = 0;
  Index trainable = 0;
  Index input_bytes = 0;
  Index pass_bytes = 0;  ///< every row's output and its gradient
  Index parameter_bytes = 0;

  Index bytes() const { return input_bytes + pass_bytes + parameter_bytes; }
};

/// What `summary` returns.
struct Summary {
  std::vector<SummaryRow> rows;
  SummaryTotals totals;

  /// The table as torchsummary 1.5.1 prints it, byte for byte. -1 stands for the batch, "MB" are
  /// MiB.
  std::string str() const {
    const std::string thin = std::string(64, '-') + '\n', thick = std::string(64, '=') + '\n';
    const auto row = [](std::string_view layer, std::string_view shape, std::string_view count) {
      return text(align_right(layer, 20), "  ", align_right(shape, 25), ' ', align_right(count, 15),
                  '\n');
    };
    const auto size = [](std::string_view what, Index bytes) {
      return text(what, " (MB): ", fixed(static_cast<double>(bytes) / (1024.0 * 1024.0), 2), '\n');
    };

    std::string out = thin + row("Layer (type)", "Output Shape", "Param #") + thick;
    for (const auto& [layer, output, parameters] : rows) {
      std::string shape = "[-1";
      for (const Index length : output) shape += text(", ", length);
      out += row(layer, shape + "]", thousands(parameters));
    }
    out += thick;
    out += text("Total params: ", thousands(totals.parameters), '\n');
    out += text("Trainable params: ", thousands(totals.trainable), '\n');
    out += text("Non-trainable params: ", thousands(totals.parameters - totals.trainable), '\n');
    out += thin;
    out += size("Input size", totals.input_bytes);
    out += size("Forward/backward pass size", totals.pass_bytes);
    out += size("Params size", totals.parameter_bytes);
    out += size("Estimated Total Size", totals.bytes());
    return out + thin;
  }
};

/// Describes `model` for samples of `input_shape` (without the batch) by sending a batch of two
/// through it, in eval mode and without a graph. Leaves the model, its statistics and the random
/// state as they were.
///
/// Rows are the calls of layers in order, numbered through. As in torchsummary, Sequential,
/// ModuleList and the model itself have no row. Unlike there, a model that is a single layer has
/// one, parameters of any name count, and a layer that is called twice counts once in the totals.
///
///     std::puts(nn::summary(model, {1, 28, 28}).str().c_str());
///
/// Errors: what the model's forward throws, such as a ShapeError for an input that does not fit.
template <class T>
Summary summary(Module<T>& model, const Shape& input_shape) {
  Summary result;
  SummaryTotals& totals = result.totals;
  const auto bytes = [](Index numbers) { return numbers * static_cast<Index>(sizeof(T)); };

  const auto has_row = [&](const Module<T>& module) {
    if (module.name() == "Sequential" || module.name() == "ModuleList") return false;
    return &module != &model || module.children().empty();
  };
  const ModuleObserver<T> observer([&](const Module<T>& module, const Variable<T>& y) {
    if (!has_row(module)) return;
    SummaryRow row{text(module.name(), '-', result.rows.size() + 1),
                   y.shape().slice(std::min<Index>(1, y.rank()))};
    for (const auto& [key, parameter] : module.own_parameters()) row.parameters += parameter.size();
    totals.pass_bytes += 2 * bytes(row.output.size());
    result.rows.push_back(std::move(row));
  });

  Shape batch_shape{2};
  for (const Index length : input_shape) batch_shape.push_back(length);
  {
    const NoGrad no_grad;
    const detail::EvalScope<T> eval(model);
    const detail::RandomStateScope random_state;
    model(Tensor<T>::zeros(batch_shape));
  }

  for (const auto& parameter : model.parameters()) {
    totals.parameters += parameter.size();
    if (parameter.requires_grad()) totals.trainable += parameter.size();
  }
  totals.input_bytes = bytes(input_shape.size());
  totals.parameter_bytes = bytes(totals.parameters);
  return result;
}

}  // namespace minnow::inline MINNOW_ABI::nn
