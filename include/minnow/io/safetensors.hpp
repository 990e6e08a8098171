#pragma once
/// @file
/// Weights in files of the safetensors format, which Python reads and writes, too. A door to the
/// JSON library, and therefore not part of minnow.hpp: include it where it is used.
///
/// A file begins with the length of its header: eight bytes, little-endian. The header is JSON:
///
///     {"__metadata__": {"format": "pt"},
///      "0.weight": {"dtype": "F32", "shape": [8, 1, 3, 3], "data_offsets": [0, 288]}, ...}
///
/// The numbers follow, little-endian, row by row, one tensor behind the other without gaps; offsets
/// count from the header's end.

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "minnow/core/file.hpp"
#include "minnow/io/half.hpp"
#include "minnow/state.hpp"

namespace minnow::inline MINNOW_ABI::io {

/// Texts that go with the tensors.
using Metadata = std::map<std::string, std::string>;

namespace detail {

using Json = nlohmann::json;

/// The format's limit, in bytes.
inline constexpr std::uint64_t largest_header = 100'000'000;

/// Little-endian numbers as they lie in a file, to this machine's and back.
template <class Stored>
Stored little_endian(Stored number) {
  if constexpr (std::endian::native == std::endian::big) {
    auto bytes = std::bit_cast<std::array<unsigned char, sizeof(Stored)>>(number);
    std::ranges::reverse(bytes);
    return std::bit_cast<Stored>(bytes);
  } else {
    return number;
  }
}

/// Reads numbers of type Stored into a tensor of type T.
template <class Stored, class T>
StateTensor read_tensor(minnow::detail::InputFile& file, const Shape& shape) {
  Tensor<T> result(shape);
  std::array<Stored, 4096> block;
  for (Index i = 0; i < result.size();) {
    const Index count = std::min<Index>(std::ssize(block), result.size() - i);
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(Stored);
    check<DataError>(file.read(block.data(), bytes) == bytes, file.path(),
                     ": it became shorter while it was read");
    std::transform(block.begin(), block.begin() + count, result.data() + i,
                   [](Stored number) { return static_cast<T>(little_endian(number)); });
    i += count;
  }
  return result;
}

/// A type of numbers in a file: its name, its size in bytes, and how it is read.
struct NumberType {
  std::string_view name;
  Index size;
  StateTensor (*read)(minnow::detail::InputFile& file, const Shape& shape);
};

inline constexpr NumberType number_types[] = {
    {"F64", 8, &read_tensor<double, double>},
    {"F32", 4, &read_tensor<float, float>},
    {"F16", 2, &read_tensor<Half, float>},
    {"BF16", 2, &read_tensor<BFloat16, float>},
    {"I64", 8, &read_tensor<std::int64_t, std::int64_t>},
    {"I32", 4, &read_tensor<std::int32_t, std::int64_t>},
    {"I16", 2, &read_tensor<std::int16_t, std::int64_t>},
    {"I8", 1, &read_tensor<std::int8_t, std::int64_t>},
    {"U32", 4, &read_tensor<std::uint32_t, std::int64_t>},
    {"U16", 2, &read_tensor<std::uint16_t, std::int64_t>},
    {"U8", 1, &read_tensor<std::uint8_t, std::int64_t>},
    {"BOOL", 1, &read_tensor<std::uint8_t, std::int64_t>},
};

/// What a header says of a tensor.
struct Entry {
  std::string name;
  NumberType type;
  Shape shape;
  std::uint64_t begin, end;  ///< bytes behind the header
};

struct Header {
  std::vector<Entry> entries;  ///< in the order of their numbers
  Metadata metadata;
};

inline Json parse_header(const std::string& path, const std::string& header) {
  std::set<std::string> names;
  const auto judge = [&](int depth, Json::parse_event_t event, const Json& part) {
    using Event = Json::parse_event_t;
    check<DataError>(depth <= 2 || (event != Event::object_start && event != Event::array_start),
                     path, ": its header is nested more deeply than a header can be");
    if (depth == 1 && event == Event::key)
      check<DataError>(names.insert(part.get<std::string>()).second, path, ": its header names ",
                       part.get<std::string>(), " twice");
    return true;
  };
  try {
    Json json = Json::parse(header, judge);
    check<DataError>(json.is_object(), path, ": its header is no JSON object");
    return json;
  } catch (const Json::exception& failure) {
    throw DataError(text(path, ": its header is no valid JSON: ", failure.what()));
  }
}

/// `json` as a list of numbers that an Index can hold.
inline std::vector<Index> read_numbers(const Json& json, const std::string& place) {
  check<DataError>(json.is_array(), place, " is no list of numbers");
  std::vector<Index> numbers;
  for (const Json& number : json) {
    check<DataError>(
        number.is_number_unsigned() &&
            number.get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<Index>::max()},
        place, " holds ", number.dump(), "; expected are whole numbers from 0 to 2^63 - 1");
    numbers.push_back(number.get<Index>());
  }
  return numbers;
}

inline Entry parse_entry(const std::string& path, const std::string& name, const Json& json) {
  const std::string place = text(path, ": ", name);
  check<DataError>(json.is_object() && json.contains("dtype") && json.contains("shape") &&
                       json.contains("data_offsets") && json["dtype"].is_string(),
                   place, ": its entry in the header lacks dtype, shape or data_offsets");
  const auto dtype = json["dtype"].get<std::string>();
  const auto* const type = std::ranges::find(number_types, dtype, &NumberType::name);
  check<DataError>(
      type != std::end(number_types), place, " has the type ", dtype,
      "; those that can be read are F64, F32, F16, BF16, I64, I32, I16, I8, U32, U16, U8 and BOOL");
  const auto sizes = read_numbers(json["shape"], place + ": its shape");
  check<DataError>(std::ssize(sizes) <= Shape::max_rank, place, " has ", sizes.size(),
                   " dimensions, at most ", Shape::max_rank, " are supported");
  const Shape shape{std::span(sizes)};
  check<DataError>(addressable(shape, type->size), place, " has the shape ", shape,
                   ", more than a computer can address; the file is damaged");
  const auto offsets = read_numbers(json["data_offsets"], place + ": its data_offsets");
  check<DataError>(offsets.size() == 2 && offsets[1] - offsets[0] == shape.size() * type->size,
                   place, ": its data_offsets ", json["data_offsets"].dump(), " are not ",
                   shape.size() * type->size, " bytes apart, as ", shape, " of ", dtype, " needs");
  return {name, *type, shape, static_cast<std::uint64_t>(offsets[0]),
          static_cast<std::uint64_t>(offsets[1])};
}

/// Reads and judges the header, and leaves the file at the first number. Nothing in it is believed
/// that the file's length contradicts.
inline Header read_header(minnow::detail::InputFile& file) {
  const std::string& path = file.path();
  std::uint64_t length = 0;
  const std::size_t got = file.read(&length, sizeof length);
  check<DataError>(got == sizeof length, path, ": not a safetensors file: it holds only ", got,
                   " bytes");
  length = little_endian(length);
  const auto size = file.size();
  check<DataError>(size.has_value(), path, ": its length cannot be told, as that of a file can");
  const std::uint64_t rest = *size - sizeof length;
  check<DataError>(
      length <= std::min(rest, largest_header), path,
      ": not a safetensors file, or cut short: its first eight bytes promise a header of ", length,
      " bytes, but ", rest, " follow, and a header has at most ", largest_header);
  std::string bytes(static_cast<std::size_t>(length), ' ');
  check<DataError>(file.read(bytes.data(), bytes.size()) == bytes.size(), path,
                   ": it became shorter while it was read");
  check<DataError>(bytes.starts_with('{'), path,
                   ": not a safetensors file: its header begins with no {");

  Header header;
  const Json all = parse_header(path, bytes);
  for (const auto& [name, json] : all.items()) {
    if (name == "__metadata__") {
      check<DataError>(json.is_object(), path, ": its __metadata__ is no JSON object");
      for (const auto& [key, value] : json.items()) {
        check<DataError>(value.is_string(), path, ": its __metadata__ ", key, " is no text");
        header.metadata[key] = value.get<std::string>();
      }
    } else {
      header.entries.push_back(parse_entry(path, name, json));
    }
  }
  std::ranges::sort(header.entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
  std::uint64_t end = 0;
  for (const Entry& entry : header.entries) {
    check<DataError>(entry.begin == end, path, ": ", entry.name, " begins at byte ", entry.begin,
                     " of the numbers, expected at ", end, ", where the tensor before it ends");
    end = entry.end;
  }
  check<DataError>(rest - length == end, path, ": ", rest - length,
                   " bytes follow its header, which promises ", end, "; get the file again");
  return header;
}

inline const char* type_name(const Tensor<float>&) { return "F32"; }
inline const char* type_name(const Tensor<double>&) { return "F64"; }
inline const char* type_name(const Tensor<std::int64_t>&) { return "I64"; }

template <class T>
void write_tensor(minnow::detail::PendingFile& file, const Tensor<T>& tensor) {
  if constexpr (std::endian::native == std::endian::little) {
    file.write(tensor.data(), tensor.values().size_bytes());
  } else {
    for (const T number : tensor.values()) {
      const T stored = little_endian(number);
      file.write(&stored, sizeof stored);
    }
  }
}

}  // namespace detail

/// The tensors of a safetensors file, for `load_state_dict`:
///
///     model.load_state_dict(io::load_safetensors("net.safetensors"));
///
/// F32, F64 and I64 stay what they are; F16 and BF16 become float, smaller integers and BOOL 64-bit
/// integers, all exactly.
///
/// Errors: DataError that names the file, what was found and what was expected, where it cannot be
/// read, is no such file or damaged, or holds a type or more dimensions than can be read. Memory is
/// only allocated for what the file's length bears out.
inline StateDict load_safetensors(const std::string& path) {
  minnow::detail::InputFile file(path);
  StateDict state;
  for (const detail::Entry& entry : detail::read_header(file).entries)
    state.emplace(entry.name, entry.type.read(file, entry.shape));
  return state;
}

/// The texts that a safetensors file holds beside its tensors. Errors: as above.
inline Metadata load_safetensors_metadata(const std::string& path) {
  minnow::detail::InputFile file(path);
  return detail::read_header(file).metadata;
}

/// Writes a module's state, or any tensors with names. The file appears under its name when it is
/// complete. The metadata's default is what Python's libraries expect of a file of PyTorch's.
///
/// Errors: DataError where the file cannot be written; Error for an undefined tensor, one called
/// "__metadata__", names or metadata that are no UTF-8, and a header above 100 MB.
inline void save_safetensors(const std::string& path, const StateDict& state,
                             const Metadata& metadata = {{"format", "pt"}}) {
  using Named = StateDict::value_type;
  const auto number_size = [](const Named& named) {
    return std::visit(
        [](const auto& tensor) {
          return sizeof(typename std::remove_cvref_t<decltype(tensor)>::value_type);
        },
        named.second);
  };
  // Larger numbers first, so that all are aligned; the dictionary is in order of names.
  std::vector<const Named*> order;
  for (const Named& named : state) order.push_back(&named);
  std::ranges::stable_sort(order, std::greater(),
                           [&](const Named* named) { return number_size(*named); });

  detail::Json json = detail::Json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  Index end = 0;
  for (const Named* named : order) {
    const auto& [name, value] = *named;
    check(minnow::detail::is_defined(value), path, ": ", name,
          " is undefined and cannot be written");
    check(name != "__metadata__", path, ": a tensor cannot be called __metadata__");
    const Shape& shape = minnow::detail::shape_of(value);
    const Index begin =
        std::exchange(end, end + shape.size() * static_cast<Index>(number_size(*named)));
    json[name] = {{"dtype", std::visit([](const auto& t) { return detail::type_name(t); }, value)},
                  {"shape", std::vector<Index>(shape.begin(), shape.end())},
                  {"data_offsets", {begin, end}}};
  }
  std::string header;
  try {
    header = json.dump();
  } catch (const detail::Json::exception& failure) {
    throw Error(text(path, ": the names or the metadata are no UTF-8: ", failure.what()));
  }
  header.resize((header.size() + 7) / 8 * 8, ' ');
  check(header.size() <= detail::largest_header, path, ": the header has ", header.size(),
        " bytes, at most ", detail::largest_header, " are allowed");

  minnow::detail::PendingFile file(path);
  const std::uint64_t length = detail::little_endian(std::uint64_t{header.size()});
  file.write(&length, sizeof length);
  file.write(header.data(), header.size());
  for (const Named* named : order)
    std::visit([&](const auto& tensor) { detail::write_tensor(file, tensor); }, named->second);
  file.commit();
}

}  // namespace minnow::inline MINNOW_ABI::io
