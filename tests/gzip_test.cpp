#include "minnow/data/gzip.hpp"

#include <doctest/doctest.h>

#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <random>
#include <string>
#include <thread>

#include "temporary.hpp"

using namespace minnow;
using namespace minnow_test;

namespace {

/// The whole content, read in pieces of the given size.
std::string read_all(data::GzipReader& reader, std::size_t piece = 1 << 16) {
  std::string content, buffer(piece, '\0');
  for (;;) {
    const std::size_t got = reader.read(buffer.data(), piece);
    content.append(buffer, 0, got);
    if (got < piece) return content;
  }
}
std::string read_all(const std::string& path) {
  data::GzipReader reader(path);
  return read_all(reader);
}

void write_all(const std::string& path, const std::string& content, bool compress) {
  data::GzipWriter writer(path, compress);
  writer.write(content.data(), content.size());
  writer.commit();
}

/// Bytes of so many kinds: of few, they compress somewhat, of 256 not at all.
std::string sample_bytes(std::size_t count, unsigned kinds = 7) {
  std::mt19937 random(1);
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() % kinds);
  return bytes;
}

std::string gzipped(const std::string& content) {
  const TemporaryDirectory directory;
  write_all(directory / "file", content, true);
  return read_file(directory / "file");
}

std::string error_of_bytes(const std::string& bytes) {
  const TemporaryDirectory directory;
  write_file(directory / "file.gz", bytes);
  std::string error = error_of<DataError>([&] { read_all(directory / "file.gz"); });
  // The path differs from run to run.
  if (const std::size_t at = error.find("/file.gz"); at != std::string::npos)
    error.erase(0, at + 1);
  return error;
}

}  // namespace

TEST_CASE("crc32 gives the check value of its definition, at once and in pieces") {
  const std::string check_text = "123456789";
  CHECK(data::crc32(check_text.data(), 9) == 0xCBF43926u);
  CHECK(data::crc32(check_text.data() + 4, 5, data::crc32(check_text.data(), 4)) == 0xCBF43926u);
  CHECK(data::crc32(nullptr, 0) == 0);
}

TEST_CASE("what is written is read again, compressed or not, whatever the size and the name") {
  const TemporaryDirectory directory;
  for (const std::size_t size : {0u, 1u, 2u, 3u, 1000u, 65535u, 65536u, 65537u, 300000u}) {
    for (const bool compress : {false, true}) {
      const std::string content = sample_bytes(size);
      // The name says the opposite of what the file is.
      const std::string path = directory / (compress ? "plain" : "file.gz");
      write_all(path, content, compress);
      data::GzipReader reader(path);
      CHECK(reader.compressed() == compress);
      CHECK(reader.size().has_value() == !compress);
      if (!compress) CHECK(*reader.size() == size);
      CHECK(read_all(reader, 1009) == content);
      CHECK(reader.position() == size);
      CHECK(reader.crc() == data::crc32(content.data(), size));
      CHECK(reader.path() == path);
      if (compress && size > 1000) CHECK(std::filesystem::file_size(path) < size / 2);
    }
  }
}

TEST_CASE("what does not compress is written whole") {
  const std::string content = sample_bytes(500000, 256);
  const TemporaryDirectory directory;
  write_all(directory / "file", content, true);
  CHECK(std::filesystem::file_size(directory / "file") > 490000);
  CHECK(read_all(directory / "file") == content);
}

TEST_CASE("a pipe is written to and read from, and stays one") {
  const TemporaryDirectory directory;
  const std::string path = directory / "pipe", content = sample_bytes(200000);
  REQUIRE(mkfifo(path.c_str(), 0600) == 0);
  for (const bool compress : {false, true}) {
    std::thread writer([&] { write_all(path, content, compress); });
    data::GzipReader reader(path);
    CHECK_FALSE(reader.size().has_value());
    CHECK(read_all(reader) == content);
    writer.join();
  }
  CHECK(std::filesystem::is_fifo(path));
}

TEST_CASE("a link stays one and leads to the new content, a private file stays private") {
  const TemporaryDirectory directory;
  const std::string file = directory / "file", link = directory / "link";
  write_file(file, "old");
  std::filesystem::permissions(file, std::filesystem::perms::owner_read);
  std::filesystem::create_symlink("file", link);
  write_all(link, "new", false);
  CHECK(std::filesystem::is_symlink(link));
  CHECK(read_file(file) == "new");
  CHECK(std::filesystem::status(file).permissions() == std::filesystem::perms::owner_read);
}

TEST_CASE("nothing can be written to a file that is complete") {
  const TemporaryDirectory directory;
  const std::string path = directory / "file";
  for (const bool compress : {false, true}) {
    data::GzipWriter writer(path, compress);
    writer.commit();
    const std::string complete = path + ": is complete, nothing can be written to it now";
    CHECK(error_of<DataError>([&] { writer.commit(); }) == complete);
    const std::string bytes = sample_bytes(300000, 256);
    CHECK(error_of<DataError>([&] { writer.write(bytes.data(), bytes.size()); }) == complete);
  }
}

TEST_CASE("members of a gzip file that follow one another are one content") {
  const TemporaryDirectory directory;
  const std::string a = sample_bytes(100000), b = "second", path = directory / "joined.gz";
  write_file(path, gzipped(a) + gzipped("") + gzipped(b));
  CHECK(read_all(path) == a + b);
}

TEST_CASE("gzip data that are cut short anywhere are refused") {
  const std::string bytes = gzipped(sample_bytes(2000));
  for (std::size_t length = 2; length < bytes.size(); ++length) {
    const std::string error = error_of_bytes(bytes.substr(0, length));
    CHECK_MESSAGE(error == text("file.gz: the gzip data are cut short: the file ends after ",
                                length, " bytes, in the middle of its content; get the file again"),
                  length);
  }
}

TEST_CASE("corrupt gzip data are refused, be it the data or the checksum that is wrong") {
  const std::string good = gzipped(sample_bytes(2000));
  std::string bytes = good;
  bytes[bytes.size() - 6] ^= 1;  // within the CRC
  CHECK(error_of_bytes(bytes) == text("file.gz: corrupt gzip data near byte ", good.size() - 4,
                                      " of the file (incorrect data check); get the file again"));
  bytes = good;
  bytes[bytes.size() - 1] ^= 1;  // within the length
  CHECK(error_of_bytes(bytes) == text("file.gz: corrupt gzip data near byte ", good.size(),
                                      " of the file (incorrect length check); get the file again"));
  bytes = good;
  bytes[2] = 7;  // the method
  CHECK(error_of_bytes(bytes).find("(unknown compression method)") != std::string::npos);
}

TEST_CASE("bytes behind the end of gzip data are refused") {
  const std::string good = gzipped("content");
  CHECK(error_of_bytes(good + "x") ==
        text("file.gz: bytes that are no gzip data follow the end of its "
             "content, at byte ",
             good.size(), "; get the file again"));
  CHECK(error_of_bytes(good + '\0').find("bytes that are no gzip data follow") !=
        std::string::npos);
  CHECK(error_of_bytes(good + "\x1F").find("cut short") != std::string::npos);
}

TEST_CASE("files that cannot be read say why") {
  const TemporaryDirectory directory;
  CHECK(error_of<DataError>([&] { data::GzipReader(directory / "none"); }) ==
        directory / "none" + ": cannot be opened: No such file or directory");
  CHECK(error_of<DataError>([&] { data::GzipReader(directory.path()); }) ==
        directory.path() + ": cannot be read: Is a directory");
}

TEST_CASE("a file appears under its name when it is complete, and an old one stays until then") {
  const TemporaryDirectory directory;
  const std::string path = directory / "file";
  {
    data::GzipWriter writer(path, true);
    writer.write("abc", 3);
    CHECK_FALSE(std::filesystem::exists(path));
  }
  CHECK(directory.empty());

  write_all(path, "old", false);
  {
    data::GzipWriter first(path, false), second(path, false);  // two at a time do not meet
    first.write("first", 5);
    second.write("second", 6);
    CHECK(read_all(path) == "old");
    first.commit();
    CHECK(read_all(path) == "first");
    second.commit();
  }
  CHECK(read_all(path) == "second");
  std::filesystem::remove(path);
  CHECK(directory.empty());
}

TEST_CASE("files that cannot be written say why, and leave nothing behind") {
  const TemporaryDirectory directory;
  CHECK(error_of<DataError>([&] { data::GzipWriter(directory.path() + "/none/file", false); }) ==
        directory.path() + "/none/file: cannot be created: No such file or directory");
  const std::string taken = directory / "taken/inner";
  write_file(taken, "");
  const std::string path = directory.path() + "/taken";
  const std::string error = error_of<DataError>([&] { write_all(path, "x", false); });
  CHECK(error == path + ": cannot be written: Is a directory");
  std::filesystem::remove_all(path);
  CHECK(directory.empty());

  // A disk that is full, in small: no file of this process may grow beyond 1000 bytes.
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{1000, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string full =
      error_of<DataError>([&] { write_all(path, std::string(100000, 'x'), false); });
  const std::string at_commit =
      error_of<DataError>([&] { write_all(path, std::string(1001, 'x'), false); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(full == path + ".tmp0: cannot be written: File too large");
  CHECK(at_commit == full);
  CHECK(directory.empty());
}

TEST_CASE("thousands of damaged gzip files give an error or a content, and nothing else") {
  const TemporaryDirectory directory;
  const std::string path = directory / "fuzzed", content = sample_bytes(3000),
                    good = gzipped(content);
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = good;
    for (unsigned changes = 1 + random() % 4; changes > 0; --changes) {
      char& byte = bytes[random() % bytes.size()];
      byte = static_cast<char>(random());
    }
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    write_file(path, bytes);
    std::string read;
    if (!error_of<DataError>([&] { read = read_all(path); }).empty()) ++refused;
    // The checksum leaves nothing else than the same content, a change of the header's idle fields,
    // or a file that is no gzip file any more.
    else
      CHECK((read == content || read == bytes));
  }
  CHECK(refused > 3000);
}
