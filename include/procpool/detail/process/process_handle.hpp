// SPDX-License-Identifier: MIT
/// @file
/// A process as its handles see it. What is behind (process_start.hpp and what it includes: forks,
/// descriptors, the table of children) need not be compiled to make one.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <procpool/detail/base/stop_token.hpp>
#include <procpool/detail/machine/cpu_count.hpp>
#include <procpool/detail/os/fd.hpp>
#include <procpool/detail/os/time.hpp>
#include <procpool/detail/process/process_target.hpp>
#include <procpool/start_method.hpp>

namespace procpool::detail {

/// A process as its children know it. The descriptor is the parent's own, opened by the parent and
/// inherited: no child can mistake another process with the same number for its parent.
struct parent_link {
  pid_t pid = 0;
  std::string name;
  std::shared_ptr<const os::fd> process;
};

/// Who a process is. A child gets it from its parent in enter_child().
struct process_identity {
  std::string name = "MainProcess";
  bool daemon = false;        ///< may have no children; is terminated when its parent ends
  std::vector<int> position;  ///< in the tree: {1, 2} is the second child of the first child
  std::optional<parent_link> parent = std::nullopt;
};

/// Who the current process is.
[[nodiscard]] const process_identity& own_identity() noexcept;

/// Waits until this process's parent has ended; false when @p until came first.
bool wait_for_end(const parent_link& parent, const os::deadline& until);
/// The same; false when a stop was requested first.
bool wait_for_end(const parent_link& parent, const stop_token& stop);

/// A process made here: procpool::Process says what its members mean.
class child_process {
 public:
  child_process() = default;
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;
  virtual ~child_process() = default;

  [[nodiscard]] virtual std::string name() const = 0;
  virtual void set_name(std::string name) = 0;
  [[nodiscard]] virtual bool daemon() const = 0;
  virtual void set_daemon(bool daemon) = 0;
  [[nodiscard]] virtual std::optional<pid_t> pid() const = 0;

  virtual void start() = 0;
  [[nodiscard]] virtual bool join(const os::deadline& until) = 0;
  [[nodiscard]] virtual bool join(const stop_token& stop) = 0;
  [[nodiscard]] virtual bool is_alive() = 0;
  [[nodiscard]] virtual std::optional<int> exitcode() = 0;
  virtual void send_signal(int number, const char* call) = 0;
  virtual void close() = 0;
  [[nodiscard]] virtual int sentinel() const = 0;
};

class process_record;

/// @param name empty: the default name
/// @tparam Record process_record: a template so that nobody who makes no process compiles one
template <class Record>
std::shared_ptr<child_process> make_process(std::string name, std::optional<bool> daemon,
                                            std::optional<start_method> method,
                                            std::unique_ptr<process_target> target);

/// The children of this process that run, in the order of their start.
[[nodiscard]] std::vector<std::shared_ptr<child_process>> running_children();

}  // namespace procpool::detail
