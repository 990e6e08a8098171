#pragma once
/// @file
/// The IDX format of MNIST: a tensor of any of six types in a file, gzip or plain.
///
/// An IDX file begins with two zero bytes, one for the type and one for the number of dimensions.
/// The dimensions follow as 32-bit numbers, then the elements, row by row; all numbers big-endian.

#include <bit>
#include <cstdlib>
#include <string>
#include <string_view>
#include <variant>

#include "minnow/data/gzip.hpp"
#include "minnow/tensor.hpp"

namespace minnow::inline MINNOW_ABI::data {

/// A tensor of whatever type the file holds. `std::visit` with `to<float>()` converts any of them.
using IdxTensor = std::variant<Tensor<std::uint8_t>, Tensor<std::int8_t>, Tensor<std::int16_t>,
                               Tensor<std::int32_t>, Tensor<float>, Tensor<double>>;

/// Whether `write_idx` compresses: as the file's name asks (".gz"), never, or always.
enum class Compression { by_name, none, gzip };

namespace detail {

struct IdxType {
  unsigned char code;
  Index size;  ///< of one element, in bytes
  const char* name;
};

/// In the order of IdxTensor's alternatives.
inline constexpr IdxType idx_types[] = {{0x08, 1, "uint8"}, {0x09, 1, "int8"},
                                        {0x0B, 2, "int16"}, {0x0C, 4, "int32"},
                                        {0x0D, 4, "float"}, {0x0E, 8, "double"}};

template <class T>
constexpr const IdxType& idx_type() {
  constexpr bool is[] = {std::same_as<T, std::uint8_t>, std::same_as<T, std::int8_t>,
                         std::same_as<T, std::int16_t>, std::same_as<T, std::int32_t>,
                         std::same_as<T, float>,        std::same_as<T, double>};
  constexpr auto place = std::ranges::find(is, true) - std::begin(is);
  static_assert(place < 6, "IDX files hold uint8, int8, int16, int32, float or double");
  return idx_types[place];
}

struct IdxHeader {
  IdxType type;
  Shape shape;
  std::uint64_t bytes;  ///< of all elements

  std::string str() const { return text(shape, " of ", type.name, ", ", bytes, " bytes"); }
};

inline std::string hex(const unsigned char* bytes, std::size_t count) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string out;
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0) out += ' ';
    out += digits[bytes[i] >> 4];
    out += digits[bytes[i] & 15];
  }
  return out;
}

/// What a file probably is that is no IDX file, and what to do about it.
inline std::string guess_content(const unsigned char* magic) {
  const std::string_view start(reinterpret_cast<const char*>(magic), 4);
  if (start.starts_with("PK")) return "; it looks like a zip archive, unpack it first";
  if (start.starts_with("<"))
    return "; it looks like a web page saved in the file's place, download it again";
  if (start.starts_with("\x1F\x8B")) return "; it was compressed twice, unpack it once";
  if (start.starts_with("\x93NUM")) return "; it looks like a NumPy array";
  if (start.starts_with("BZh")) return "; it looks like a bzip2 file, unpack it first";
  if (start.starts_with("\xFD"
                        "7zX"))
    return "; it looks like an xz file, unpack it first";
  return "";
}

/// Reads and judges the header. Nothing in it is believed that the file's length contradicts.
inline IdxHeader read_idx_header(GzipReader& reader) {
  const std::string& path = reader.path();
  unsigned char magic[4];
  std::size_t got = reader.read(magic, 4);
  check<DataError>(got == 4, path, ": not an IDX file: it holds only ", got, " bytes");
  check<DataError>(magic[0] == 0 && magic[1] == 0, path, ": not an IDX file: it begins with ",
                   hex(magic, 4), ", an IDX file with 00 00, its type and its rank",
                   guess_content(magic));
  const auto* const type = std::ranges::find(idx_types, magic[2], &IdxType::code);
  check<DataError>(type != std::end(idx_types), path, ": unknown IDX type 0x", hex(magic + 2, 1),
                   "; known are 08 uint8, 09 int8, 0B int16, 0C int32, 0D float and 0E double");
  check<DataError>(magic[3] <= Shape::max_rank, path, ": ", int{magic[3]}, " dimensions, at most ",
                   Shape::max_rank, " are supported");

  IdxHeader header{*type, {}, 0};
  for (int axis = 0; axis < magic[3]; ++axis) {
    unsigned char size_bytes[4];
    got = reader.read(size_bytes, 4);
    check<DataError>(got == 4, path, ": cut short: the content ends after ", reader.position(),
                     " bytes, within its header of ", 4 + 4 * int{magic[3]});
    std::uint64_t size = 0;
    for (const unsigned char byte : size_bytes) size = size << 8 | byte;
    header.shape.push_back(static_cast<Index>(size));
  }
  check<DataError>(addressable(header.shape, type->size), path, ": its header promises ",
                   header.shape, " of ", type->name,
                   ", more than a computer can address; the file is damaged");
  header.bytes = static_cast<std::uint64_t>(header.shape.size() * type->size);

  if (const auto size = reader.size()) {
    const std::uint64_t expected = reader.position() + header.bytes;
    check<DataError>(*size >= expected, path, ": cut short: ", *size,
                     " bytes, but its header promises ", header, ", after a header of ",
                     reader.position(), "; get the file again");
    check<DataError>(*size == expected, path, ": ", *size - expected, " bytes follow the end of ",
                     header, ", which its header promises; get the file again");
  }
  return header;
}

/// Reads what the header promises. Memory grows with what arrives, so a compressed file whose
/// header lies cannot make it allocate more than twice of what it really holds.
inline std::unique_ptr<unsigned char, decltype(&std::free)> read_idx_bytes(
    GzipReader& reader, const IdxHeader& header) {
  constexpr std::uint64_t first = 1 << 20;
  std::uint64_t capacity = std::min(header.bytes, reader.size() ? header.bytes : first), filled = 0;
  std::unique_ptr<unsigned char, decltype(&std::free)> bytes(nullptr, &std::free);
  for (;;) {
    auto* const grown =
        static_cast<unsigned char*>(std::realloc(bytes.get(), std::max<std::size_t>(capacity, 1)));
    check<DataError>(grown != nullptr, reader.path(), ": no memory for ", header);
    static_cast<void>(bytes.release());
    bytes.reset(grown);
    filled += reader.read(grown + filled, capacity - filled);
    check<DataError>(filled == capacity, reader.path(), ": cut short: its header promises ", header,
                     ", its content ends after ", filled, " of them; get the file again");
    if (capacity == header.bytes) break;
    capacity = std::min(header.bytes, 2 * capacity);
  }
  unsigned char extra = 0;
  check<DataError>(reader.read(&extra, 1) == 0, reader.path(), ": more bytes follow the end of ",
                   header, ", which its header promises; get the file again");
  return bytes;
}

/// Copies `count` numbers, turning the bytes of each around where the machine is little-endian.
template <class T>
void copy_big_endian(void* to, const void* from, Index count) {
  if constexpr (sizeof(T) == 1 || std::endian::native == std::endian::big) {
    if (count > 0) std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
  } else {
    auto* const out = static_cast<unsigned char*>(to);
    const auto* const in = static_cast<const unsigned char*>(from);
    for (Index i = 0; i < count; ++i)
      std::reverse_copy(in + static_cast<std::size_t>(i) * sizeof(T),
                        in + static_cast<std::size_t>(i + 1) * sizeof(T),
                        out + static_cast<std::size_t>(i) * sizeof(T));
  }
}

template <class T>
Tensor<T> read_idx_elements(GzipReader& reader, const IdxHeader& header) {
  const auto bytes = read_idx_bytes(reader, header);
  try {
    Tensor<T> result(header.shape);
    copy_big_endian<T>(result.data(), bytes.get(), result.size());
    return result;
  } catch (const std::bad_alloc&) {
    throw DataError(text(reader.path(), ": no memory for ", header));
  }
}

template <class T>
Tensor<T> read_idx(GzipReader& reader) {
  const IdxHeader header = read_idx_header(reader);
  const IdxType& asked = idx_type<T>();
  check<DataError>(header.type.code == asked.code, reader.path(), ": holds ", header.shape, " of ",
                   header.type.name, ", not of ", asked.name, "; read_idx<", header.type.name,
                   "> reads it, read_any_idx reads every type");
  return read_idx_elements<T>(reader, header);
}

}  // namespace detail

/// Reads a tensor from the IDX file at `path`, gzip or plain.
///
/// Errors: DataError, naming the file, what was found and what was expected: it cannot be read, is
/// no IDX file, holds another type than T, has more than eight dimensions, or its length is not the
/// one that its header promises. Little memory is allocated before the promise has been checked.
template <class T>
Tensor<T> read_idx(const std::string& path) {
  GzipReader reader(path);
  return detail::read_idx<T>(reader);
}

/// The same for a file of any type.
inline IdxTensor read_any_idx(const std::string& path) {
  GzipReader reader(path);
  const detail::IdxHeader header = detail::read_idx_header(reader);
  switch (header.type.code) {
    case 0x08:
      return detail::read_idx_elements<std::uint8_t>(reader, header);
    case 0x09:
      return detail::read_idx_elements<std::int8_t>(reader, header);
    case 0x0B:
      return detail::read_idx_elements<std::int16_t>(reader, header);
    case 0x0C:
      return detail::read_idx_elements<std::int32_t>(reader, header);
    case 0x0D:
      return detail::read_idx_elements<float>(reader, header);
    default:
      return detail::read_idx_elements<double>(reader, header);
  }
}

/// Writes `tensor` as an IDX file. The file appears under its name when it is complete.
///
/// Errors: DataError where it cannot be written; ShapeError for an undefined tensor, or a dimension
/// of more than 32 bits.
template <class T>
void write_idx(const std::string& path, const Tensor<T>& tensor,
               Compression compression = Compression::by_name) {
  check<ShapeError>(tensor.defined(), path, ": an undefined tensor cannot be written");
  std::string header{0, 0, static_cast<char>(detail::idx_type<T>().code),
                     static_cast<char>(tensor.rank())};
  for (const Index size : tensor.shape()) {
    check<ShapeError>(size <= Index{0xFFFFFFFF}, path, ": shape ", tensor.shape(),
                      " does not fit an IDX file, whose dimensions have 32 bits");
    for (int shift = 24; shift >= 0; shift -= 8) header += static_cast<char>(size >> shift & 0xFF);
  }
  GzipWriter writer(path, compression == Compression::gzip ||
                              (compression == Compression::by_name && path.ends_with(".gz")));
  writer.write(header.data(), header.size());
  constexpr Index block = 1 << 14;
  std::array<T, block> elements;
  for (Index i = 0; i < tensor.size(); i += block) {
    const Index count = std::min(block, tensor.size() - i);
    detail::copy_big_endian<T>(elements.data(), tensor.data() + i, count);
    writer.write(elements.data(), static_cast<std::size_t>(count) * sizeof(T));
  }
  writer.commit();
}

}  // namespace minnow::inline MINNOW_ABI::data
