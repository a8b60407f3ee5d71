// SPDX-License-Identifier: MIT
// Every system call of the library fails in turn, in the program, the fork server, the workers and
// the processes, while a pool is made, used and ended. Whatever fails: success or a clear error,
// nothing left behind, no crash, no hang.
//
//   PROCPOOL_FULL=1       every occurrence of every call, not only some of the later ones
//   PROCPOOL_FAULT=name   only runs whose name begins so, and what they told; the names of runs
//                         that fail the test are printed
//   PROCPOOL_SEED=number  the choice of another run again
#include "syscall_scenario.hpp"

#include "syscall_failures.hpp"

#include <sys/syscall.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "support/processes.hpp"
#include "support/shared.hpp"

namespace {

using failing::manner;
using failing::role;
using std::chrono::steady_clock;

/// Much longer than any run takes (20 ms), on a machine that does other things as well.
constexpr std::chrono::seconds time_limit{10};

bool complete() {
  return std::getenv("PROCPOOL_FULL") != nullptr;
}

/// The beginning of the names that are wanted; null: all.
const char* wanted_name() {
  return std::getenv("PROCPOOL_FAULT");
}

std::uint32_t choose_seed() {
  const char* given = std::getenv("PROCPOOL_SEED");
  return given != nullptr ? static_cast<std::uint32_t>(std::atol(given)) : std::random_device()();
}

// ---- one run -----------------------------------------------------------------------------------

using plan = std::array<failing::fault, 2>;

std::string name_of(const failing::fault& fault) {
  std::string text = failing::role_names[static_cast<std::size_t>(fault.who)];
  text += std::string(" ") + failing::call_names[fault.call] + " ";
  text += std::to_string(fault.occurrence) + " ";
  text += fault.error == 0 ? "short" : strerrorname_np(fault.error);
  if (fault.how == manner::shortened && fault.error != 0) text += " dropped";
  return text + (fault.for_ever ? " for ever" : "");
}

struct scene {
  scenario::variant way;
  plan faults{};

  /// "drained worker mmap 3 ENOMEM for ever + parent close 5 EINTR"
  [[nodiscard]] std::string name() const {
    std::string text = scenario::variant_names[static_cast<std::size_t>(way)];
    for (const auto& each : faults) {
      if (each.call == failing::call_count) break;
      text += (&each == faults.data() ? " " : " + ") + name_of(each);
    }
    return text;
  }
};

/// What the test sees of one run.
struct shared_state {
  failing::control control;
  scenario::report report;
};

/// A run in a process of its own.
class case_run {
 public:
  explicit case_run(const scene& what)
      : what_(what), errors_(::memfd_create("stderr of a case", MFD_CLOEXEC)) {
    state_->control.plan = what.faults;
    std::fflush(stdout);  // or the case's processes would write it once more
    pid_ = ::fork();
    if (pid_ == 0) ::_exit(scenario::play(what.way, state_->control, state_->report, errors_));
    pidfd_ = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
  }
  case_run(const case_run&) = delete;
  case_run& operator=(const case_run&) = delete;
  ~case_run() {
    ::close(pidfd_);
    ::close(errors_);
  }

  [[nodiscard]] int pidfd() const { return pidfd_; }
  [[nodiscard]] bool late() const { return steady_clock::now() > begin_ + time_limit; }
  [[nodiscard]] const scene& what() const { return what_; }
  [[nodiscard]] const shared_state& state() const { return *state_; }
  [[nodiscard]] std::string errors() const {
    std::string text(static_cast<std::size_t>(::lseek(errors_, 0, SEEK_END)), '\0');
    const auto got = ::pread(errors_, text.data(), text.size(), 0);
    return got < 0 ? "" : text;
  }

  /// After its end. Minus the signal's number, or its exit status.
  int collect() const {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }

  /// Ends it with all that it started; says what there was.
  std::string kill_all() const {
    std::string text;
    auto family = support::descendants_of(pid_);
    for (const auto& each : family) text += "      " + support::describe(each) + "\n";
    ::kill(pid_, SIGKILL);
    for (const auto& each : family) ::kill(each.pid, SIGKILL);
    return text;
  }

 private:
  scene what_;
  int errors_;
  support::shared<shared_state> state_;
  pid_t pid_ = 0;
  int pidfd_ = -1;
  steady_clock::time_point begin_ = steady_clock::now();
};

// ---- judging -----------------------------------------------------------------------------------

/// The figures.
struct tally {
  int runs = 0;
  int injected = 0;
  int success = 0;
  int errors = 0;
  int unnamed = 0;
  int hangs = 0;
  int crashes = 0;
  int leaks = 0;
  int wrong = 0;
};

void tell(const case_run& run, const std::string& verdict) {
  const auto& [control, report] = run.state();
  const char* file = control.file;
  const char* slash = file != nullptr ? std::strrchr(file, '/') : nullptr;
  std::printf("  %s: %s; %u times, at %s:%d\n%s%s", run.what().name().c_str(), verdict.c_str(),
              control.injected.load(), slash != nullptr ? slash + 1 : "nowhere",
              control.line.load(), report.text.data(), run.errors().c_str());
  std::fflush(stdout);
}

/// Whether no text that an error came with names its cause, and nothing on stderr does.
bool is_unnamed(const case_run& run) {
  if (run.state().report.unnamed == 0) return false;
  const std::string errors = run.errors();
  return std::ranges::none_of(run.what().faults, [&](const failing::fault& each) {
    return each.error != 0 && errors.find(std::strerror(each.error)) != std::string::npos;
  });
}

/// After the end of a run: what it came to.
void judge(const case_run& run, tally& sum) {
  const int status = run.collect();
  const auto& [control, report] = run.state();
  std::string verdict;
  const auto count = [&](bool bad, int tally::*figure, const std::string& text) {
    if (!bad) return;
    ++(sum.*figure);
    verdict += verdict.empty() ? text : ", " + text;
  };
  count(status < 0, &tally::crashes, "CRASH of the program by signal " + std::to_string(-status));
  count(control.crashes > 0, &tally::crashes,
        "CRASH of a process by signal " + std::to_string(control.crash_signal));
  count(status >= 0 && !report.finished, &tally::crashes, "CRASH: it left half-way");
  count(report.leaks > 0, &tally::leaks, "LEAK");
  count(report.wrong > 0, &tally::wrong, "WRONG");
  count(is_unnamed(run), &tally::unnamed, "UNCLEAR: nothing names the cause");
  ++sum.runs;
  sum.injected += static_cast<int>(control.injected > 0);
  const bool good = verdict.empty() && control.injected > 0;
  if (good) ++(report.errors > 0 ? sum.errors : sum.success);
  if (!verdict.empty() || wanted_name() != nullptr) tell(run, verdict.empty() ? "fine" : verdict);
}

void fail_submission(const case_run& run, tally& sum) {
  ++sum.runs;
  ++sum.hangs;
  tell(run, std::string("HANG in \"") + run.state().report.step.load() + '"');
  std::printf("%s", run.kill_all().c_str());
  run.collect();
}

// ---- running many ------------------------------------------------------------------------------

/// Runs all, some at a time.
tally run_all(std::vector<scene> scenes) {
  constexpr std::size_t at_a_time = 6;
  if (const char* wanted = wanted_name()) {
    std::erase_if(scenes, [&](const scene& each) { return !each.name().starts_with(wanted); });
  }
  tally sum;
  std::vector<std::unique_ptr<case_run>> running;
  auto next = scenes.begin();
  while (next != scenes.end() || !running.empty()) {
    while (next != scenes.end() && running.size() < at_a_time) {
      running.push_back(std::make_unique<case_run>(*next++));
    }
    std::vector<pollfd> ends;
    for (const auto& each : running) ends.push_back({each->pidfd(), POLLIN, 0});
    ::poll(ends.data(), ends.size(), 1000);
    for (std::size_t i = running.size(); i-- > 0;) {
      if (ends[i].revents == 0 && !running[i]->late()) continue;
      ends[i].revents != 0 ? judge(*running[i], sum) : fail_submission(*running[i], sum);
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
  return sum;
}

// ---- enumerating -------------------------------------------------------------------------------

/// The calls that a run without a fault makes.
std::unique_ptr<case_run> dry_run(scenario::variant way) {
  auto run = std::make_unique<case_run>(scene{way});
  REQUIRE(run->collect() == 0);
  INFO(run->state().report.text.data() << run->errors());
  REQUIRE(run->state().report.finished);
  REQUIRE(run->state().report.errors + run->state().report.wrong == 0);
  REQUIRE(run->state().report.leaks == 0);
  REQUIRE(run->state().control.crashes == 0);
  return run;
}

/// The first few occurrences, and some of the others.
std::vector<std::uint32_t> occurrences(std::uint32_t made, std::mt19937& random) {
  constexpr std::uint32_t first = 5;
  constexpr std::uint32_t others = 4;
  std::vector<std::uint32_t> chosen;
  for (std::uint32_t i = 1; i <= made && (complete() || i <= first); ++i) chosen.push_back(i);
  for (std::uint32_t i = 0; !complete() && i < others && made > first; ++i) {
    chosen.push_back(first + 1 + static_cast<std::uint32_t>(random()) % (made - first));
  }
  return chosen;
}

/// All that may happen to this call.
void add_faults(role who, std::uint32_t call, std::uint32_t occurrence, std::mt19937& random,
                std::vector<failing::fault>& faults) {
  const std::string_view name = failing::call_names[call];
  for (const failing::failure& each : failing::failures_of(name)) {
    if (each.only && each.only != who) continue;
    faults.push_back({who, call, occurrence, false, each.how, each.error});
    const bool lasts = failing::may_last(name, each);
    if (!lasts || (occurrence > 2 && random() % 4 != 0 && !complete())) continue;
    faults.push_back({who, call, occurrence, true, each.how, each.error});
  }
}

/// All that may happen in a scenario, thinned by occurrences().
std::vector<failing::fault> faults_of(const failing::control& dry, std::mt19937& random) {
  std::vector<failing::fault> faults;
  for (std::size_t who = 0; who < failing::role_names.size(); ++who) {
    for (std::uint32_t call = 0; call < failing::call_count; ++call) {
      for (const std::uint32_t each : occurrences(dry.made[who][call], random)) {
        add_faults(static_cast<role>(who), call, each, random, faults);
      }
    }
  }
  return faults;
}

constexpr std::array both{scenario::variant::drained, scenario::variant::terminated};

void conclude(const char* title, const tally& sum, std::uint32_t seed) {
  std::printf(
      "%s: %d runs with a fault (seed %u): success %d, clear error %d, wrong %d, unclear %d, "
      "hangs %d, crashes %d, leaks %d\n",
      title, sum.injected, seed, sum.success, sum.errors, sum.wrong, sum.unnamed, sum.hangs,
      sum.crashes, sum.leaks);
  CHECK(sum.hangs == 0);
  CHECK(sum.crashes == 0);
  CHECK(sum.leaks == 0);
  CHECK(sum.wrong == 0);
  CHECK(sum.unnamed == 0);
}

}  // namespace

TEST_CASE("Any system call may fail: success or a clear error, and nothing hangs, crashes or leaks",
          "[fault][limit:900]") {
  const std::uint32_t seed = choose_seed();
  std::mt19937 random(seed);
  std::vector<scene> scenes;
  for (const auto way : both) {
    const auto dry = dry_run(way);
    const auto& control = dry->state().control;
    std::printf("system calls in a run (%s): construction %u, use %u, end %u\n",
                scenario::variant_names[static_cast<std::size_t>(way)], control.in_phase[0].load(),
                control.in_phase[1].load(), control.in_phase[2].load());
    for (const auto& fault : faults_of(control, random)) scenes.push_back({way, {fault}});
  }
  const tally sum = run_all(scenes);
  conclude("one system call fails", sum, seed);
  CHECK((sum.injected > 1000 || wanted_name() != nullptr));
}

TEST_CASE("Any two system calls may fail in one run", "[fault][limit:900]") {
  const std::uint32_t seed = choose_seed();
  const std::size_t pairs = complete() ? 5000 : 200;
  std::mt19937 random(seed);
  std::vector<scene> scenes;
  for (const auto way : both) {
    const auto faults = faults_of(dry_run(way)->state().control, random);
    const auto any = [&] { return faults[random() % faults.size()]; };
    for (std::size_t i = 0; i < pairs; ++i) scenes.push_back({way, {any(), any()}});
  }
  conclude("two system calls fail", run_all(scenes), seed);
}
