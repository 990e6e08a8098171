#include "minnow/data/idx.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <random>
#include <string>

#include "minnow/testing/compare.hpp"
#include "temporary.hpp"

using namespace minnow;
using namespace minnow_test;
using testing::same_bits;

namespace {

using Bytes = std::initializer_list<int>;

std::string bytes_of(Bytes values) {
  std::string out;
  for (const int value : values) out += static_cast<char>(value);
  return out;
}

/// The error of reading a file of these bytes, plain and compressed; "file: " is cut from the text.
template <class T = std::uint8_t>
std::string error_of_bytes(const std::string& bytes, bool compressed) {
  const TemporaryDirectory directory;
  const std::string path = directory / "file";
  data::GzipWriter writer(path, compressed);
  writer.write(bytes.data(), bytes.size());
  writer.commit();
  const std::string error = error_of<DataError>([&] { data::read_idx<T>(path); });
  CHECK(error_of<DataError>([&] { data::read_any_idx(path); }).empty() ==
        (error.find("not of") != std::string::npos));
  CHECK(error.starts_with(path + ": "));
  return error.substr(path.size() + 2);
}

/// The same text for both.
template <class T = std::uint8_t>
std::string error_of_bytes(const std::string& bytes) {
  const std::string error = error_of_bytes<T>(bytes, false);
  CHECK(error_of_bytes<T>(bytes, true) == error);
  return error;
}

template <class T>
Tensor<T> sample(const Shape& shape) {
  Tensor<T> result(shape);
  std::mt19937_64 random(3);
  for (T& value : result.values()) {
    // Any bits will do, of floating-point numbers as well: nothing is computed.
    const std::uint64_t bits = random();
    std::memcpy(&value, &bits, sizeof(T));
  }
  return result;
}

}  // namespace

TEST_CASE_TEMPLATE("tensors of each type and any rank are the same after writing and reading", T,
                   std::uint8_t, std::int8_t, std::int16_t, std::int32_t, float, double) {
  const TemporaryDirectory directory;
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{1}, Shape{7}, Shape{3, 5}, Shape{2, 0, 4},
                             Shape{70000}, Shape{1, 2, 1, 3, 1, 2, 1, 5}}) {
    for (const char* name : {"plain", "file.gz"}) {
      const Tensor<T> tensor = sample<T>(shape);
      data::write_idx(directory / name, tensor);
      CHECK(data::GzipReader(directory / name).compressed() == (std::string(name) == "file.gz"));
      CHECK(same_bits(data::read_idx<T>(directory / name), tensor));
      CHECK(same_bits(std::get<Tensor<T>>(data::read_any_idx(directory / name)), tensor));
    }
  }
}

TEST_CASE("compression can be asked for whatever the name") {
  const TemporaryDirectory directory;
  const Tensor<float> tensor = Tensor<float>::arange(10);
  data::write_idx(directory / "a", tensor, data::Compression::gzip);
  data::write_idx(directory / "b.gz", tensor, data::Compression::none);
  CHECK(data::GzipReader(directory / "a").compressed());
  CHECK_FALSE(data::GzipReader(directory / "b.gz").compressed());
  CHECK(same_bits(data::read_idx<float>(directory / "b.gz"), tensor));
}

TEST_CASE("the bytes of a file are those of the format") {
  const TemporaryDirectory directory;
  const std::string path = directory / "file";
  data::write_idx(path, Tensor<std::int16_t>({2, 3}, {1, -2, 300, -32768, 32767, 0}));
  CHECK(read_file(path) ==
        bytes_of({0,    0,    0x0B, 2,    0,    0,    0,    2,    0,    0,    0,    3,
                  0x00, 0x01, 0xFF, 0xFE, 0x01, 0x2C, 0x80, 0x00, 0x7F, 0xFF, 0x00, 0x00}));
  write_file(path, bytes_of({0, 0, 0x0D, 1, 0, 0, 0, 2, 0x3F, 0x80, 0, 0, 0xC0, 0x49, 0x0F, 0xDB}));
  const Tensor<float> pi = data::read_idx<float>(path);
  CHECK(pi[0] == 1.0f);
  CHECK(pi[1] == -3.14159274f);
  write_file(path, bytes_of({0, 0, 0x0E, 0, 0xBF, 0xE0, 0, 0, 0, 0, 0, 0}));
  CHECK(data::read_idx<double>(path).item() == -0.5);
  write_file(path, bytes_of({0, 0, 0x0C, 1, 0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFD}));
  CHECK(data::read_idx<std::int32_t>(path)[0] == -3);
}

TEST_CASE("a file of any type converts to floats") {
  const TemporaryDirectory directory;
  data::write_idx(directory / "file", Tensor<std::int8_t>(Shape{2}, {-3, 4}));
  const Tensor<float> x = std::visit([](const auto& tensor) { return tensor.template to<float>(); },
                                     data::read_any_idx(directory / "file"));
  CHECK(x[0] == -3.0f);
  CHECK(x[1] == 4.0f);
}

TEST_CASE("files that are no IDX files are refused with what they seem to be") {
  CHECK(error_of_bytes("") == "not an IDX file: it holds only 0 bytes");
  CHECK(error_of_bytes(bytes_of({0, 0, 8})) == "not an IDX file: it holds only 3 bytes");
  const auto begins_with = [](const char* hex) {
    return text("not an IDX file: it begins with ", hex,
                ", an IDX file with 00 00, its type and its rank");
  };
  CHECK(error_of_bytes("text") == begins_with("74 65 78 74"));
  CHECK(error_of_bytes(bytes_of({0, 1, 8, 3})) == begins_with("00 01 08 03"));
  CHECK(error_of_bytes("PK\x03\x04") ==
        begins_with("50 4B 03 04") + "; it looks like a zip archive, unpack it first");
  CHECK(error_of_bytes("<html>") ==
        begins_with("3C 68 74 6D") +
            "; it looks like a web page saved in the file's place, download it again");
  CHECK(error_of_bytes("\x93NUMPY") ==
        begins_with("93 4E 55 4D") + "; it looks like a NumPy array");
  CHECK(error_of_bytes("BZh91AY") ==
        begins_with("42 5A 68 39") + "; it looks like a bzip2 file, unpack it first");
  CHECK(error_of_bytes("\xFD"
                       "7zXZ") ==
        begins_with("FD 37 7A 58") + "; it looks like an xz file, unpack it first");

  const TemporaryDirectory directory;
  data::write_idx(directory / "once.gz", Tensor<float>::arange(3));
  CHECK(error_of_bytes(read_file(directory / "once.gz"), true) ==
        begins_with("1F 8B 08 00") + "; it was compressed twice, unpack it once");
}

TEST_CASE("headers that promise something impossible are refused") {
  CHECK(error_of_bytes(bytes_of({0, 0, 0x0A, 1, 0, 0, 0, 0})) ==
        "unknown IDX type 0x0A; known are 08 uint8, 09 int8, 0B int16, 0C int32, 0D float and 0E "
        "double");
  CHECK(error_of_bytes(bytes_of({0, 0, 8, 9})) == "9 dimensions, at most 8 are supported");
  CHECK(error_of_bytes(bytes_of({0, 0, 8, 255})) == "255 dimensions, at most 8 are supported");
  CHECK(error_of_bytes(bytes_of({0, 0, 8, 3, 0, 0, 0, 1, 0})) ==
        "cut short: the content ends after 9 bytes, within its header of 16");
  const std::string huge = bytes_of({255, 255, 255, 255});
  CHECK(error_of_bytes(bytes_of({0, 0, 8, 2}) + huge + huge) ==
        "its header promises [4294967295, 4294967295] of uint8, more than a computer can address; "
        "the file is "
        "damaged");
  CHECK(error_of_bytes<double>(bytes_of({0, 0, 0x0E, 2, 0x40, 0, 0, 0, 0x40, 0, 0, 0})) ==
        "its header promises [1073741824, 1073741824] of double, more than a computer can address; "
        "the file is "
        "damaged");
  // Empty, but the product of the other dimensions still does not fit.
  CHECK(error_of_bytes(bytes_of({0, 0, 8, 4, 0, 0, 0, 0}) + huge + huge + huge)
            .find("more than a computer") != std::string::npos);
  CHECK(error_of_bytes(
            bytes_of({0, 0, 8, 3, 0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0}))  // 2^61 bytes, and 0
            .find("more than a computer") != std::string::npos);
}

TEST_CASE("files that are shorter or longer than their header promises are refused") {
  const std::string header = bytes_of({0, 0, 0x0B, 2, 0, 0, 0, 2, 0, 0, 0, 3});
  const std::string shorter = text(header, std::string(11, 'x')),
                    longer = text(header, std::string(14, 'x'));
  CHECK(error_of_bytes<std::int16_t>(shorter, false) ==
        "cut short: 23 bytes, but its header promises [2, 3] of int16, 12 bytes, after a header of "
        "12; get the "
        "file again");
  CHECK(error_of_bytes<std::int16_t>(shorter, true) ==
        "cut short: its header promises [2, 3] of int16, 12 bytes, its content ends after 11 of "
        "them; get the "
        "file again");
  CHECK(error_of_bytes<std::int16_t>(longer, false) ==
        "2 bytes follow the end of [2, 3] of int16, 12 bytes, which its header promises; get the "
        "file again");
  CHECK(error_of_bytes<std::int16_t>(longer, true) ==
        "more bytes follow the end of [2, 3] of int16, 12 bytes, which its header promises; get "
        "the file again");
}

TEST_CASE("a header that lies does not get the memory it asks for") {
  // 2^60 bytes: more than any allocator gives, so an attempt to allocate would fail otherwise.
  const std::string lie = bytes_of({0, 0, 8, 2, 0x10, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF});
  const std::size_t before = memory_stats().bytes_reserved;
  CHECK(error_of_bytes(lie + "abc", false)
            .starts_with("cut short: 15 bytes, but its header promises [268435456, "));
  CHECK(error_of_bytes(lie + "abc", true)
            .ends_with("its content ends after 3 of them; get the file again"));
  // The growing buffer is at most doubled.
  CHECK(error_of_bytes(lie + std::string(3 << 20, 'x'), true)
            .ends_with("ends after 3145728 of them; get the file again"));
  CHECK(memory_stats().bytes_reserved == before);
}

TEST_CASE("the type must be the one asked for") {
  CHECK(
      error_of_bytes<float>(bytes_of({0, 0, 8, 1, 0, 0, 0, 1, 5})) ==
      "holds [1] of uint8, not of float; read_idx<uint8> reads it, read_any_idx reads every type");
}

TEST_CASE("damage of the compression shows, also behind the last element") {
  const TemporaryDirectory directory;
  const std::string path = directory / "file.gz";
  data::write_idx(path, Tensor<float>::arange(1000));
  std::string bytes = read_file(path);
  write_file(path, bytes + "x");
  CHECK(error_of<DataError>([&] {
          data::read_idx<float>(path);
        }).find("bytes that are no gzip data follow") != std::string::npos);
  bytes[bytes.size() - 8] ^= 1;
  write_file(path, bytes);
  CHECK(error_of<DataError>([&] { data::read_idx<float>(path); }).find("incorrect data check") !=
        std::string::npos);
}

TEST_CASE("what cannot be written is refused") {
  const TemporaryDirectory directory;
  CHECK(error_of<ShapeError>([&] { data::write_idx(directory / "file", Tensor<float>()); }) ==
        directory / "file" + ": an undefined tensor cannot be written");
  const Tensor<float> long_and_empty(Shape{Index{1} << 32, 0});
  CHECK(error_of<ShapeError>([&] { data::write_idx(directory / "file", long_and_empty); }) ==
        directory / "file" +
            ": shape [4294967296, 0] does not fit an IDX file, whose dimensions have 32 bits");
  CHECK(directory.empty());
}

TEST_CASE("thousands of damaged files give an error or a tensor, and nothing else") {
  const TemporaryDirectory directory;
  const std::string path = directory / "fuzzed";
  std::vector<std::string> seeds;
  data::write_idx(path, sample<std::uint8_t>({3, 4, 5}));
  seeds.push_back(read_file(path));
  data::write_idx(path, sample<double>({6}));
  seeds.push_back(read_file(path));
  data::write_idx(path, sample<std::int16_t>({2, 2, 2, 2, 2, 2, 2, 2}));
  seeds.push_back(read_file(path));

  std::mt19937 random(11);
  int refused = 0, read = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = seeds[random() % seeds.size()];
    for (unsigned changes = random() % 4; changes > 0; --changes) {
      const std::size_t range =
          random() % 2 == 0 ? std::size_t{12} : bytes.size();  // often the header
      char& byte = bytes[random() % range];
      byte = static_cast<char>(random());
      if (random() % 3 == 0) byte = static_cast<char>(byte & 7);
    }
    if (random() % 3 == 0) bytes.resize(random() % (2 * bytes.size()));
    std::filesystem::remove(path);  // see write_file
    data::GzipWriter writer(path, random() % 2 == 0);
    writer.write(bytes.data(), bytes.size());
    writer.commit();
    const std::string error = error_of<DataError>([&] { data::read_any_idx(path); });
    if (!error.empty()) CHECK(error.starts_with(path));
    ++(error.empty() ? read : refused);
  }
  CHECK(read > 500);
  CHECK(refused > 2000);
}
