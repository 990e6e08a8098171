#pragma once
/// @file
/// Plots as SVG: lines and points over two logarithmic axes, and bars.

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "document.hpp"
#include "minnow/core/error.hpp"
#include "minnow/core/format.hpp"

namespace report {

using minnow::fixed;
using minnow::text;
using Points = std::vector<std::pair<double, double>>;

/// "0.12", "1.5", "12", "340", "12 k", "3.4 M"
inline std::string short_number(double value) {
  if (value >= 1e6) return short_number(value / 1e6) + " M";
  if (value >= 1e4) return short_number(value / 1e3) + " k";
  return fixed(value, value < 0.0995 ? 3 : value < 0.995 ? 2 : value < 9.95 ? 1 : 0);
}

struct Series {
  std::string label, color;
  Points points;
  bool line = true, dots = true, hollow = false, dashed = false;
};

/// y over x, both logarithmic.
class LogPlot {
 public:
  LogPlot(std::string title, std::string x, std::string y)
      : title_(std::move(title)), x_label_(std::move(x)), y_label_(std::move(y)) {}

  void add(Series series) { series_.push_back(std::move(series)); }

  std::string svg() const {
    double x0 = 1e300, x1 = 0, y0 = 1e300, y1 = 0;
    for (const Series& s : series_)
      for (const auto& [x, y] : s.points) {
        x0 = std::min(x0, x), x1 = std::max(x1, x);
        y0 = std::min(y0, y), y1 = std::max(y1, y);
      }
    if (x1 <= 0) return "";
    x0 /= 1.25, x1 *= 1.25, y0 /= 1.3, y1 *= 1.3;
    const auto px = [&](double x) { return left + plot_w * std::log(x / x0) / std::log(x1 / x0); };
    const auto py = [&](double y) {
      return top + plot_h * (1 - std::log(y / y0) / std::log(y1 / y0));
    };
    std::string out = text("<svg viewBox=\"0 0 ", width, " ", height, "\" width=\"", width,
                           "\" role=\"img\"><text x=\"", left,
                           "\" y=\"16\" font-size=\"13\" "
                           "font-weight=\"600\">",
                           escape(title_), "</text>");
    const auto ticks = [](double low, double high) {
      std::vector<double> result;
      for (double decade = std::pow(10, std::floor(std::log10(low))); decade < high; decade *= 10)
        for (const double step : {1.0, 2.0, 5.0})
          if (const double t = decade * step;
              t >= low && t <= high && (step == 1 || high / low < 200))
            result.push_back(t);
      return result;
    };
    for (const double t : ticks(x0, x1))
      out +=
          text("<line x1=\"", px(t), "\" x2=\"", px(t), "\" y1=\"", top, "\" y2=\"", top + plot_h,
               "\" stroke=\"#eceff3\"/><text x=\"", px(t), "\" y=\"", top + plot_h + 15,
               "\" text-anchor=\"middle\" fill=\"#4a5264\">", short_number(t), "</text>");
    for (const double t : ticks(y0, y1))
      out += text("<line x1=\"", left, "\" x2=\"", left + plot_w, "\" y1=\"", py(t), "\" y2=\"",
                  py(t), "\" stroke=\"#eceff3\"/><text x=\"", left - 6, "\" y=\"", py(t) + 4,
                  "\" text-anchor=\"end\" fill=\"#4a5264\">", short_number(t), "</text>");
    out += text("<rect x=\"", left, "\" y=\"", top, "\" width=\"", plot_w, "\" height=\"", plot_h,
                "\" fill=\"none\" stroke=\"#b9c0cc\"/><text x=\"", left + plot_w / 2, "\" y=\"",
                top + plot_h + 33, "\" text-anchor=\"middle\">", escape(x_label_),
                "</text><text transform=\"rotate(-90)\" x=\"", -(top + plot_h / 2),
                "\" y=\"13\" text-anchor=\"middle\">", escape(y_label_), "</text>");
    double legend = top + 8;
    for (const Series& s : series_) {
      if (s.line && s.points.size() > 1) {
        out += text("<polyline fill=\"none\" stroke=\"", s.color, "\" stroke-width=\"1.8\"",
                    s.dashed ? " stroke-dasharray=\"5 4\"" : "", " points=\"");
        for (const auto& [x, y] : s.points) out += text(px(x), ",", py(y), " ");
        out += "\"/>";
      }
      if (s.dots)
        for (const auto& [x, y] : s.points)
          out += text("<circle cx=\"", px(x), "\" cy=\"", py(y), "\" r=\"3.2\" fill=\"",
                      s.hollow ? "#fff" : s.color, "\" stroke=\"", s.color, "\"><title>",
                      escape(s.label), ": ", short_number(x), ", ", short_number(y),
                      "</title></circle>");
      if (s.label.empty()) continue;
      const double x = left + plot_w + 12;
      if (s.line)
        out += text("<line x1=\"", x, "\" x2=\"", x + 18, "\" y1=\"", legend, "\" y2=\"", legend,
                    "\" stroke=\"", s.color, "\" stroke-width=\"2\"",
                    s.dashed ? " stroke-dasharray=\"5 4\"" : "", "/>");
      if (s.dots)
        out += text("<circle cx=\"", x + 9, "\" cy=\"", legend, "\" r=\"3.2\" fill=\"",
                    s.hollow ? "#fff" : s.color, "\" stroke=\"", s.color, "\"/>");
      out += text("<text x=\"", x + 24, "\" y=\"", legend + 4, "\">", escape(s.label), "</text>");
      legend += 17;
    }
    return out + "</svg>";
  }

 private:
  static constexpr double width = 560, height = 330, left = 58, top = 28, plot_w = 350,
                          plot_h = 250;

  std::string title_, x_label_, y_label_;
  std::vector<Series> series_;
};

struct Bar {
  std::string label, color;
  double value;
  std::string note;  ///< beside the value
};

/// Bars from zero, one under the other.
inline std::string bars(const std::string& title, const std::string& unit,
                        const std::vector<Bar>& all) {
  const double left = 150, length = 250, step = 24, top = 30;
  const double height = top + step * static_cast<double>(all.size()) + 6;
  double largest = 0;
  for (const Bar& bar : all) largest = std::max(largest, bar.value);
  std::string out = text("<svg viewBox=\"0 0 560 ", height,
                         "\" width=\"560\" role=\"img\"><text x=\"0\" y=\"16\" "
                         "font-size=\"13\" font-weight=\"600\">",
                         escape(title), "</text>");
  double y = top;
  for (const Bar& bar : all) {
    const double w = std::max(1.5, length * bar.value / largest);
    out += text("<text x=\"", left - 8, "\" y=\"", y + 13, "\" text-anchor=\"end\">",
                escape(bar.label), "</text><rect x=\"", left, "\" y=\"", y, "\" width=\"", w,
                "\" height=\"17\" rx=\"2\" fill=\"", bar.color, "\"/><text x=\"", left + w + 6,
                "\" y=\"", y + 13, "\">", short_number(bar.value), " ", unit,
                bar.note.empty() ? "" : "  (" + escape(bar.note) + ")", "</text>");
    y += step;
  }
  return out + "</svg>";
}

}  // namespace report
