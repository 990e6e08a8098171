#pragma once
/// @file
/// A web server on 127.0.0.1 for tests, that can also behave badly.

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace minnow_test {

/// How the server answers a request for a path.
struct Answer {
  int status = 200;
  std::string body = "";
  bool ranges = true;                      ///< honour "Range: bytes=N-"
  std::size_t cut_at = std::string::npos;  ///< close the connection after so many bytes of the body
  bool stall = false;                      ///< at that point, say nothing any more instead
  bool announce_length = true;
  std::string location = "";  ///< of a redirection
};

class HttpServer {
 public:
  /// What was asked: the path, and where the range began (0: no range).
  struct Request {
    std::string path;
    std::size_t from = 0;
    friend bool operator==(const Request&, const Request&) = default;
  };
  /// Maps the how-manieth request (from 0) of a path to its answer.
  using Handler = std::function<Answer(const std::string& path, int repetition)>;

  explicit HttpServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(listener_ >= 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(listen(listener_, 8) == 0);
    socklen_t length = sizeof address;
    REQUIRE(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    address_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
    thread_ = std::thread([this] { serve(); });
  }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer() {
    shutdown(listener_, SHUT_RDWR);  // ends accept
    thread_.join();
    close(listener_);
  }

  /// "http://127.0.0.1:<port>/"
  const std::string& address() const { return address_; }
  std::vector<Request> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    for (;;) {
      const int connection = accept(listener_, nullptr, nullptr);
      if (connection < 0) return;
      answer(connection);
      close(connection);
    }
  }

  void answer(int connection) {
    std::string request;
    char buffer[4096];
    while (request.find("\r\n\r\n") == std::string::npos) {
      const ssize_t got = recv(connection, buffer, sizeof buffer, 0);
      if (got <= 0) return;
      request.append(buffer, static_cast<std::size_t>(got));
    }
    const std::size_t path_begin = request.find('/') + 1;
    Request parsed{request.substr(path_begin, request.find(' ', path_begin) - path_begin), 0};
    if (const std::size_t range = request.find("Range: bytes="); range != std::string::npos)
      parsed.from = std::stoul(request.substr(range + 13));
    int repetition = 0;
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(parsed);
      repetition = repetitions_[parsed.path]++;
    }
    respond(connection, handler_(parsed.path, repetition), parsed.from);
  }

  void respond(int connection, const Answer& answer, std::size_t from) {
    int status = answer.status;
    std::string body = answer.body;
    std::string headers;
    if (status == 200 && from > 0 && answer.ranges) {
      if (from >= body.size()) {
        status = 416;
        body = "";
      } else {
        status = 206;
        headers = "Content-Range: bytes " + std::to_string(from) + "-" +
                  std::to_string(body.size() - 1) + "/" + std::to_string(body.size()) + "\r\n";
        body.erase(0, from);
      }
    }
    if (!answer.location.empty()) headers += "Location: " + answer.location + "\r\n";
    if (answer.announce_length)
      headers += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    send_all(connection, "HTTP/1.1 " + std::to_string(status) + " Status\r\nConnection: close\r\n" +
                             headers + "\r\n");
    send_all(connection, body.substr(0, answer.cut_at));
    char byte = 0;
    // The client hangs up at last.
    if (answer.stall && answer.cut_at < body.size())
      static_cast<void>(recv(connection, &byte, 1, 0));
  }

  static void send_all(int connection, const std::string& bytes) {
    for (std::size_t sent = 0; sent < bytes.size();) {
      const ssize_t now = send(connection, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (now <= 0) return;
      sent += static_cast<std::size_t>(now);
    }
  }

  Handler handler_;
  int listener_ = -1;
  std::string address_;
  mutable std::mutex mutex_;  // guards the two below
  std::vector<Request> requests_;
  std::map<std::string, int> repetitions_;
  std::thread thread_;
};

}  // namespace minnow_test
