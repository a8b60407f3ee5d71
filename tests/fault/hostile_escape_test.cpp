// SPDX-License-Identifier: MIT
// Workers that reach for what is not theirs (the kernel refuses), play with their bell, and do to
// their process what no task does: stop it, replace it, double it.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <optional>

#include "fault/hostile_battle.hpp"

namespace {

using namespace hostile;
constexpr manners any_end{.may_succeed = true};

int wage_all(const std::string& name, attack_code code, std::int32_t variants, manners allowed = {},
             shape form = shape::number) {
  return wage(name, allowed, [=](battle& fight) {
    for (std::int32_t i = 0; i < variants && fight.won(); ++i) fight.round(form, code, i);
  });
}

// ---- what the kernel refuses -------------------------------------------------------------------

/// Collects what should have failed and did not, or failed for another reason.
class refusals {
 public:
  void expect(const std::string& what, bool failed, std::initializer_list<int> reasons) {
    const int error = errno;
    ++count_;
    if (!failed) {
      surprises_ += what + " was not refused; ";
    } else if (std::ranges::find(reasons, error) == reasons.end()) {
      surprises_ += what + " failed with errno " + std::to_string(error) + "; ";
    }
  }
  [[nodiscard]] std::string result() const {
    if (count_ == 0) return "nothing was tried";
    return surprises_;
  }

 private:
  std::string surprises_;
  int count_ = 0;
};

void try_to_resize(refusals& all, int file, const std::string& name, off_t size) {
  all.expect("emptying " + name, ftruncate(file, 0) == -1, {EPERM});
  all.expect("shrinking " + name, ftruncate(file, size - 4096) == -1, {EPERM});
  all.expect("growing " + name, ftruncate(file, size + 4096) == -1, {EPERM});
  all.expect("allocating behind " + name, fallocate(file, 0, size, 1 << 20) == -1, {EPERM});
}

void try_to_write(refusals& all, int file, const std::string& name) {
  all.expect("pwrite to " + name, pwrite(file, "x", 1, 0) == -1, {EPERM});
  void* mapped = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  all.expect("a writable mapping of " + name, mapped == MAP_FAILED, {EPERM});
  const int hole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  all.expect("a hole in " + name, fallocate(file, hole, 0, 4096) == -1, {EPERM});
  all.expect("more seals on " + name, fcntl(file, F_ADD_SEALS, F_SEAL_WRITE) == -1, {EPERM});
}

/// Opens what a link in /proc leads to, if the system lets us; who may open a mapping by its link
/// is a matter of privileges, and so is nothing to rely on.
void try_link(refusals& all, const std::string& link, const std::string& target, off_t size) {
  const bool tasks = target.starts_with(tasks_name);
  if (!tasks && !target.starts_with(results_name)) return;
  const int file = open(link.c_str(), O_RDWR | O_CLOEXEC);
  if (file == -1) return;
  try_to_resize(all, file, link + " = " + target, size);
  if (tasks) try_to_write(all, file, link + " = " + target);
  close(file);
}

void try_folder(refusals& all, const std::string& folder) {
  for (const auto& name : support::names_in(folder)) {
    const std::string link = folder + "/" + name;
    std::error_code error;
    const std::string target = std::filesystem::read_symlink(link, error).string();
    const bool tasks = target.starts_with(tasks_name);
    const std::uint64_t size = tasks ? sizes.outbound_bytes() : sizes.inbound_bytes();
    if (!error) try_link(all, link, target, static_cast<off_t>(size));
  }
}

/// All ways to the memory of the pool that a worker has, but for its own inbound region.
std::string reach_for_tasks() {
  refusals all;
  const auto areas = areas_of(tasks_name);
  if (areas.size() != 1 || areas[0].rights != "r--s") return "the tasks are not mapped read-only";
  const area out = areas[0];
  all.expect("mprotect", mprotect(out.begin, out.size, PROT_READ | PROT_WRITE) == -1, {EACCES});
  all.expect("mprotect of one page", mprotect(out.begin, 4096, PROT_WRITE) == -1, {EACCES});
  all.expect("MADV_REMOVE", madvise(out.begin, 4096, MADV_REMOVE) == -1, {EACCES, EPERM, EINVAL});
  const int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  const auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(out.begin));
  all.expect("a write by /proc/self/mem", pwrite(memory, "x", 1, at) == -1, {EIO, EFAULT, EBADF});
  close(memory);
  try_folder(all, "/proc/self/fd");
  try_folder(all, "/proc/self/map_files");
  try_folder(all, "/proc/" + std::to_string(getppid()) + "/fd");
  return all.result();
}

void store_into_tasks() {
  std::byte* begin = areas_of(tasks_name).at(0).begin;
  *static_cast<volatile std::byte*>(begin) = std::byte{1};
}

TEST_CASE("the kernel refuses a worker all ways to write to the tasks or to resize shared memory",
          "[fault][hostile]") {
  procpool::Pool pool{small_pool};
  for (int i = 0; i < 3 * processes; ++i) CHECK(pool.apply(reach_for_tasks) == "");
  std::optional<int> signal;
  try {
    pool.apply(store_into_tasks);
  } catch (const procpool::WorkerDied& death) {
    signal = death.signal();
  }
  CHECK(signal == SIGSEGV);
  CHECK(pool.apply(innocent_number_of, 3) == 10);
  std::printf("hostile, reaching out: all refused by the kernel in %d workers\n", processes);
}

/// What a worker has open besides the standard streams and what the test had open before it made
/// any pool.
std::vector<std::string> strangers(const std::vector<int>& known) {
  std::vector<std::string> found;
  for (const auto& [number, target] : support::open_fds()) {
    if (number > 2 && std::ranges::find(known, number) == known.end()) found.push_back(target);
  }
  std::ranges::sort(found);
  return found;
}

std::vector<std::string> shared_areas() {
  std::vector<std::string> found;
  for (const auto& each : own_areas()) {
    if (each.name.starts_with("/memfd:procpool")) found.push_back(each.rights + " " + each.name);
  }
  std::ranges::sort(found);
  return found;
}

TEST_CASE("a worker has its own inbound region and its bell, and nothing of other workers",
          "[fault][hostile]") {
  std::vector<int> known;
  for (const auto& [number, target] : support::open_fds()) known.push_back(number);
  procpool::Pool first{small_pool};
  procpool::Pool second{small_pool};
  CHECK_THROWS_AS(second.apply(die), procpool::WorkerDied);  // a worker that came later
  // The parent is known by a descriptor, see parent_process().
  const std::vector<std::string> own{"anon_inode:[eventfd]", "anon_inode:[pidfd]"};
  for (auto* pool : {&first, &second}) {
    for (int i = 0; i < 3 * processes; ++i) {
      auto descriptors = pool->apply(strangers, known);
      // Every process of the program has the shared heap: its file and its pair of sockets.
      CHECK(std::erase_if(descriptors, [](const std::string& each) {
              return each.starts_with("/memfd:procpool heap") || each.starts_with("socket:");
            }) == 3);
      CHECK(descriptors == own);
      auto areas = pool->apply(shared_areas);
      std::erase_if(areas, [](const std::string& each) {
        return each.starts_with("rw-s /memfd:procpool heap");
      });
      CAPTURE(areas);
      REQUIRE(areas.size() == 3);
      CHECK(areas[0].starts_with("r--s /memfd:procpool large tasks"));  // one page of it
      CHECK(areas[1].starts_with("r--s /memfd:procpool tasks"));
      CHECK(areas[2].starts_with("rw-s /memfd:procpool results"));
    }
  }
}

// ---- the bell ----------------------------------------------------------------------------------

void close_everything(const order& what) {
  syscall(SYS_close_range, 0U, ~0U, 0U);
  if (what.variant == 1) die();
}

/// Nobody hears it from now on.
void mute_the_bell(const order&) {
  const int bell = own_bell();
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(null, bell);
  close(null);
  std::this_thread::sleep_for(20ms);  // the parent sleeps by now
}

/// Whether a thread of the program that made the pool waits in a read(2).
bool parent_is_reading() {
  std::ifstream server("/proc/" + std::to_string(getppid()) + "/stat");
  std::string line;
  std::getline(server, line);
  const std::string program = line.substr(line.rfind(')') + 4);  // behind ") S "
  const std::string threads = "/proc/" + program.substr(0, program.find(' ')) + "/task";
  for (const auto& thread : support::names_in(threads)) {
    std::ifstream what(threads + "/" + thread + "/syscall");
    std::string call;
    if (what >> call && call == std::to_string(SYS_read)) return true;
  }
  return false;
}

/// The parent hears it, but when it reads there is nothing to read, and reading waits.
void tease_with_the_bell(const order& what) {
  const int bell = own_bell();
  fcntl(bell, F_SETFL, fcntl(bell, F_GETFL) & ~O_NONBLOCK);
  std::mt19937_64 random(what.seed);
  const auto end = std::chrono::steady_clock::now() + 1s;
  while (std::chrono::steady_clock::now() < end && !parent_is_reading()) {
    std::uint64_t count = 1;
    if (write(bell, &count, sizeof count) < 0) break;
    const auto steal = std::chrono::steady_clock::now() + std::chrono::microseconds(random() % 100);
    while (std::chrono::steady_clock::now() < steal) continue;
    const iovec into{&count, sizeof count};
    static_cast<void>(preadv2(bell, &into, 1, -1, RWF_NOWAIT));
  }
  die();
}

/// The worker sleeps, and nobody wakes it: it says that it is awake.
void pretend_to_be_awake(const order&) {
  std::thread([&own = inbound::find().control()] {
    const auto end = std::chrono::steady_clock::now() + 400ms;
    while (std::chrono::steady_clock::now() < end) own.parked = 0;
    die();
  }).detach();
}

TEST_CASE("a worker that plays with its bell harms no other", "[fault][hostile][limit:300]") {
  const campaign figures("bells");
  CHECK(wage_all("closed", close_everything, 2, any_end) == 0);
  CHECK(wage_all("closed, a text", close_everything, 2, any_end, shape::text) == 0);
  CHECK(wage_all("muted", mute_the_bell, 3, any_end) == 0);
  CHECK(wage_all("teasing", tease_with_the_bell, 3) == 0);
  CHECK(wage_all("awake", pretend_to_be_awake, 3, {.may_succeed = true, .lingers = true}) == 0);
}

// ---- other processes ---------------------------------------------------------------------------

void become_another_program(const order& what) {
  const char* commands[] = {"exit 0", "exit 3", "kill -9 $$"};
  execl("/bin/sh", "sh", "-c", commands[what.variant], nullptr);
}

/// Both return, so both are workers, one of them without the memory for it.
void double_oneself(const order& what) {
  const pid_t child = what.variant == 0 ? fork() : static_cast<pid_t>(syscall(SYS_fork));
  if (child > 0) waitpid(child, nullptr, 0);
}

/// The fork server becomes the tracer, and is told of stops like of deaths.
void be_traced(const order& what) {
  ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  raise(what.variant == 0 ? SIGSTOP : SIGUSR1);
  die();
}

/// A process that the fork server has for a child, and knows nothing of.
void get_a_sibling(const order&) {
  const long child = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (child == 0) {
    while (!figures->over) usleep(10'000);
    _exit(0);
  }
  die();
}

void ring_the_fork_server(const order&) {
  for (int i = 0; i < 10'000; ++i) kill(getppid(), SIGCHLD);
  die();
}

TEST_CASE("what a worker makes of its process costs one task", "[fault][hostile][limit:300]") {
  const campaign figures("processes");
  CHECK(wage_all("another program", become_another_program, 3) == 0);
  CHECK(wage_all("doubled", double_oneself, 2, any_end) == 0);
  CHECK(wage_all("doubled, a text", double_oneself, 2, any_end, shape::text) == 0);
  CHECK(wage_all("traced", be_traced, 2) == 0);
  CHECK(wage_all("a sibling", get_a_sibling, 2) == 0);
  CHECK(wage_all("SIGCHLD", ring_the_fork_server, 1) == 0);
}

/// Once it has nothing to do any more.
pid_t stop_when_idle() {
  std::thread([&own = inbound::find().control()] {
    while (own.parked == 0) std::this_thread::sleep_for(1ms);
    kill(getpid(), SIGSTOP);
  }).detach();
  return getpid();
}

char state_of(pid_t pid) {
  for (const auto& each : support::all_processes()) {
    if (each.pid == pid) return each.state;
  }
  return '?';
}

TEST_CASE("workers that are stopped between two tasks keep no task from the others",
          "[fault][hostile]") {
  procpool::Pool pool{small_pool};
  for (int stopped = 0; stopped < processes - 1; ++stopped) {
    const pid_t worker = pool.apply(stop_when_idle);
    REQUIRE(support::eventually([=] { return state_of(worker) == 'T'; }));
    std::vector<procpool::AsyncResult<std::int32_t>> results;
    for (std::int32_t i = 0; i < 200; ++i) {
      results.push_back(pool.apply_async(innocent_number_of, i));
    }
    for (std::int32_t i = 0; i < 200; ++i) {
      const auto& result = results[static_cast<std::size_t>(i)];
      REQUIRE(result.wait(15s));
      REQUIRE(result.get() == i * i + 1);
    }
  }
}

}  // namespace
