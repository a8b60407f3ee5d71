// SPDX-License-Identifier: MIT
//
// worker_local: an object that is expensive to make, or that must not be shared. Each worker makes
// it when a task first needs it, keeps it from task to task, and destroys it when it leaves in
// order.
//
// In Python an initializer puts these objects into a global, whether they are needed or not:
//
//     def open_users(): global users; users = Database("users.db")
//
//     with multiprocessing.Pool(2, initializer=open_users) as pool: ...

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

/// Stands for a connection: it cannot be copied, and to open it is slow.
class Database {
 public:
  explicit Database(const std::string& file) {
    if (file != "users.db") throw std::runtime_error("no such file: " + file);
    names_ = {{1, "anna"}, {2, "otto"}, {3, "eve"}};
    std::puts("opened");
  }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database() { std::puts("closed"); }

  const std::string& name(int id) { return ++queries_, names_.at(id); }
  [[nodiscard]] int queries() const { return queries_; }

 private:
  std::map<int, std::string> names_;
  int queries_ = 0;
};

procpool::worker_local<Database> users{[] { return Database("users.db"); }};
procpool::worker_local<Database> orders{[] { return Database("orders.db"); }};
procpool::worker_local<std::string> line;  // a buffer that keeps its memory between tasks

std::string greet(int id) {
  line->assign("hello, ");
  line->append(users->name(id));
  return *line;
}

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // lines of all processes in their true order
  procpool::Pool pool{1};
  pool.apply([] {});  // needs no database: none is opened
  fmt::print("{}\n", pool.map(greet, {1, 2, 3}));
  fmt::print("{} queries by one connection\n", pool.apply([] { return users->queries(); }));

  // If the constructor throws, the task throws that exception; the next task tries again.
  try {
    pool.apply([] { return orders->queries(); });
  } catch (const std::runtime_error& error) {
    fmt::print("{}\n", error.what());
  }

  // The program itself is not a worker.
  try {
    users->name(1);
  } catch (const std::logic_error&) {
    fmt::print("here is no worker\n");
  }

  pool.close();  // workers then leave in order and destroy their values
  pool.join();
}
