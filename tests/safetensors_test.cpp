#include "minnow/io/safetensors.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "minnow/nn/activations.hpp"
#include "minnow/nn/batch_norm.hpp"
#include "minnow/nn/conv2d.hpp"
#include "minnow/nn/sequential.hpp"
#include "temporary.hpp"

using namespace minnow;
using namespace minnow_test;

namespace {

// A file as the format's description asks, by its parts.
std::string file_of(const std::string& header, const std::string& numbers = "") {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return bytes + header + numbers;
}

template <class T>
const Tensor<T>& as(const StateDict& state, const std::string& name) {
  REQUIRE(state.contains(name));
  REQUIRE(std::holds_alternative<Tensor<T>>(state.at(name)));
  return std::get<Tensor<T>>(state.at(name));
}

template <class T>
void check_same_bits(const Tensor<T>& a, const Tensor<T>& b) {
  REQUIRE(a.shape() == b.shape());
  CHECK(std::memcmp(a.data(), b.data(), a.values().size_bytes()) == 0);
}

}  // namespace

TEST_CASE("what is written is the format's, byte for byte") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  const StateDict state = {{"b", Tensor<float>({2}, {1, -2})},
                           {"a", Tensor<float>({1, 1}, {0.5f})},
                           {"count", Tensor<std::int64_t>::scalar(258)}};
  io::save_safetensors(path, state);
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"data_offsets":[8,12],"dtype":"F32","shape":[1,1]},)"
      R"("b":{"data_offsets":[12,20],"dtype":"F32","shape":[2]},)"
      R"("count":{"data_offsets":[0,8],"dtype":"I64","shape":[]}})";
  const std::string padding((8 - header.size() % 8) % 8, ' ');
  const std::string numbers("\x02\x01\0\0\0\0\0\0\0\0\0\x3F\0\0\x80\x3F\0\0\0\xC0", 20);
  CHECK(read_file(path) == file_of(header + padding, numbers));
}

TEST_CASE("tensors come back bit for bit, and so do their names and the metadata") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  auto floats = Tensor<float>::normal({3, 5, 7});
  floats[0] = std::numeric_limits<float>::quiet_NaN();
  floats[1] = -std::numeric_limits<float>::infinity();
  floats[2] = -0.0f;
  const auto doubles = Tensor<double>::normal({10'001});
  const auto integers =
      Tensor<std::int64_t>({2}, {std::numeric_limits<std::int64_t>::min(), 1'000'000'007});
  const StateDict state = {{"floats", floats},
                           {"doubles", doubles},
                           {"integers", integers},
                           {"empty", Tensor<float>({3, 0})},
                           {"scalar", Tensor<float>::scalar(3)},
                           {"\"quoted\"\n\\ käse", Tensor<float>::ones({1})},
                           {"", Tensor<float>::ones({2})}};
  const io::Metadata metadata = {{"epoch", "12"}, {"note", "\"ü\" \t"}};
  for (int i = 0; i < 2; ++i) {  // the second replaces the first
    io::save_safetensors(path, state, metadata);
    const StateDict loaded = io::load_safetensors(path);
    CHECK(loaded.size() == state.size());
    check_same_bits(as<float>(loaded, "floats"), floats);
    check_same_bits(as<double>(loaded, "doubles"), doubles);
    check_same_bits(as<std::int64_t>(loaded, "integers"), integers);
    CHECK(as<float>(loaded, "empty").shape() == Shape{3, 0});
    CHECK(as<float>(loaded, "scalar").item() == 3);
    CHECK(as<float>(loaded, "scalar").shape() == Shape{});
    CHECK(loaded.contains("\"quoted\"\n\\ käse"));
    CHECK(as<float>(loaded, "").shape() == Shape{2});
    CHECK(io::load_safetensors_metadata(path) == metadata);
  }
  io::save_safetensors(path, {}, {});
  CHECK(read_file(path) == file_of("{}      "));
  CHECK(io::load_safetensors(path).empty());
  CHECK(io::load_safetensors_metadata(path).empty());
}

TEST_CASE("a network goes on as another one") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  const auto make = [] {
    return nn::Sequential{nn::Conv2d(2, 3, 3), nn::BatchNorm2d(3), nn::ReLU()};
  };
  auto net = make(), other = make();
  const Variable<float> x(Tensor<float>::normal({4, 2, 6, 6}));
  net(x);  // moves the running statistics
  io::save_safetensors(path, net.state_dict());
  const StateDict state = io::load_safetensors(path);
  std::string names;
  for (const auto& [name, tensor] : state) names += name + ' ';
  CHECK(names ==
        "0.bias 0.weight 1.bias 1.num_batches_tracked 1.running_mean 1.running_var 1.weight ");
  other.load_state_dict(state);
  net.eval();
  other.eval();
  check_same_bits(net(x).value(), other(x).value());

  nn::Sequential<double> wide{nn::Conv2d<double>(2, 3, 3), nn::BatchNorm2d<double>(3)};
  wide.load_state_dict(state);
  CHECK(wide.named_parameters()[0].second.value()[0] ==
        double{net.named_parameters()[0].second.value()[0]});
}

TEST_CASE("other types become the next that holds all their numbers") {
  const TemporaryDirectory directory;
  const std::string path = directory / "types";
  // In no order, with spaces, unaligned, with members that nobody knows.
  write_file(path,
             file_of(
                 R"({"u8": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3], "extra": null},
            "f16": {"shape": [2], "data_offsets": [3, 7], "dtype": "F16"},)"
                 R"("i16":{"dtype":"I16","shape":[1],"data_offsets":[13,15]},)"
                 R"("i32":{"dtype":"I32","shape":[],"data_offsets":[15,19]},)"
                 R"("bf16":{"dtype":"BF16","shape":[1,2],"data_offsets":[9,13]},)"
                 R"("i8":{"dtype":"I8","shape":[2],"data_offsets":[7,9]},)"
                 R"("u16":{"dtype":"U16","shape":[1],"data_offsets":[19,21]},)"
                 R"("u32":{"dtype":"U32","shape":[1],"data_offsets":[21,25]},)"
                 R"("bool":{"dtype":"BOOL","shape":[2],"data_offsets":[25,27]}})",
                 std::string("\x00\x7F\xFF"
                             "\x00\x3C\x00\xC1"
                             "\x80\x7F"
                             "\x80\x3F\x49\xC0"
                             "\xFE\xFF"
                             "\x01\x00\x00\x80"
                             "\xFF\xFF"
                             "\xFF\xFF\xFF\xFF"
                             "\x00\x01",
                             27)));
  const StateDict state = io::load_safetensors(path);
  const auto integers = [&](const std::string& name) {
    const auto& tensor = as<std::int64_t>(state, name);
    return std::vector<std::int64_t>(tensor.values().begin(), tensor.values().end());
  };
  using Integers = std::vector<std::int64_t>;
  CHECK(integers("u8") == Integers{0, 127, 255});
  CHECK(integers("i8") == Integers{-128, 127});
  CHECK(integers("i16") == Integers{-2});
  CHECK(integers("i32") == Integers{-2147483647});
  CHECK(integers("u16") == Integers{65535});
  CHECK(integers("u32") == Integers{4294967295});
  CHECK(integers("bool") == Integers{0, 1});
  CHECK(as<float>(state, "f16")[0] == 1);
  CHECK(as<float>(state, "f16")[1] == -2.5f);
  CHECK(as<float>(state, "bf16")[0] == 1);
  CHECK(as<float>(state, "bf16")[1] == -3.140625f);
}

TEST_CASE("every number of 16 bits is the float it stands for") {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const bool negative = (bits & 0x8000) != 0;
    const int exponent = static_cast<int>(bits >> 10 & 31),
              mantissa = static_cast<int>(bits & 1023);
    const auto half = static_cast<float>(io::Half{static_cast<std::uint16_t>(bits)});
    CHECK_EQ(std::signbit(half), negative);
    if (exponent == 31)
      CHECK((mantissa == 0 ? std::isinf(half) : std::isnan(half)));
    else if (exponent == 0)
      CHECK(std::abs(half) == std::ldexp(static_cast<float>(mantissa), -24));
    else
      CHECK(std::abs(half) == std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25));
  }
  CHECK(static_cast<float>(io::BFloat16{0x0001}) == std::ldexp(1.0f, -133));
  CHECK(static_cast<float>(io::BFloat16{0xFF80}) == -std::numeric_limits<float>::infinity());
}

TEST_CASE("errors name the file, what was found and what was expected") {
  const TemporaryDirectory directory;
  const std::string path = directory / "bad";
  const auto error = [&](const std::string& bytes) {
    write_file(path, bytes);
    const std::string message = error_of<DataError>([&] { io::load_safetensors(path); });
    CHECK(message == error_of<DataError>([&] { io::load_safetensors_metadata(path); }));
    REQUIRE(message.starts_with(path + ": "));
    return message.substr(path.size() + 2);
  };
  const auto entry_error = [&](const std::string& entry, std::size_t numbers = 8) {
    return error(file_of(R"({"w":)" + entry + "}", std::string(numbers, '\0')));
  };

  CHECK(error("") == "not a safetensors file: it holds only 0 bytes");
  CHECK(error("{}") == "not a safetensors file: it holds only 2 bytes");
  CHECK(error("\x89PNG\r\n\x1A\n....") ==
        "not a safetensors file, or cut short: its first eight bytes promise a header of "
        "727905341920923785 bytes, but 4 follow, and a header has at most 100000000");
  CHECK(error(file_of("[1]")) == "not a safetensors file: its header begins with no {");
  CHECK(error(file_of("")) == "not a safetensors file: its header begins with no {");
  CHECK(error(file_of("{\"w\":}")).starts_with("its header is no valid JSON: "));
  CHECK(error(file_of("{\"\xFF\":1}")).starts_with("its header is no valid JSON: "));
  CHECK(error(file_of("{} x")).starts_with("its header is no valid JSON: "));
  CHECK(error(file_of(R"({"w":[[[[1]]]]})")) ==
        "its header is nested more deeply than a header can be");
  const std::string good = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  CHECK(error(file_of(R"({"w":)" + good + R"(,"w":)" + good + "}", std::string(8, ' '))) ==
        "its header names w twice");
  CHECK(error(file_of(R"({"__metadata__":1})")) == "its __metadata__ is no JSON object");
  CHECK(error(file_of(R"({"__metadata__":{"epoch":1}})")) == "its __metadata__ epoch is no text");

  CHECK(entry_error("1") == "w: its entry in the header lacks dtype, shape or data_offsets");
  CHECK(entry_error(R"({"dtype":4,"shape":[2],"data_offsets":[0,8]})") ==
        "w: its entry in the header lacks dtype, shape or data_offsets");
  CHECK(entry_error(R"({"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]})") ==
        "w has the type F8_E4M3; those that can be read are F64, F32, F16, BF16, I64, I32, I16, "
        "I8, U32, U16, U8 and BOOL");
  CHECK(entry_error(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})") ==
        "w: its shape is no list of numbers");
  for (const char* number : {"-2", "2.0", "\"2\"", "9223372036854775808", "1e400"})
    CHECK(entry_error(text(R"({"dtype":"F32","shape":[)", number, R"(],"data_offsets":[0,8]})"))
              .find(number == std::string("1e400")
                        ? "no valid JSON"
                        : "; expected are whole numbers from 0 to 2^63 - 1") != std::string::npos);
  CHECK(entry_error(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]})") ==
        "w has 9 dimensions, at most 8 are supported");
  CHECK(
      entry_error(R"({"dtype":"F32","shape":[4294967296,0,4294967296],"data_offsets":[0,8]})") ==
      "w has the shape [4294967296, 0, 4294967296], more than a computer can address; the file is "
      "damaged");
  CHECK(entry_error(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})") ==
        "w: its data_offsets [0,8] are not 12 bytes apart, as [3] of F32 needs");
  CHECK(entry_error(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})") ==
        "w: its data_offsets [8,0] are not 8 bytes apart, as [2] of F32 needs");
  CHECK(entry_error(R"({"dtype":"F32","shape":[2],"data_offsets":[4,12]})", 12) ==
        "w begins at byte 4 of the numbers, expected at 0, where the tensor before it ends");
  CHECK(entry_error(good, 7) == "7 bytes follow its header, which promises 8; get the file again");
  CHECK(entry_error(good, 9) == "9 bytes follow its header, which promises 8; get the file again");

  CHECK(error_of<DataError>([&] { io::load_safetensors(directory / "none"); }) ==
        directory / "none: cannot be opened: No such file or directory");
  CHECK(error_of<DataError>([&] { io::load_safetensors(directory.path()); }) ==
        directory.path() + ": cannot be read: Is a directory");
}

TEST_CASE("damaged files give errors, whatever is damaged") {
  const TemporaryDirectory directory;
  const std::string path = directory / "damaged";
  nn::Sequential net{nn::Conv2d(1, 2, 3), nn::BatchNorm2d(2)};
  io::save_safetensors(path, net.state_dict());
  const std::string good = read_file(path);
  const auto survives = [&](const std::string& bytes) {
    write_file(path, bytes);
    try {
      io::load_safetensors(path);
      return true;
    } catch (const DataError&) {
      return false;
    }
  };
  for (std::size_t length = 0; length < good.size(); ++length)
    REQUIRE_FALSE(survives(good.substr(0, length)));
  CHECK_FALSE(survives(good + ' '));
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = good;
    for (int j = 0; j < 1 + i % 3; ++j)
      bytes[random() % (8 + 500)] = static_cast<char>(random() % 256);
    refused += !survives(bytes);
  }
  CHECK(refused > 1500);  // the others changed a name, or a space
  CHECK(survives(good));
}

TEST_CASE("what cannot be written leaves the old file as it was") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  io::save_safetensors(path, {{"w", Tensor<float>::ones({2})}});
  const std::string before = read_file(path);
  CHECK(error_of<Error>([&] {
          io::save_safetensors(path, {{"w", Tensor<float>()}});
        }) == path + ": w is undefined and cannot be written");
  CHECK(error_of<Error>([&] {
          io::save_safetensors(path, {{"__metadata__", Tensor<float>::ones({1})}});
        }) == path + ": a tensor cannot be called __metadata__");
  CHECK(error_of<Error>([&] {
          io::save_safetensors(path, {{"\xFF", Tensor<float>::ones({1})}});
        }).starts_with(path + ": the names or the metadata are no UTF-8: "));
  CHECK(error_of<Error>([&] {
          io::save_safetensors(path, {}, {{"note", "\xC3"}});
        }).starts_with(path + ": the names or the metadata are no UTF-8: "));
  CHECK(read_file(path) == before);
  CHECK(error_of<DataError>([&] { io::save_safetensors(directory.path() + "/no/net", {}); }) ==
        directory.path() + "/no/net: cannot be created: No such file or directory");
}
