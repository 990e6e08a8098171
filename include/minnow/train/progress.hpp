#pragma once
/// @file
/// A progress bar that knows where it is drawn: one redrawn line on a terminal, plain lines
/// elsewhere.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#if __has_include(<unistd.h>) && __has_include(<sys/ioctl.h>)
#include <sys/ioctl.h>
#include <unistd.h>
#define MINNOW_HAS_TERMINAL 1
#else
#define MINNOW_HAS_TERMINAL 0
#endif

#include "minnow/core/error.hpp"
#include "minnow/core/format.hpp"

namespace minnow::inline MINNOW_ABI::train {

/// Where a program's lines go, and what may be done there.
struct Terminal {
  std::FILE* stream = stdout;
  bool redraws = false;  ///< a line may be overwritten; if not, no carriage return is ever written
  bool colours = false;
  bool unicode = false;
  int fixed_width = 0;  ///< columns; 0 asks the terminal before each drawing, so that it may change

  /// A terminal redraws unless TERM is "dumb", and has colours unless NO_COLOR is set and not empty
  /// (no-color.org). The locale's name tells whether it shows UTF-8. Anything else is a plain file.
  static Terminal detect(std::FILE* stream = stdout) {
    const auto variable = [](const char* name) {
      const char* value = std::getenv(name);
      return std::string_view(value ? value : "");
    };
    Terminal result{.stream = stream};
#if MINNOW_HAS_TERMINAL
    result.redraws = isatty(fileno(stream)) != 0 && variable("TERM") != "dumb";
#endif
    result.colours = result.redraws && variable("NO_COLOR").empty();
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
      const std::string_view locale = variable(name);
      if (locale.empty()) continue;
      result.unicode = locale.find("UTF-8") != locale.npos || locale.find("utf8") != locale.npos;
      break;
    }
    return result;
  }

  /// Columns of a line; 80 where nobody knows.
  int width() const {
    if (fixed_width > 0) return fixed_width;
#if MINNOW_HAS_TERMINAL
    winsize size{};
    if (ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
#endif
    return 80;
  }
};

/// "0:07", "12:34", "1:02:03"
inline std::string duration(double seconds) {
  const auto total = static_cast<Index>(seconds + 0.5);
  const auto two_digits = [](Index number) { return text(number < 10 ? "0" : "", number); };
  const Index hours = total / 3600, minutes = total / 60 % 60;
  const std::string tail = text(':', two_digits(total % 60));
  return hours > 0 ? text(hours, ':', two_digits(minutes), tail) : text(minutes, tail);
}

/// Shows how far a pass over `total` things, 0 while nobody knows how many, has come:
///
///     epoch  3/15  ━━━━━━━━━━━────────  58 %  12,345 images/s  ETA 0:02  loss 0.0432
///
/// Where a line cannot be redrawn, a plain line comes every half minute, so that a log shows life
/// and stays short. The bar disappears with the object, or by `finish`: what it led to is for the
/// program to say.
class ProgressBar {
 public:
  using Clock = std::function<double()>;  ///< seconds since some fixed moment

  ProgressBar(Terminal terminal, std::string label, Index total, std::string unit = "images",
              Clock clock = steady_seconds)
      : terminal_(terminal),
        label_(std::move(label)),
        unit_(std::move(unit)),
        total_(total),
        clock_(std::move(clock)),
        start_(clock_()),
        drawn_(start_ - first_drawing_after) {}
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// So many were done before the bar began: they count for its length, not for the rate.
  void resume_at(Index done) { before_ = done; }

  /// `done` of the total are done; `note` is shown last. Draws when it is time to, so call it
  /// often.
  void update(Index done, std::string_view note = {}) {
    const double now = clock_();
    if (terminal_.redraws) {
      if (now - drawn_ < redraw_interval) return;
      draw(line(done, now - start_, note, terminal_.width() - 1));
    } else {
      if (now - std::max(drawn_, start_) < plain_interval) return;
      std::fprintf(terminal_.stream, "%s\n", plain(done, now - start_, note).c_str());
    }
    std::fflush(terminal_.stream);
    drawn_ = now;
  }

  /// Takes the bar off the screen.
  void finish() {
    if (length_ == 0) return;
    // Also the ^C that a terminal writes behind it.
    const Index columns = std::clamp<Index>(length_ + 2, 0, terminal_.width() - 1);
    std::fprintf(terminal_.stream, "\r%*s\r", static_cast<int>(columns), "");
    std::fflush(terminal_.stream);
    length_ = 0;
  }

 private:
  static constexpr double redraw_interval = 0.1, plain_interval = 30, first_drawing_after = 1;

  static double steady_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }

  struct Line {
    std::string bytes;  ///< with colours
    Index columns = 0;
  };

  std::string percent(Index done) const {
    return align_right(total_ > 0 ? std::to_string(100 * done / total_) : "-", 3) + " %";
  }
  std::string rate(Index done, double seconds) const {
    constexpr double too_short = 0.01;  // for a rate that means anything
    return thousands(seconds > too_short
                         ? static_cast<Index>(static_cast<double>(done - before_) / seconds)
                         : 0) +
           ' ' + unit_ + "/s";
  }
  std::string eta(Index done, double seconds) const {
    const Index left = std::max<Index>(0, total_ - done);
    if (done <= before_ || total_ <= 0) return "ETA -:--";
    return text("ETA ", duration(seconds * static_cast<double>(left) /
                                 static_cast<double>(done - before_)));
  }

  std::string plain(Index done, double seconds, std::string_view note) const {
    std::string out =
        text(label_, "  ", percent(done), "  ", rate(done, seconds), "  ", eta(done, seconds));
    if (!note.empty()) out.append("  ").append(note);
    return out;
  }

  /// As much as fits into `width` columns: first the note goes, then the bar, then the line's end.
  Line line(Index done, double seconds, std::string_view note, Index width) const {
    constexpr Index least_bar = 10, most_bar = 30;
    const std::string before = label_ + "  ";
    std::string after =
        text("  ", percent(done), "  ", rate(done, seconds), "  ", eta(done, seconds));
    const Index fixed_columns = std::ssize(before) + std::ssize(after);
    if (!note.empty() && fixed_columns + least_bar + 2 + std::ssize(note) <= width)
      after.append("  ").append(note);

    const Index bar = std::min(most_bar, width - std::ssize(before) - std::ssize(after));
    if (bar < least_bar) {
      std::string cut =
          (before + after.substr(2)).substr(0, static_cast<std::size_t>(std::max<Index>(0, width)));
      const Index columns = std::ssize(cut);
      return {std::move(cut), columns};
    }
    const Index filled = total_ > 0 ? std::clamp<Index>(bar * done / total_, 0, bar) : 0;
    Line result{before, std::ssize(before) + bar + std::ssize(after)};
    if (terminal_.colours) result.bytes += "\x1b[36m";
    for (Index i = 0; i < filled; ++i) result.bytes += terminal_.unicode ? "━" : "=";
    if (terminal_.colours) result.bytes += "\x1b[0m\x1b[2m";
    for (Index i = filled; i < bar; ++i) result.bytes += terminal_.unicode ? "─" : "-";
    if (terminal_.colours) result.bytes += "\x1b[0m";
    result.bytes += after;
    return result;
  }

  void draw(const Line& line) {
    // Spaces over the rest of a longer line, but none beyond the edge of a terminal made narrower.
    const Index before = std::min<Index>(length_, terminal_.width() - 1);
    const Index rest = std::max<Index>(0, before - line.columns);
    std::fprintf(terminal_.stream, "\r%s%*s", line.bytes.c_str(), static_cast<int>(rest), "");
    length_ = line.columns;
  }

  Terminal terminal_;
  std::string label_, unit_;
  Index total_, before_ = 0;
  Clock clock_;
  double start_, drawn_;
  Index length_ = 0;  ///< columns on the screen that are ours
};

}  // namespace minnow::inline MINNOW_ABI::train
