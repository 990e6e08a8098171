#include "minnow/data/download.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "datasets.hpp"
#include "http_server.hpp"
#include "minnow/data/mnist.hpp"
#include "temporary.hpp"

using namespace minnow;
using namespace minnow_test;

namespace {

using Requests = std::vector<HttpServer::Request>;

/// A file as mirrors hold it: gzip data that hardly compress, so that their length is known
/// roughly.
struct File {
  std::string content, compressed;
  std::uint32_t crc;

  explicit File(unsigned seed = 1, std::size_t size = 200000) : content(size, '\0') {
    std::mt19937 random(seed);
    for (char& byte : content) byte = static_cast<char>(random());
    crc = data::crc32(content.data(), content.size());
    const TemporaryDirectory directory;
    data::GzipWriter writer(directory / "file", true);
    writer.write(content.data(), content.size());
    writer.commit();
    compressed = read_file(directory / "file");
  }
};

const File& file() {
  static const File file;
  return file;
}

/// What `download_file` does with the mirrors of these paths, in a directory of its own.
struct Attempt {
  explicit Attempt(HttpServer::Handler handler) : server(std::move(handler)) {
    options.retry_delay = 0;
    options.notice = [this](const std::string& notice) { notices.push_back(notice); };
  }

  /// Returns the error's text, with the server's address and the directory cut out.
  std::string operator()(const std::vector<std::string>& paths, std::uint32_t crc = file().crc) {
    std::vector<std::string> urls;
    for (const std::string& each : paths) urls.push_back(server.address() + each);
    std::string error = error_of<Error>(
        [&] { data::download_file(path, urls, file().content.size(), crc, options); });
    for (const std::string& cut : {server.address(), directory.path() + "/"})
      for (std::size_t at = error.find(cut); at != std::string::npos; at = error.find(cut))
        error.erase(at, cut.size());
    return error;
  }

  bool whole() const {
    return std::filesystem::exists(path) && read_file(path) == file().compressed;
  }
  /// The directory holds the file alone.
  bool clean() const {
    return std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1 && whole();
  }

  HttpServer server;
  TemporaryDirectory directory;
  std::string path = directory / "file.gz";
  data::DownloadOptions options;
  std::vector<std::string> notices;
};

const std::string hint =
    "\nIs this machine online? A proxy is taken from the variable https_proxy.";

// Tests run behind proxies, too.
const EnvironmentVariable no_proxy("no_proxy", "127.0.0.1");

}  // namespace

TEST_CASE("a good file arrives, with its progress") {
  Attempt attempt([](const std::string&, int) { return Answer{.body = file().compressed}; });
  std::vector<std::uint64_t> received;
  attempt.options.progress = [&](const data::DownloadProgress& progress) {
    CHECK(progress.url == attempt.server.address() + "good");
    CHECK((progress.total == file().compressed.size() || received.empty()));
    CHECK((received.empty() || progress.received >= received.back()));
    received.push_back(progress.received);
  };
  CHECK(attempt({"good"}) == "");
  CHECK(attempt.clean());
  CHECK(received.back() == file().compressed.size());
  CHECK(attempt.notices.empty());
  CHECK(attempt.server.requests() == Requests{{"good", 0}});
}

TEST_CASE("redirections are followed, and a length that is not announced is no obstacle") {
  Attempt attempt([](const std::string& path, int) {
    if (path == "moved") return Answer{.status = 302, .body = "go there", .location = "/good"};
    return Answer{.body = file().compressed, .announce_length = false};
  });
  CHECK(attempt({"moved"}) == "");
  CHECK(attempt.clean());
}

TEST_CASE("mirrors that lack the file, or hold it damaged, are passed over and named") {
  Attempt attempt([](const std::string& path, int) {
    if (path == "good") return Answer{.body = file().compressed};
    if (path == "truncated") return Answer{.body = file().compressed.substr(0, 100000)};
    if (path == "other") return Answer{.body = File(2).compressed};
    if (path == "longer") return Answer{.body = File(3, 200001).compressed};
    if (path == "empty") return Answer{};
    if (path == "page") return Answer{.body = "<html>Please log in</html>"};
    if (path == "endless")
      return Answer{.body = std::string(2000000, 'x'), .announce_length = false};
    Answer corrupt{.body = file().compressed};
    corrupt.body[5000] ^= 1;
    return path == "corrupt" ? corrupt : Answer{.status = 404, .body = "none"};
  });
  CHECK(attempt({"none", "truncated", "corrupt", "other", "longer", "empty", "page", "endless",
                 "good"}) == "");
  CHECK(attempt.clean());
  const std::size_t asked = attempt.server.requests().size();
  CHECK(asked == 9);  // none of these faults is worth another try
  REQUIRE(attempt.notices.size() == 8);
  const auto notice = [&](std::size_t i) {
    return attempt.notices[i].substr(attempt.server.address().size());
  };
  CHECK(notice(0) == "none: The requested URL returned error: 404");
  CHECK(notice(1) == text("truncated: ", attempt.path,
                          ".part: the gzip data are cut short: the file ends after "
                          "100000 bytes, in the middle of its content; get the file again"));
  CHECK(notice(2).find(".part: corrupt gzip data near byte ") != std::string::npos);
  CHECK(notice(3) == "other: the checksum of its content is not that of the published file");
  CHECK(notice(4) == "longer: its content has more than 200000 bytes, expected 200000");
  CHECK(notice(5).find(".part: cannot be opened") != std::string::npos);
  CHECK(notice(6) == "page: its content has 26 bytes, expected 200000");
  CHECK(notice(7) ==
        text("endless: more than the ", 200000 + (1 << 20), " bytes that were expected"));
}

TEST_CASE("when no mirror has the file, the error says what was wrong at each") {
  Attempt attempt([](const std::string& path, int) {
    return path == "other" ? Answer{.body = File(2).compressed} : Answer{.status = 404};
  });
  CHECK(attempt({"other", "none"}) ==
        "file.gz: cannot be downloaded.\n  other: the checksum of its content is not that of the "
        "published file\n"
        "  none: The requested URL returned error: 404" +
            hint);
  CHECK(attempt.directory.empty());
  CHECK(error_of<DataError>([&] {
          data::download_file(attempt.path, {"http://127.0.0.1:1/"}, 10, 0, attempt.options);
        }).find("Failed to connect to 127.0.0.1 port 1") != std::string::npos);
  CHECK(error_of<DataError>([&] {
          data::download_file(attempt.path, {"ftp://127.0.0.1:1/"}, 10, 0, attempt.options);
        }).find("Protocol \"ftp\"") != std::string::npos);
}

TEST_CASE("without a known checksum the length decides") {
  Attempt attempt([](const std::string& path, int) {
    return Answer{.body = path == "good" ? file().compressed : File(3, 199999).compressed};
  });
  CHECK(attempt({"shorter", "good"}, 0) == "");
  CHECK(attempt.clean());
  CHECK(attempt.notices.front().ends_with("its content has 199999 bytes, expected 200000"));
}

TEST_CASE("a broken transfer goes on where it broke") {
  Attempt attempt([](const std::string&, int repetition) {
    Answer answer{.body = file().compressed};
    if (repetition < 2) answer.cut_at = 70000;
    return answer;
  });
  CHECK(attempt({"breaks"}) == "");
  CHECK(attempt.clean());
  CHECK(attempt.server.requests() ==
        Requests{{"breaks", 0}, {"breaks", 70000}, {"breaks", 140000}});
}

TEST_CASE("retries end, and the next mirror takes over what has arrived") {
  Attempt attempt([](const std::string& path, int) {
    Answer answer{.body = file().compressed};
    if (path == "breaks") answer.cut_at = 10000;
    return answer;
  });
  CHECK(attempt({"breaks", "good"}) == "");
  CHECK(attempt.clean());
  CHECK(attempt.server.requests() ==
        Requests{{"breaks", 0}, {"breaks", 10000}, {"breaks", 20000}, {"good", 30000}});
  CHECK(attempt.notices.size() == 1);

  attempt.options.retries = 0;
  std::filesystem::remove(attempt.path);
  CHECK(attempt({"breaks"}).find("transfer closed with ") != std::string::npos);
  CHECK(std::filesystem::file_size(attempt.path + ".part") == 10000);
}

TEST_CASE("a server that ignores ranges sends everything again, and nothing is doubled") {
  Attempt attempt([](const std::string&, int repetition) {
    Answer answer{.body = file().compressed, .ranges = false};
    if (repetition == 0) answer.cut_at = 70000;
    return answer;
  });
  std::uint64_t last = 0;
  attempt.options.progress = [&](const data::DownloadProgress& progress) {
    last = progress.received;
  };
  CHECK(attempt({"whole"}) == "");
  CHECK(attempt.clean());
  CHECK(last == file().compressed.size());
  CHECK(attempt.server.requests() == Requests{{"whole", 0}, {"whole", 70000}});
}

TEST_CASE("a file in parts from different mirrors that do not fit is fetched from the start") {
  Attempt attempt([](const std::string&, int) { return Answer{.body = file().compressed}; });
  attempt.options.retries = 0;
  // The middle of it, a piece that is too long, and one that already has the whole length.
  for (const std::string& part : {File(2).compressed.substr(0, 50000), std::string(300000, 'x'),
                                  std::string(file().compressed.size(), 'x')}) {
    write_file(attempt.path + ".part", part);
    CHECK(attempt({"good"}) == "");
    CHECK(attempt.clean());
    std::filesystem::remove(attempt.path);
  }
  CHECK(attempt.server.requests() == Requests{{"good", 50000},
                                              {"good", 0},
                                              {"good", 300000},
                                              {"good", 0},
                                              {"good", file().compressed.size()},
                                              {"good", 0}});
  CHECK(attempt.notices.empty());
}

TEST_CASE("a part stays while mirrors refuse, for better times") {
  Attempt attempt([](const std::string& path, int) {
    return path == "good" ? Answer{.body = file().compressed} : Answer{.status = 404};
  });
  write_file(attempt.path + ".part", file().compressed.substr(0, 50000));
  CHECK(attempt({"none"}).find("404") != std::string::npos);
  CHECK(attempt({"good"}) == "");
  CHECK(attempt.clean());
  CHECK(attempt.server.requests() == Requests{{"none", 50000}, {"good", 50000}});
}

TEST_CASE("a server in trouble is asked again") {
  Attempt attempt([](const std::string&, int repetition) {
    return repetition == 0   ? Answer{.status = 503}
           : repetition == 1 ? Answer{.body = file().compressed, .cut_at = 0}
                             : Answer{.body = file().compressed};
  });
  CHECK(attempt({"busy"}) == "");
  CHECK(attempt.clean());
  CHECK(attempt.server.requests().size() == 3);
}

TEST_CASE("a server that falls silent is given up after the time-out") {
  Attempt attempt([](const std::string& path, int) {
    Answer answer{.body = file().compressed};
    if (path == "silent") answer.cut_at = 500, answer.stall = true;
    return answer;
  });
  attempt.options.stall_timeout = 1;
  attempt.options.retries = 0;
  CHECK(attempt({"silent", "good"}) == "");
  CHECK(attempt.clean());
  CHECK(attempt.notices.front().find("Operation too slow") != std::string::npos);
  CHECK(attempt.server.requests() == Requests{{"silent", 0}, {"good", 500}});
}

TEST_CASE("a download can be cancelled while nothing arrives, and between attempts") {
  Attempt attempt([](const std::string& path, int) {
    if (path == "busy") return Answer{.status = 503};
    return Answer{.body = file().compressed, .cut_at = 50000, .stall = true};
  });
  using Clock = std::chrono::steady_clock;
  Clock::time_point start = Clock::now();
  attempt.options.cancelled = [&] { return Clock::now() - start > std::chrono::milliseconds(200); };
  CHECK(attempt({"silent"}) == "silent: the download was cancelled");
  CHECK_FALSE(std::filesystem::exists(attempt.path));
  CHECK(std::filesystem::file_size(attempt.path + ".part") == 50000);
  attempt.options.retry_delay = 100;
  start = Clock::now();
  CHECK(attempt({"busy"}) == "busy: the download was cancelled");
  CHECK(Clock::now() - start < std::chrono::seconds(5));
  // A data set that is not found may be replaced by another one; a wish to stop may not.
  CHECK_FALSE(std::is_base_of_v<DataError, data::DownloadCancelled>);
}

TEST_CASE("what a callback throws arrives at the caller") {
  Attempt attempt([](const std::string&, int) { return Answer{.body = file().compressed}; });
  attempt.options.cancelled = []() -> bool { throw ShapeError("from the callback"); };
  CHECK(attempt({"good"}) == "from the callback");
  CHECK_FALSE(std::filesystem::exists(attempt.path));
}

TEST_CASE("a file that cannot be written says so") {
  Attempt attempt([](const std::string&, int) { return Answer{.body = file().compressed}; });
  std::filesystem::create_directory(attempt.path);
  write_file(attempt.path + "/inside", "");
  CHECK(attempt({"good"}) == "file.gz: cannot be given its name: Is a directory");
  std::filesystem::remove(attempt.path + ".part");
  std::filesystem::create_directory(attempt.path + ".part");
  CHECK(attempt({"good"}).find("file.gz.part: cannot be written") == 0);
}

TEST_CASE("of two that download the same file, one waits and finds it") {
  Attempt attempt([](const std::string&, int) { return Answer{.body = file().compressed}; });
  std::mutex mutex;
  std::vector<std::string> notices;
  attempt.options.notice = [&](const std::string& notice) {
    const std::lock_guard lock(mutex);
    notices.push_back(notice);
  };
  // The first is held up until the second has asked for its turn.
  attempt.options.progress = [&](const data::DownloadProgress&) {
    for (int i = 0; i < 100; ++i) {
      {
        const std::lock_guard lock(mutex);
        if (!notices.empty()) return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  };
  std::string errors[2];
  std::thread other([&] { errors[0] = attempt({"good"}); });
  errors[1] = attempt({"good"});
  other.join();
  CHECK(errors[0] == "");
  CHECK(errors[1] == "");
  CHECK(attempt.clean());
  CHECK(attempt.server.requests() == Requests{{"good", 0}});
  REQUIRE(notices.size() == 1);
  CHECK(notices[0].ends_with(": waiting for another program that downloads into its folder"));
}

TEST_CASE("a mirror may be a folder of this machine, with any characters in its name") {
  const TemporaryDirectory directory;
  const std::string folder = directory / "50 % of süß";
  std::filesystem::create_directory(folder);
  write_file(folder + "/file.gz", file().compressed);
  const std::string path = directory / "file.gz";
  data::download_file(path, {data::detail::mirror_url(folder) + "/file.gz"}, file().content.size(),
                      file().crc);
  CHECK(read_file(path) == file().compressed);
  CHECK(error_of<DataError>([&] {
          data::download_file(path, {data::detail::mirror_url(folder) + "/none"}, 1, 0);
        }).find("online") == std::string::npos);
}

TEST_CASE("a data set of four files is fetched from the first mirror that has each") {
  // The lengths are all that is known of KMNIST, and zeros compress well.
  const TemporaryDirectory mirror;
  for (const data::DatasetFile& each : data::dataset_files) {
    if (each.dataset != data::Dataset::kmnist) continue;
    const Index count = each.split == data::Split::train ? 60000 : 10000;
    data::write_idx(mirror / (each.name() + ".gz"),
                    Tensor<std::uint8_t>::zeros(each.labels ? Shape{count} : Shape{count, 28, 28}));
  }
  HttpServer server([&](const std::string& path, int) {
    if (path == "second/t10k-labels-idx1-ubyte.gz") return Answer{.status = 404};
    const std::string name = path.substr(path.find('/') + 1);
    return path.starts_with("second/") ? Answer{.body = read_file(mirror / name)}
                                       : Answer{.status = 404};
  });
  const TemporaryDirectory cache;
  const EnvironmentVariable variable("XDG_CACHE_HOME", cache.path().c_str());
  const EnvironmentVariable unset("MINNOW_DATA_DIR", nullptr);
  std::vector<std::string> notices;
  const data::Downloader downloader(
      {.mirrors = {server.address() + "first", server.address() + "second/",
                   "file://" + mirror.path()},
       .notice = [&](const std::string& notice) { notices.push_back(notice); }});
  const data::MNISTOptions options{.dataset = data::Dataset::kmnist, .download = downloader};
  const data::MNIST train(data::Split::train, options), test(data::Split::test, options);
  CHECK(train.size() == 60000);
  CHECK(test.size() == 10000);
  CHECK(train.source() == cache.path() + "/minnow/kmnist");
  CHECK(server.requests().size() == 8);
  CHECK(notices.size() == 5);

  // What is right stays, what is not is fetched again, and hides nothing.
  const std::string directory = train.source(), plain = directory + "/train-images-idx3-ubyte";
  write_file(directory + "/t10k-images-idx3-ubyte.gz", "damaged");
  write_file(plain, "cut short");
  downloader(data::Dataset::kmnist, directory);
  CHECK(server.requests().size() == 12);
  CHECK(read_file(plain + ".bad") == "cut short");
  CHECK(data::MNIST(data::Split::train, {.dataset = data::Dataset::kmnist, .root = directory})
            .size() == 60000);
  CHECK(data::MNIST(data::Split::test, {.dataset = data::Dataset::kmnist, .root = directory})
            .size() == 10000);
}

TEST_CASE("a mirror with another data set under the same names is refused by the checksum") {
  const std::string fashion = directory_of(data::Dataset::fashion);
  if (fashion.empty()) return;
  const TemporaryDirectory directory;
  const std::string error = error_of<DataError>([&] {
    data::Downloader({.mirrors = {"file://" + fashion}})(data::Dataset::mnist, directory.path());
  });
  CHECK(error.find("the checksum of its content is not that of the published file") !=
        std::string::npos);
  CHECK(directory.empty());
  data::Downloader({.mirrors = {"file://" + fashion}})(data::Dataset::fashion, directory.path());
  CHECK(
      data::MNIST(data::Split::test, {.dataset = data::Dataset::fashion, .root = directory.path()})
          .canonical());
}

TEST_CASE("a directory that cannot be made is named") {
  const TemporaryDirectory directory;
  write_file(directory / "file", "");
  const std::string path = directory.path() + "/file/below";
  CHECK(error_of<DataError>([&] { data::Downloader()(data::Dataset::mnist, path); }) ==
        path + ": cannot be created: Not a directory");
}
