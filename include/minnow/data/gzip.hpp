#pragma once
/// @file
/// Files, compressed or not, read and written as a stream of bytes. The only door to zlib.

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "minnow/core/config.hpp"
#include "minnow/core/error.hpp"
#include "minnow/core/file.hpp"

namespace minnow::inline MINNOW_ABI::data {

/// The CRC-32 of gzip and zip. Pass the result for the bytes before to go on where they ended.
inline std::uint32_t crc32(const void* bytes, std::size_t size, std::uint32_t before = 0) {
  return static_cast<std::uint32_t>(::crc32_z(before, static_cast<const Bytef*>(bytes), size));
}

/// Reads the content of a file: what a gzip file holds, or the bytes of any other file. Which of
/// the two it is follows from the first bytes, not from the name. Gzip members may follow one
/// another.
///
/// Errors: DataError where the file cannot be opened or read, and where gzip data are corrupt, cut
/// short, or followed by other bytes. The last two show at the end of the content: read until
/// `read` returns less than was asked for.
class GzipReader {
 public:
  explicit GzipReader(std::string path) : file_(std::move(path)) {
    fill();
    compressed_ = available_ >= 2 && input_[0] == 0x1F && input_[1] == 0x8B;
    if (!compressed_) {
      plain_size_ = file_.size();
      return;
    }
    // 15 + 16: the largest window, and gzip's header and trailer around the data.
    check(inflateInit2(&inflater_, 15 + 16) == Z_OK, file_.path(), ": zlib cannot be initialised");
    inflating_ = true;
  }
  GzipReader(const GzipReader&) = delete;
  GzipReader& operator=(const GzipReader&) = delete;
  ~GzipReader() {
    if (inflating_) inflateEnd(&inflater_);
  }

  /// Reads the next `size` bytes of the content; fewer only at its end. Returns how many.
  std::size_t read(void* to, std::size_t size) {
    auto* out = static_cast<unsigned char*>(to);
    const std::size_t got = compressed_ ? inflate_some(out, size) : copy_some(out, size);
    crc_ = data::crc32(out, got, crc_);
    position_ += got;
    return got;
  }

  const std::string& path() const { return file_.path(); }
  bool compressed() const { return compressed_; }
  /// The length of the content, where it is known before reading: for a plain file.
  std::optional<std::uint64_t> size() const { return plain_size_; }
  /// How many bytes of the content have been read, and their CRC-32.
  std::uint64_t position() const { return position_; }
  std::uint32_t crc() const { return crc_; }

 private:
  /// Refills the empty input buffer; false at the end of the file.
  bool fill() {
    offset_ += used_;
    used_ = 0;
    available_ = file_.read(input_.data(), input_.size());
    return available_ > 0;
  }

  std::size_t copy_some(unsigned char* out, std::size_t size) {
    const std::size_t buffered = std::min(size, available_ - used_);
    std::memcpy(out, input_.data() + used_, buffered);
    used_ += buffered;
    if (buffered == size) return size;
    return buffered + file_.read(out + buffered, size - buffered);
  }

  std::size_t inflate_some(unsigned char* out, std::size_t size) {
    std::size_t done = 0;
    while (done < size && !finished_) {
      if (used_ == available_)
        check<DataError>(fill(), path(), ": the gzip data are cut short: the file ends after ",
                         offset_, " bytes, in the middle of its content; get the file again");
      // zlib counts in 32 bits.
      const auto piece = static_cast<uInt>(std::min<std::size_t>(size - done, 1u << 30));
      inflater_.next_in = input_.data() + used_;
      inflater_.avail_in = static_cast<uInt>(available_ - used_);
      inflater_.next_out = out + done;
      inflater_.avail_out = piece;
      const int status = ::inflate(&inflater_, Z_NO_FLUSH);
      used_ = available_ - inflater_.avail_in;
      done += piece - inflater_.avail_out;
      if (status == Z_STREAM_END)
        next_member();
      else
        check<DataError>(status == Z_OK, path(), ": corrupt gzip data near byte ", offset_ + used_,
                         " of the file (", inflater_.msg ? inflater_.msg : "zlib gives no reason",
                         "); get the file again");
    }
    return done;
  }

  /// At the end of a member: the file ends here, or another member begins.
  void next_member() {
    if (used_ == available_ && !fill()) {
      finished_ = true;
      return;
    }
    check<DataError>(input_[used_] == 0x1F, path(),
                     ": bytes that are no gzip data follow the end of ", "its content, at byte ",
                     offset_ + used_, "; get the file again");
    inflateReset(&inflater_);
  }

  minnow::detail::InputFile file_;
  bool compressed_ = false, inflating_ = false, finished_ = false;
  std::optional<std::uint64_t> plain_size_;
  std::uint64_t position_ = 0, offset_ = 0;  // in the content; of the input buffer in the file
  std::uint32_t crc_ = 0;
  std::array<unsigned char, 1 << 16> input_;
  std::size_t available_ = 0, used_ = 0;  // bytes in the input buffer; of these, consumed
  z_stream inflater_{};
};

/// Writes a file, gzip or plain. It appears under its name when `commit` completes it; until then,
/// and without a `commit`, a file that was there before stays untouched.
///
/// Errors: DataError where the file cannot be created, written or renamed, or is complete already.
class GzipWriter {
 public:
  GzipWriter(std::string path, bool compress) : file_(std::move(path)) {
    if (!compress) return;
    compress_ = deflateInit2(&deflater_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8,
                             Z_DEFAULT_STRATEGY) == Z_OK;
    check(compress_, "GzipWriter: zlib cannot be initialised");
  }
  GzipWriter(const GzipWriter&) = delete;
  GzipWriter& operator=(const GzipWriter&) = delete;
  ~GzipWriter() {
    if (compress_) deflateEnd(&deflater_);
  }

  void write(const void* bytes, std::size_t size) {
    if (!compress_) return file_.write(bytes, size);
    const auto* in = static_cast<const unsigned char*>(bytes);
    while (size > 0) {
      const auto piece = static_cast<uInt>(std::min<std::size_t>(size, 1u << 30));
      // zlib's interface is older than const; it does not write here.
      deflater_.next_in = const_cast<unsigned char*>(in);
      deflater_.avail_in = piece;
      deflate(Z_NO_FLUSH);
      in += piece;
      size -= piece;
    }
  }

  /// Completes the file and gives it its name.
  void commit() {
    if (compress_) deflate(Z_FINISH);
    file_.commit();
  }

 private:
  void deflate(int flush) {
    std::array<unsigned char, 1 << 16> output;
    do {
      deflater_.next_out = output.data();
      deflater_.avail_out = static_cast<uInt>(output.size());
      ::deflate(&deflater_, flush);
      file_.write(output.data(), output.size() - deflater_.avail_out);
    } while (deflater_.avail_out == 0);
  }

  minnow::detail::PendingFile file_;
  bool compress_ = false;
  z_stream deflater_{};
};

}  // namespace minnow::inline MINNOW_ABI::data
