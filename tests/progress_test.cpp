#include "minnow/train/progress.hpp"

#include <doctest/doctest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "temporary.hpp"

using namespace minnow;
using minnow_test::EnvironmentVariable;

namespace {

/// A stream whose contents can be read back, and a clock that is set by hand.
struct Screen {
  std::FILE* file = std::tmpfile();
  double now = 100;

  ~Screen() { std::fclose(file); }
  train::Terminal terminal(bool redraws, int width = 100) const {
    return {.stream = file, .redraws = redraws, .fixed_width = width};
  }
  train::ProgressBar::Clock clock() {
    return [this] { return now; };
  }
  std::string contents() const {
    std::fflush(file);
    std::rewind(file);
    std::string out;
    for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) out += static_cast<char>(c);
    return out;
  }
};

/// What a terminal shows in its line after all those carriage returns.
std::string shown(const std::string& bytes) {
  std::string line;
  std::size_t column = 0;
  for (const char c : bytes) {
    if (c == '\r') {
      column = 0;
      continue;
    }
    if (column == line.size()) line += ' ';
    line[column++] = c;
  }
  return line.substr(0, line.find_last_not_of(' ') + 1);
}

}  // namespace

TEST_CASE("a terminal shows bar, share, rate, time to go and the note in one redrawn line") {
  Screen screen;
  {
    train::ProgressBar bar(screen.terminal(true, 200), "epoch 3/15", 60000, "images",
                           screen.clock());
    screen.now += 2;
    bar.update(15000, "loss 0.0432");
    CHECK(shown(screen.contents()) ==
          "epoch 3/15  =======-----------------------   25 %  7,500 images/s  "
          "ETA 0:06  loss 0.0432");
    screen.now += 2;
    bar.update(60000);
    CHECK(shown(screen.contents()) ==
          "epoch 3/15  ==============================  100 %  15,000 images/s  ETA 0:00");
    CHECK(screen.contents().find('\n') == std::string::npos);
  }
  CHECK(shown(screen.contents()) == "");
}

TEST_CASE("the bar is drawn ten times a second at most") {
  Screen screen;
  train::ProgressBar bar(screen.terminal(true), "epoch", 1000, "images", screen.clock());
  bar.update(0);
  CHECK(shown(screen.contents()).find("ETA -:--") != std::string::npos);
  for (int i = 1; i <= 100; ++i) {
    screen.now += 0.01;
    bar.update(i);
  }
  const std::string contents = screen.contents();
  const auto drawings = std::count(contents.begin(), contents.end(), '\r');
  CHECK(drawings >= 9);
  CHECK(drawings <= 11);
}

TEST_CASE("the line fits the terminal, whatever its width") {
  for (int width = 1; width <= 120; ++width) {
    Screen screen;
    train::ProgressBar bar(screen.terminal(true, width), "epoch", 1000, "images", screen.clock());
    screen.now += 1;
    bar.update(500, "loss 1.0000");
    const std::string line = shown(screen.contents());
    CHECK(std::ssize(line) < width);
    CHECK((line.find("loss") != std::string::npos) == (width > 5 + 2 + 10 + 7 + 14 + 10 + 13));
    CHECK((line.find("=====-----") != std::string::npos) == (width > 5 + 2 + 10 + 7 + 14 + 10));
    if (width > 40) CHECK(line.find("50 %  500 images/s") != std::string::npos);
  }
}

TEST_CASE("where a line cannot be redrawn, there is a plain line every half minute") {
  Screen screen;
  {
    train::ProgressBar bar(screen.terminal(false), "epoch 1/2", 1000, "images", screen.clock());
    for (int second = 0; second <= 75; ++second) {
      bar.update(10 * second, "loss 2.3");
      screen.now += 1;
    }
  }
  CHECK(screen.contents() ==
        "epoch 1/2   30 %  10 images/s  ETA 1:10  loss 2.3\n"
        "epoch 1/2   60 %  10 images/s  ETA 0:40  loss 2.3\n");
}

TEST_CASE("a bar uses colours and wide characters only where they are wanted") {
  Screen screen;
  train::Terminal terminal = screen.terminal(true);
  terminal.colours = terminal.unicode = true;
  {
    train::ProgressBar bar(terminal, "epoch", 2, "images", screen.clock());
    bar.update(1);
    const std::string contents = screen.contents();
    CHECK(contents.find("\x1b[36m━") != std::string::npos);
    CHECK(contents.find("\x1b[2m─") != std::string::npos);
  }
  terminal.colours = false;
  {
    Screen other;
    terminal.stream = other.file;
    train::ProgressBar bar(terminal, "epoch", 2, "images", other.clock());
    bar.update(1);
    CHECK(other.contents().find('\x1b') == std::string::npos);
    CHECK(other.contents().find("━─") != std::string::npos);
  }
}

TEST_CASE("where nobody knows how many there are, the bar claims no share and no time") {
  Screen screen;
  train::ProgressBar bar(screen.terminal(true), "file", 0, "KB", screen.clock());
  screen.now += 2;
  bar.update(500);
  CHECK(shown(screen.contents()) ==
        "file  ------------------------------    - %  250 KB/s  ETA -:--");
}

TEST_CASE("what was done before counts for the share, not for the rate; more than all takes 0:00") {
  Screen screen;
  train::ProgressBar bar(screen.terminal(true), "file", 1000, "KB", screen.clock());
  bar.resume_at(800);
  screen.now += 2;
  bar.update(900);
  CHECK(shown(screen.contents()).find(" 90 %  50 KB/s  ETA 0:02") != std::string::npos);
  screen.now += 2;
  bar.update(1200);
  CHECK(shown(screen.contents()).find("ETA 0:00") != std::string::npos);
}

TEST_CASE("durations are read as on a clock") {
  CHECK(train::duration(0) == "0:00");
  CHECK(train::duration(59.4) == "0:59");
  CHECK(train::duration(59.6) == "1:00");
  CHECK(train::duration(754) == "12:34");
  CHECK(train::duration(3723) == "1:02:03");
}

TEST_CASE("a file is no terminal: nothing is redrawn or coloured; the locale tells about UTF-8") {
  Screen screen;
  const EnvironmentVariable term("TERM", "xterm"), no_color("NO_COLOR", nullptr);
  const EnvironmentVariable all("LC_ALL", nullptr), lang("LANG", "en_GB.UTF-8");
  {
    const EnvironmentVariable ctype("LC_CTYPE", nullptr);
    const auto terminal = train::Terminal::detect(screen.file);
    CHECK_FALSE(terminal.redraws);
    CHECK_FALSE(terminal.colours);
    CHECK(terminal.unicode);
    CHECK(terminal.width() == 80);
  }
  const EnvironmentVariable ctype("LC_CTYPE", "C");
  CHECK_FALSE(train::Terminal::detect(screen.file).unicode);
}

#if defined(__linux__)
#include <fcntl.h>
#include <pty.h>

TEST_CASE("a pseudo-terminal redraws, honours NO_COLOR and TERM=dumb, and tells its width") {
  int master = -1, slave = -1;
  winsize size{.ws_row = 24, .ws_col = 57, .ws_xpixel = 0, .ws_ypixel = 0};
  if (openpty(&master, &slave, nullptr, nullptr, &size) != 0) return;
  std::FILE* stream = fdopen(slave, "w");
  {
    const EnvironmentVariable term("TERM", "xterm"), no_color("NO_COLOR", nullptr);
    const auto terminal = train::Terminal::detect(stream);
    CHECK(terminal.redraws);
    CHECK(terminal.colours);
    CHECK(terminal.width() == 57);
  }
  {
    const EnvironmentVariable term("TERM", "xterm"), no_color("NO_COLOR", "1");
    CHECK(train::Terminal::detect(stream).redraws);
    CHECK_FALSE(train::Terminal::detect(stream).colours);
  }
  {
    const EnvironmentVariable term("TERM", "dumb");
    CHECK_FALSE(train::Terminal::detect(stream).redraws);
  }
  std::fclose(stream);
  close(master);
}

TEST_CASE("the line fits a terminal that was made narrower") {
  int master = -1, slave = -1;
  winsize size{.ws_row = 24, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
  if (openpty(&master, &slave, nullptr, nullptr, &size) != 0) return;
  std::FILE* stream = fdopen(slave, "w");
  double now = 0;
  {
    train::ProgressBar bar({.stream = stream, .redraws = true}, "epoch", 1000, "images",
                           [&] { return now; });
    bar.update(1, "a note");
    size.ws_col = 50;
    REQUIRE(ioctl(slave, TIOCSWINSZ, &size) == 0);
    for (const Index done : {2, 3}) {
      now += 1;
      bar.update(done, "a note");
    }
  }
  // What was written arrives in pieces; with the other end closed, the last read gives an error.
  std::fclose(stream);
  std::string all;
  char buffer[4096];
  for (ssize_t count = 0; (count = read(master, buffer, sizeof buffer)) > 0;)
    all.append(buffer, static_cast<std::size_t>(count));
  close(master);
  std::vector<std::size_t> lengths;
  for (std::size_t at = all.find('\r'); at != all.npos;) {
    const std::size_t next = all.find('\r', at + 1);
    lengths.push_back(std::min(next, all.size()) - at - 1);
    at = next;
  }
  // Three drawings, the erasure, and the return after it.
  REQUIRE(lengths.size() == 5);
  CHECK(lengths[0] > 60);
  for (std::size_t i = 1; i < 5; ++i) CHECK(lengths[i] < 50);
}
#endif
