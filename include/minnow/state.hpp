#pragma once
/// @file
/// What modules, optimisers and schedules remember, as tensors with names: to be saved in a file and
/// to go on from (io/checkpoint.hpp).

#include <concepts>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "minnow/core/random.hpp"
#include "minnow/tensor.hpp"

namespace minnow::inline MINNOW_ABI {

/// One entry of a state: parameters and running statistics are floats, counters are integers.
using StateTensor = std::variant<Tensor<float>, Tensor<double>, Tensor<std::int64_t>>;

/// Everything that something remembers, by PyTorch's names ("0.weight", "1.running_mean").
using StateDict = std::map<std::string, StateTensor>;

/// A copy that further training does not change: of the best network so far, say.
inline StateDict clone(const StateDict& state) {
  StateDict copy;
  for (const auto& [key, tensor] : state)
    copy.emplace(key, std::visit([](const auto& t) { return StateTensor(t.clone()); }, tensor));
  return copy;
}

namespace detail {

inline const Shape& shape_of(const StateTensor& tensor) {
  return std::visit([](const auto& t) -> const Shape& { return t.shape(); }, tensor);
}
inline bool is_defined(const StateTensor& tensor) {
  return std::visit([](const auto& t) { return t.defined(); }, tensor);
}
inline bool holds_integers(const StateTensor& tensor) {
  return std::holds_alternative<Tensor<std::int64_t>>(tensor);
}

/// What keeps an entry from being one of that shape, of integers or of others: "has shape [3],
/// expected [2]", "" for nothing.
inline std::string mismatch(const StateTensor& entry, const Shape& shape, bool integers) {
  if (shape_of(entry) != shape) return text("has shape ", shape_of(entry), ", expected ", shape);
  if (!is_defined(entry)) return "is undefined";
  if (holds_integers(entry) != integers) return integers ? "holds no integers" : "holds integers";
  return "";
}

/// The state's entry of that name, numbers of type T in memory of its own. Errors: Error, which
/// begins with `place`, where there is none, it has another shape, or one of the two holds integers
/// and the other does not.
template <class T>
Tensor<T> read_entry(std::string_view place, const StateDict& state, const std::string& key,
                     const Shape& shape) {
  const auto found = state.find(key);
  check(found != state.end(), place, ": the state has no ", key);
  const std::string problem = mismatch(found->second, shape, std::same_as<T, std::int64_t>);
  check(problem.empty(), place, ": the state's ", key, ' ', problem);
  Tensor<T> result;
  std::visit([&](const auto& t) { result = t.template to<T>(); }, found->second);
  return result;
}
/// The same for a single number.
template <class T>
T read_entry(std::string_view place, const StateDict& state, const std::string& key) {
  return read_entry<T>(place, state, key, Shape{}).item();
}

}  // namespace detail

/// Where a generator of random numbers is.
inline StateDict state_dict(const Generator& generator) {
  const RandomKey key = generator.state();
  return {{"seed", Tensor<std::int64_t>::scalar(static_cast<std::int64_t>(key.seed))},
          {"step", Tensor<std::int64_t>::scalar(key.step)}};
}
/// Goes on where the state was taken. Errors: Error for the state of something else.
inline void load_state_dict(Generator& generator, const StateDict& state) {
  const auto seed = detail::read_entry<std::int64_t>("Generator", state, "seed"),
             step = detail::read_entry<std::int64_t>("Generator", state, "step");
  generator.set_state({static_cast<std::uint64_t>(seed), 0, static_cast<std::uint32_t>(step)});
}

}  // namespace minnow::inline MINNOW_ABI
