// SPDX-License-Identifier: MIT
//
// A server on Boost.Asio coroutines that computes in a pool of processes. One thread serves all
// connections. While a worker factorizes a number, other requests are answered at once. A request
// that kills its worker gets an error as the answer.
//
// The program is also the client: it requests a long computation on one connection and sends pings
// on another one at the same time.

#include <fmt/format.h>

#include <boost/asio.hpp>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <exception>
#include <string>
#include <thread>
#include <utility>

#include <procpool/procpool.hpp>

namespace asio = boost::asio;
using asio::use_awaitable;
using asio::ip::tcp;
using namespace std::chrono_literals;

// ---- the tasks ----------------------------------------------------------------------------------

long largest_factor(long number) {
  std::this_thread::sleep_for(1s);  // stands for a long computation
  long largest = 1;
  for (long factor = 2; factor * factor <= number; ++factor) {
    while (number % factor == 0) number /= largest = factor;
  }
  return number > 1 ? number : largest;
}

long crash(long /*number*/) {
  std::raise(SIGKILL);
  return 0;
}

// ---- from the pool to Asio ----------------------------------------------------------------------

// Waits for a result of a pool in an Asio coroutine. The pool runs the callback on its own thread,
// which posts the completion to the coroutine's executor, so that the coroutine resumes there.
template <class T>
asio::awaitable<T> result_of(procpool::AsyncResult<T> result) {
  co_await asio::async_initiate<decltype(use_awaitable), void()>(
      [&result](auto handler) {
        auto executor = asio::get_associated_executor(handler);
        auto work = asio::prefer(executor, asio::execution::outstanding_work.tracked);
        result.add_done_callback([handler = std::move(handler), work = std::move(work)](
                                     auto&) mutable { asio::post(work, std::move(handler)); });
      },
      use_awaitable);
  co_return std::move(result).get();  // ready: does not wait
}

// ---- the server ---------------------------------------------------------------------------------

asio::awaitable<std::string> answer(procpool::Pool<>& pool, const std::string& request) {
  if (request == "ping") co_return "pong";
  try {
    if (request == "crash")
      co_return std::to_string(co_await result_of(pool.apply_async(crash, 0)));
    const long factor = co_await result_of(pool.apply_async(largest_factor, std::stol(request)));
    co_return std::to_string(factor);
  } catch (const procpool::WorkerDied& death) {
    co_return fmt::format("sorry: the worker was killed by signal {}", -death.exitcode());
  }
}

// Each line is a request.
asio::awaitable<void> serve(procpool::Pool<>& pool, tcp::socket peer) {
  std::string input;
  try {
    while (true) {
      const std::size_t size =
          co_await asio::async_read_until(peer, asio::dynamic_buffer(input), '\n', use_awaitable);
      const std::string request = input.substr(0, size - 1);
      input.erase(0, size);
      const std::string reply = co_await answer(pool, request) + "\n";
      co_await asio::async_write(peer, asio::buffer(reply), use_awaitable);
    }
  } catch (const boost::system::system_error&) {  // the client has closed the connection
  }
}

asio::awaitable<void> listen(procpool::Pool<>& pool, tcp::acceptor& acceptor) {
  while (true) {
    tcp::socket peer = co_await acceptor.async_accept(use_awaitable);
    asio::co_spawn(acceptor.get_executor(), serve(pool, std::move(peer)), asio::detached);
  }
}

// ---- the client ---------------------------------------------------------------------------------

class connection {
 public:
  connection(asio::io_context& context, const tcp::endpoint& server) : socket_(context) {
    socket_.connect(server);
  }
  void send(const std::string& request) { asio::write(socket_, asio::buffer(request + "\n")); }
  std::string receive() {
    const std::size_t size = asio::read_until(socket_, asio::dynamic_buffer(input_), '\n');
    std::string reply = input_.substr(0, size - 1);
    input_.erase(0, size);
    return reply;
  }
  std::string ask(const std::string& request) {
    send(request);
    return receive();
  }

 private:
  tcp::socket socket_;
  std::string input_;
};

void be_client(const tcp::endpoint& server) {
  asio::io_context context;
  connection heavy(context, server);
  connection light(context, server);
  const auto begin = std::chrono::steady_clock::now();
  heavy.send("9699690");
  int pongs = 0;
  while (pongs < 50 && light.ask("ping") == "pong") ++pongs;
  const bool meanwhile = std::chrono::steady_clock::now() - begin < 1s;
  fmt::print("{} pings were answered\n", pongs);
  const std::string factor = heavy.receive();
  fmt::print("before the heavy request: {}\n", meanwhile);
  fmt::print("the largest prime factor of 9699690 is {}\n", factor);
  fmt::print("crash: {}\n", light.ask("crash"));
  fmt::print("and then: {}\n", light.ask("ping"));
}

int main() {
  procpool::Pool pool{2};  // before there are sockets and threads, which a fork would copy
  asio::io_context context;
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
  asio::co_spawn(context, listen(pool, acceptor), asio::detached);
  std::thread client([&, server = acceptor.local_endpoint()] {
    be_client(server);
    context.stop();
  });
  context.run();
  client.join();
  return 0;
}
