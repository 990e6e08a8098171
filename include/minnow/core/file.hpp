#pragma once
/// @file
/// Files that are read, and files that appear when they are complete.

#if !defined(_WIN32)
#include <sys/stat.h>
#endif

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "minnow/core/config.hpp"
#include "minnow/core/error.hpp"

namespace minnow::inline MINNOW_ABI::detail {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using FileHandle = std::unique_ptr<std::FILE, CloseFile>;

/// Throws, with the system's reason, unless `done`.
inline void check_file(bool done, const std::string& path, const char* failure) {
  if (!done) throw DataError(text(path, ": ", failure, ": ", std::strerror(errno)));
}

/// A file that is read from its beginning on. Errors: DataError.
class InputFile {
 public:
  explicit InputFile(std::string path)
      : path_(std::move(path)), file_(std::fopen(path_.c_str(), "rb")) {
    check_file(file_ != nullptr, path_, "cannot be opened");
  }
  const std::string& path() const { return path_; }

  /// Reads `size` bytes; fewer only at the end of the file. Returns how many.
  std::size_t read(void* to, std::size_t size) {
    errno = 0;
    const std::size_t got = std::fread(to, 1, size, file_.get());
    check_file(std::ferror(file_.get()) == 0, path_, "cannot be read");
    return got;
  }
  /// The length of the file; nothing for a pipe. The next byte to be read stays the same.
  std::optional<std::uint64_t> size() {
    const long here = std::ftell(file_.get());
    if (here < 0 || std::fseek(file_.get(), 0, SEEK_END) != 0) return std::nullopt;
    const long end = std::ftell(file_.get());
    check_file(std::fseek(file_.get(), here, SEEK_SET) == 0, path_, "cannot be read");
    if (end < 0) return std::nullopt;
    return static_cast<std::uint64_t>(end);
  }

 private:
  std::string path_;
  FileHandle file_;
};

/// A file that appears under its name only when it is complete: the bytes go to another beside it,
/// which `commit` renames. Without a `commit` nothing remains. A link stays one and its target gets
/// the bytes; a file that was there keeps its permissions; what is no file, such as a pipe, is
/// written to at once.
class PendingFile {
 public:
  explicit PendingFile(std::string path) : path_(std::move(path)), pending_(path_) {
#if !defined(_WIN32)
    struct stat there {};
    const bool replaces = ::stat(path_.c_str(), &there) == 0;
    if (replaces && !S_ISREG(there.st_mode)) {
      file_.reset(std::fopen(path_.c_str(), "wb"));
      check_file(file_ != nullptr, path_, "cannot be written");
      return;
    }
    struct stat link {};
    if (replaces && ::lstat(path_.c_str(), &link) == 0 && S_ISLNK(link.st_mode)) follow_link();
#endif
    // A name that nobody else has: another process may be writing the same file.
    for (int i = 0; i < 1000 && !file_; ++i) {
      pending_ = text(path_, ".tmp", i);
      file_.reset(std::fopen(pending_.c_str(), "wbx"));
      if (!file_ && errno != EEXIST) break;
    }
    check_file(file_ != nullptr, path_, "cannot be created");
#if !defined(_WIN32)
    if (replaces) static_cast<void>(::fchmod(::fileno(file_.get()), there.st_mode & 0777));
#endif
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;
  ~PendingFile() {
    file_.reset();
    if (!committed_ && pending_ != path_) std::remove(pending_.c_str());
  }

  void write(const void* bytes, std::size_t size) {
    check_open();
    check_file(std::fwrite(bytes, 1, size, file_.get()) == size, pending_, "cannot be written");
  }

  void commit() {
    check_open();
    check_file(std::fclose(file_.release()) == 0, pending_, "cannot be written");
    if (pending_ != path_)
      check_file(std::rename(pending_.c_str(), path_.c_str()) == 0, path_,
                 "cannot be given its name");
    committed_ = true;
  }

 private:
  void check_open() const {
    check<DataError>(file_ != nullptr, path_, ": is complete, nothing can be written to it now");
  }
#if !defined(_WIN32)
  void follow_link() {
    const std::unique_ptr<char, decltype(&std::free)> target(::realpath(path_.c_str(), nullptr),
                                                             &std::free);
    check_file(target != nullptr, path_, "cannot be followed");
    path_ = target.get();
  }
#endif

  std::string path_, pending_;  // the same for what is written to at once
  FileHandle file_;
  bool committed_ = false;
};

}  // namespace minnow::inline MINNOW_ABI::detail
