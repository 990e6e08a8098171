#pragma once
/// @file
/// Downloads of data sets. The only door to libcurl, and therefore not part of minnow.hpp: include
/// it where you need it and link `minnow::download`.

#include <curl/curl.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "minnow/data/folder_lock.hpp"
#include "minnow/data/gzip.hpp"
#include "minnow/data/mirrors.hpp"
#include "minnow/data/paths.hpp"

namespace minnow::inline MINNOW_ABI::data {

/// `DownloadOptions::cancelled` has said yes. What has arrived is kept, and the next download goes
/// on.
class DownloadCancelled : public Error {
 public:
  using Error::Error;
};

/// How far the download of one file is, in bytes of the file as it is sent.
struct DownloadProgress {
  std::string_view url;
  std::uint64_t received = 0;
  std::uint64_t total = 0;  ///< 0 while unknown
};

struct DownloadOptions {
  /// Addresses of folders that hold the files, or folders of this machine, tried one after the
  /// other. Empty: `dataset_mirrors`.
  std::vector<std::string> mirrors = {};
  /// Called several times a second while data arrive, and once at the end of each file.
  std::function<void(const DownloadProgress&)> progress = nullptr;
  /// Asked at least once a second; true ends the download with DownloadCancelled.
  std::function<bool()> cancelled = nullptr;
  /// Told what goes wrong without ending the download, such as a mirror that is passed over.
  std::function<void(const std::string&)> notice = nullptr;
  long connect_timeout = 10;  ///< seconds
  long stall_timeout = 20;    ///< seconds with less than a kilobyte each
  int retries = 2;            ///< how often a broken transfer is taken up again
  double retry_delay = 1;     ///< seconds before that
};

namespace detail {

/// One request whose answer goes to the end of a file.
class Transfer {
 public:
  enum class Outcome {
    complete,
    broken,    ///< worth taking up again
    unusable,  ///< what has arrived is no beginning of the file
    refused,   ///< nothing to be had at this address
  };

  /// `most`: how long the file may be.
  Transfer(const DownloadOptions& options, std::string url, std::string part, std::uint64_t most)
      : options_(options), url_(std::move(url)), part_(std::move(part)), most_(most) {
    // Once for the process; safe with other users of libcurl.
    static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
    curl_.reset(initialised == CURLE_OK ? curl_easy_init() : nullptr);
    check(curl_ != nullptr, "libcurl cannot be initialised");
    std::error_code none;
    const auto before = std::filesystem::file_size(part_, none);
    offset_ = none ? 0 : before;
    resuming_ = offset_ > 0;
  }

  /// True if part of the file was there before.
  bool resuming() const { return resuming_; }

  /// Fetches what the file lacks. Errors: DataError where the file cannot be written,
  /// DownloadCancelled, and whatever the callbacks throw.
  Outcome run() {
    set_options();
    const CURLcode code = curl_easy_perform(curl_.get());
    if (thrown_) std::rethrow_exception(thrown_);
    check<DownloadCancelled>(!cancelled_, url_, ": the download was cancelled");
    if (file_) write_failed_ = std::fclose(file_.release()) != 0 || write_failed_;
    minnow::detail::check_file(!write_failed_, part_, "cannot be written");
    if (code == CURLE_OK) {
      if (options_.progress) options_.progress({url_, offset_ + received_, offset_ + received_});
      return Outcome::complete;
    }

    long status = 0;
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &status);
    problem_ = too_long_          ? text("more than the ", most_, " bytes that were expected")
               : message_[0] != 0 ? message_
                                  : curl_easy_strerror(code);
    if (too_long_ || status == 416 || code == CURLE_RANGE_ERROR ||
        code == CURLE_BAD_DOWNLOAD_RESUME)
      return Outcome::unusable;
    if (status >= 500 || received_ > 0 || code == CURLE_PARTIAL_FILE || code == CURLE_RECV_ERROR ||
        code == CURLE_GOT_NOTHING)
      return Outcome::broken;
    return Outcome::refused;
  }

  /// Why the outcome was not `complete`.
  const std::string& problem() const { return problem_; }

 private:
  struct Cleanup {
    void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
  };

  template <class Value>
  void set(CURLoption option, Value value) {
    curl_easy_setopt(curl_.get(), option, value);
  }

  void set_options() {
    set(CURLOPT_URL, url_.c_str());
    set(CURLOPT_USERAGENT, "minnow");
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_FAILONERROR, 1L);
    set(CURLOPT_FOLLOWLOCATION, 1L);
    set(CURLOPT_MAXREDIRS, 5L);
#if LIBCURL_VERSION_NUM >= 0x075500
    set(CURLOPT_PROTOCOLS_STR, "http,https,file");
    set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#else
    set(CURLOPT_PROTOCOLS, long{CURLPROTO_HTTP | CURLPROTO_HTTPS | CURLPROTO_FILE});
    set(CURLOPT_REDIR_PROTOCOLS, long{CURLPROTO_HTTP | CURLPROTO_HTTPS});
#endif
    set(CURLOPT_CONNECTTIMEOUT, options_.connect_timeout);
    set(CURLOPT_LOW_SPEED_LIMIT, 1024L);
    set(CURLOPT_LOW_SPEED_TIME, options_.stall_timeout);
    set(CURLOPT_ERRORBUFFER, message_);
    // A range rather than CURLOPT_RESUME_FROM: that takes a server that sends everything for an
    // error.
    if (offset_ > 0) set(CURLOPT_RANGE, (range_ = text(offset_, '-')).c_str());
    set(CURLOPT_WRITEDATA, static_cast<void*>(this));
    set(
        CURLOPT_WRITEFUNCTION, +[](char* bytes, std::size_t one, std::size_t count, void* self) {
          return static_cast<Transfer*>(self)->write(bytes, one * count);
        });
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFODATA, static_cast<void*>(this));
    set(
        CURLOPT_XFERINFOFUNCTION,
        +[](void* self, curl_off_t total, curl_off_t, curl_off_t, curl_off_t) {
          return static_cast<Transfer*>(self)->report(static_cast<std::uint64_t>(total));
        });
  }

  /// Returns how many bytes were taken; fewer than arrived end the transfer.
  std::size_t write(const char* bytes, std::size_t size) {
    if (!file_) {
      long status = 0;
      curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &status);
      if (status == 200)
        offset_ = 0;  // the server sends the file from its beginning, whatever was asked
      file_.reset(std::fopen(part_.c_str(), offset_ > 0 ? "ab" : "wb"));
    }
    too_long_ = offset_ + received_ + size > most_;
    if (too_long_) return 0;
    write_failed_ = !file_ || std::fwrite(bytes, 1, size, file_.get()) != size;
    received_ += size;
    return write_failed_ ? 0 : size;
  }

  /// Nothing may be thrown through libcurl. Returns non-zero to end the transfer.
  int report(std::uint64_t total) {
    try {
      const auto now = std::chrono::steady_clock::now();
      if (options_.progress && received_ > 0 && now - reported_ > std::chrono::milliseconds(100)) {
        reported_ = now;
        options_.progress({url_, offset_ + received_, total > 0 ? offset_ + total : 0});
      }
      cancelled_ = options_.cancelled && options_.cancelled();
    } catch (...) {
      thrown_ = std::current_exception();
    }
    return cancelled_ || thrown_ ? 1 : 0;
  }

  const DownloadOptions& options_;
  std::string url_, part_, range_, problem_;
  std::unique_ptr<CURL, Cleanup> curl_;
  minnow::detail::FileHandle file_;
  std::uint64_t most_, offset_ = 0, received_ = 0;  // the file's length before, and what came since
  std::chrono::steady_clock::time_point reported_{};
  bool resuming_ = false, too_long_ = false, write_failed_ = false, cancelled_ = false;
  std::exception_ptr thrown_;
  char message_[CURL_ERROR_SIZE] = {};
};

/// What is wrong with the content of the file at `path`, "" for nothing.
inline std::string content_problem(const std::string& path, std::uint64_t bytes,
                                   std::uint32_t crc) {
  try {
    GzipReader reader(path);
    std::vector<char> block(1 << 16);
    while (reader.position() <= bytes && reader.read(block.data(), block.size()) == block.size()) {
    }
    if (reader.position() != bytes)
      return text("its content has ", reader.position() > bytes ? "more than " : "",
                  std::min(reader.position(), bytes), " bytes, expected ", bytes);
    if (crc != 0 && reader.crc() != crc)
      return "the checksum of its content is not that of the published file";
    return "";
  } catch (const DataError& error) {
    return error.what();
  }
}

/// A moment's wait for `what`, in which the download may be cancelled.
inline void wait_a_moment(const DownloadOptions& options, const std::string& what) {
  check<DownloadCancelled>(!options.cancelled || !options.cancelled(), what,
                           ": the download was cancelled");
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

/// Waits before another attempt.
inline void pause(const DownloadOptions& options, const std::string& url) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(options.retry_delay);
  while (Clock::now() < end) wait_a_moment(options, url);
}

/// Waits for the folder of the file at `path`. True if somebody else was at work there.
inline bool wait_for(FolderLock& lock, const std::string& path, const DownloadOptions& options) {
  if (lock.try_lock()) return false;
  if (options.notice)
    options.notice(text(path, ": waiting for another program that downloads into its folder"));
  do wait_a_moment(options, path);
  while (!lock.try_lock());
  return true;
}

}  // namespace detail

/// Downloads one file to `path` from the first of the `urls` that serves it whole. Its content,
/// after decompression, must have `bytes` bytes and the CRC-32 `crc` (0: any); only then does it
/// get its name. Until then it grows as `path`.part, from where a broken or cancelled download goes
/// on.
///
/// One program at a time downloads into a folder; what another has got meanwhile is not fetched
/// again.
///
/// Proxies are taken from the environment (https_proxy, no_proxy), as the program curl does.
/// Errors: DataError with what was wrong at each address; DownloadCancelled.
inline void download_file(const std::string& path, const std::vector<std::string>& urls,
                          std::uint64_t bytes, std::uint32_t crc,
                          const DownloadOptions& options = {}) {
  using Outcome = detail::Transfer::Outcome;
  const std::string part = path + ".part";
  detail::FolderLock lock(std::filesystem::path(path).parent_path().string());
  if (detail::wait_for(lock, path, options) && detail::content_problem(path, bytes, crc).empty())
    return;
  std::string failures;
  for (const std::string& url : urls) {
    std::string problem;
    for (int attempt = 0; attempt <= options.retries;) {
      // Compression makes nothing much longer, whatever a server may send.
      detail::Transfer transfer(options, url, part, bytes + (1 << 20));
      Outcome outcome = transfer.run();
      problem = transfer.problem();
      if (outcome == Outcome::complete) {
        problem = detail::content_problem(part, bytes, crc);
        if (problem.empty()) {
          minnow::detail::check_file(std::rename(part.c_str(), path.c_str()) == 0, path,
                                     "cannot be given its name");
          return;
        }
        outcome = Outcome::unusable;
      }
      if (outcome == Outcome::refused) break;
      if (outcome == Outcome::unusable) {
        minnow::detail::check_file(std::remove(part.c_str()) == 0 || errno == ENOENT, part,
                                   "cannot be removed");
        // Its beginning may have been another mirror's: then once more, all from this one.
        if (!transfer.resuming()) break;
      } else if (++attempt <= options.retries) {
        detail::pause(options, url);
      }
    }
    failures += text("\n  ", url, ": ", problem);
    if (options.notice) options.notice(text(url, ": ", problem));
  }
  const bool asks_network =
      std::ranges::any_of(urls, [](const std::string& url) { return url.starts_with("http"); });
  throw DataError(text(path, ": cannot be downloaded.", failures,
                       asks_network
                           ? "\nIs this machine online? A proxy is taken from the variable "
                             "https_proxy."
                           : ""));
}

/// Gets the four files of a data set into a directory, from the first mirror that serves each of
/// them whole. Files that are there and right stay; one that is wrong and would be found first gets
/// the ending .bad. Made for `MNISTOptions::download`:
///
///     data::MNIST train(data::Split::train, {.download = data::Downloader({.progress = show})});
class Downloader {
 public:
  explicit Downloader(DownloadOptions options = {}) : options_(std::move(options)) {}

  /// Errors: DataError where the directory cannot be made or a file not be had; DownloadCancelled.
  void operator()(Dataset dataset, const std::string& directory) const {
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    check<DataError>(!error, directory, ": cannot be created: ", error.message());
    for (const DatasetFile& file : dataset_files) {
      if (file.dataset != dataset) continue;
      const std::string there = find_file(directory, file.name());
      if (!there.empty() && detail::content_problem(there, file.bytes, file.crc).empty()) continue;
      std::vector<std::string> urls =
          options_.mirrors.empty() ? dataset_mirrors(dataset) : options_.mirrors;
      for (std::string& url : urls) {
        url = detail::mirror_url(url);
        url += text(url.ends_with('/') ? "" : "/", file.name(), ".gz");
      }
      const std::string path = text(directory, '/', file.name(), ".gz");
      download_file(path, urls, file.bytes, file.crc, options_);
      if (there.empty() || there == path) continue;
      const std::string aside = there + ".bad";
      minnow::detail::check_file(std::rename(there.c_str(), aside.c_str()) == 0, there,
                                 "holds something else and cannot be renamed");
      if (options_.notice) options_.notice(text(there, ": is not ", file, "; it is now ", aside));
    }
  }

 private:
  DownloadOptions options_;
};

}  // namespace minnow::inline MINNOW_ABI::data
