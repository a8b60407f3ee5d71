// SPDX-License-Identifier: MIT
/// @file
/// The interface between process.hpp and the implementation of a process (process_start.hpp and
/// what it includes: forks, descriptors, the table of children). A program that only makes handles
/// need not compile the implementation.
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

/// A process as its children know it. The parent opens the pidfd and the child inherits it: no
/// child mistakes another process with the same number for its parent.
struct parent_link {
  pid_t pid = 0;
  std::string name;
  std::shared_ptr<const os::fd> process;
};

/// The identity of a process. A child gets it from its parent in enter_child().
struct process_identity {
  std::string name = "MainProcess";
  bool daemon = false;        ///< may not have children; is terminated when its parent ends
  std::vector<int> position;  ///< in the tree: {1, 2} is the second child of the first child
  std::optional<parent_link> parent = std::nullopt;
};

/// The identity of the current process.
[[nodiscard]] const process_identity& own_identity() noexcept;

/// Waits until the parent has ended. @returns false when @p until came first
bool wait_for_end(const parent_link& parent, const os::deadline& until);
/// The same. @returns false when a stop was requested first
bool wait_for_end(const parent_link& parent, const stop_token& stop);

/// A process that this program made. The members are documented in procpool::Process.
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
/// @tparam Record process_record. A parameter, so that programs that make no process do not compile
///                process_record.
template <class Record>
std::shared_ptr<child_process> make_process(std::string name, std::optional<bool> daemon,
                                            std::optional<start_method> method,
                                            std::unique_ptr<process_target> target);

/// The running children of this process, in the order of their start.
[[nodiscard]] std::vector<std::shared_ptr<child_process>> running_children();

}  // namespace procpool::detail
