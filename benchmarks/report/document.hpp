#pragma once
/// @file
/// A report as a list of blocks, and the two forms it is written in.

#include <string>
#include <variant>
#include <vector>

namespace report {

struct Heading {
  int level;
  std::string text;
};
struct Paragraph {
  std::string text;
};
/// Text whose lines stay as they are.
struct Lines {
  std::string text;
};
/// The first column is words, the others are numbers, unless all are words. Bold cells begin with
/// '*', faint ones with '~'.
struct Table {
  std::string title;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  bool words = false;
};
/// Pictures that stand side by side; not in Markdown.
struct Pictures {
  std::vector<std::string> svg;
};

using Document = std::vector<std::variant<Heading, Paragraph, Lines, Table, Pictures>>;

inline std::string escape(const std::string& text) {
  std::string result;
  for (const char c : text) switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      default:
        result += c;
    }
  return result;
}

namespace detail {

inline std::string anchor(const std::string& heading) {
  std::string result;
  for (const char c : heading) result += std::isalnum(static_cast<unsigned char>(c)) ? c : '-';
  return result;
}

struct Html {
  std::string out;

  void operator()(const Heading& h) {
    const std::string tag = "h" + std::to_string(h.level);
    out += "<" + tag + " id=\"" + anchor(h.text) + "\">" + escape(h.text) + "</" + tag + ">\n";
  }
  void operator()(const Paragraph& p) {
    // What stands between two `, as in Markdown, is code.
    out += "<p>";
    bool code = false;
    for (const char c : escape(p.text))
      if (c == '`')
        out += (code = !code) ? "<code>" : "</code>";
      else
        out += c;
    out += "</p>\n";
  }
  void operator()(const Lines& l) { out += "<pre>" + escape(l.text) + "</pre>\n"; }
  void operator()(const Table& t) {
    out += t.words ? "<div class=\"wide\"><table class=\"words\">" : "<div class=\"wide\"><table>";
    if (!t.title.empty()) out += "<caption>" + escape(t.title) + "</caption>";
    if (!t.words) {
      out += "<thead><tr>";
      for (const auto& cell : t.head) out += "<th>" + escape(cell) + "</th>";
      out += "</tr></thead>";
    }
    out += "<tbody>\n";
    for (const auto& row : t.rows) {
      out += "<tr>";
      for (const auto& cell : row)
        out += cell.starts_with('*')   ? "<td class=\"good\">" + escape(cell.substr(1)) + "</td>"
               : cell.starts_with('~') ? "<td class=\"faint\">" + escape(cell.substr(1)) + "</td>"
                                       : "<td>" + escape(cell) + "</td>";
      out += "</tr>\n";
    }
    out += "</tbody></table></div>\n";
  }
  void operator()(const Pictures& p) {
    out += "<div class=\"pictures\">";
    for (const auto& svg : p.svg) out += "<figure>" + svg + "</figure>";
    out += "</div>\n";
  }
};

struct Markdown {
  std::string out;

  void operator()(const Heading& h) {
    out += std::string(static_cast<std::size_t>(h.level), '#') + " " + h.text + "\n\n";
  }
  void operator()(const Paragraph& p) { out += p.text + "\n\n"; }
  void operator()(const Lines& l) { out += l.text + "\n"; }
  void operator()(const Table& t) {
    if (!t.title.empty()) out += t.title + "\n\n";
    const auto line = [&](const std::vector<std::string>& cells) {
      for (const auto& cell : cells)
        out += "| " +
               (cell.starts_with('*')   ? "**" + cell.substr(1) + "**"
                : cell.starts_with('~') ? "_" + cell.substr(1) + "_"
                                        : cell) +
               " ";
      out += "|\n";
    };
    line(t.head);
    for (std::size_t i = 0; i < t.head.size(); ++i) out += i == 0 || t.words ? "| --- " : "| ---: ";
    out += "|\n";
    for (const auto& row : t.rows) line(row);
    out += "\n";
  }
  void operator()(const Pictures&) {}
};

inline constexpr const char* style = R"(
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1f2430; background: #fff;
       max-width: 1180px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; }
h2 { font-size: 1.3rem; margin-top: 3rem; border-bottom: 2px solid #e3e6ec; padding-bottom: .3rem; }
h3 { font-size: 1.05rem; margin-top: 1.8rem; }
p { max-width: 62rem; }
nav { margin: 1.2rem 0; line-height: 2; }
nav a { color: #0b5c9e; text-decoration: none; margin-right: 1.1rem; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
pre { background: #f6f7f9; border-left: 3px solid #c9d3e0; padding: .7rem 1rem; white-space: pre-wrap;
      font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0 1.6rem; font-size: 13px;
        font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th { text-align: right; font-weight: 600; color: #4a5264; border-bottom: 1px solid #b9c0cc;
     padding: .25rem .55rem; vertical-align: bottom; }
td { text-align: right; padding: .18rem .55rem; border-bottom: 1px solid #eef0f4; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
                                 background: #fff; }
.words td { text-align: left; padding-right: 1.6rem; white-space: normal; }
td.good { font-weight: 650; color: #0a6640; }
td.faint { color: #8a93a3; }
tr:hover td { background: #f7f9fc; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.2rem; }
figure { margin: .6rem 0; }
svg { font: 11px system-ui, "DejaVu Sans", sans-serif; max-width: 100%; height: auto; }
@media (max-width: 600px) { body { padding: 0 .7rem; } figure { overflow-x: auto; } svg { min-width: 460px; }
                            td:first-child { white-space: normal; min-width: 8rem; } }
)";

}  // namespace detail

inline std::string html(const Document& document, const std::string& title) {
  detail::Html body;
  std::string links;
  for (const auto& block : document) {
    if (const auto* h = std::get_if<Heading>(&block); h && h->level == 2)
      links += "<a href=\"#" + detail::anchor(h->text) + "\">" + escape(h->text) + "</a> ";
    std::visit(body, block);
  }
  const std::size_t end_of_title = body.out.find("</h1>\n") + 6;
  body.out.insert(end_of_title, "<nav>" + links + "</nav>\n");
  return "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" +
         escape(title) +
         "</title><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>" +
         detail::style + "</style></head><body>\n" + body.out + "</body></html>\n";
}

inline std::string markdown(const Document& document) {
  detail::Markdown body;
  for (const auto& block : document) std::visit(body, block);
  return body.out;
}

}  // namespace report
