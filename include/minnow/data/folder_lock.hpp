#pragma once
/// @file
/// Turns of programs that write to one folder.

#include <string>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#endif

#include "minnow/core/config.hpp"

namespace minnow::inline MINNOW_ABI::data::detail {

#if defined(_WIN32)

/// Everybody's turn: Windows has no locks of folders.
class FolderLock {
 public:
  explicit FolderLock(const std::string&) {}
  bool try_lock() { return true; }
};

#else

/// The turn in a folder, for as long as the object lives, among all objects of this class in all
/// programs. Where the file system has no locks, it is everybody's turn.
class FolderLock {
 public:
  /// `folder`: "" for the current one.
  explicit FolderLock(const std::string& folder)
      : folder_(open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~FolderLock() {
    if (folder_ >= 0) close(folder_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  /// False while it is another's turn.
  bool try_lock() {
    return folder_ < 0 || flock(folder_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
  }

 private:
  int folder_;
};

#endif

}  // namespace minnow::inline MINNOW_ABI::data::detail
