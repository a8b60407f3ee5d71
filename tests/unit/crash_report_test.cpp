// SPDX-License-Identifier: MIT
// A crash in a child: what its signal handler notes, what the parent makes of it, what it dies of.
#include <catch2/catch_test_macros.hpp>

#include <alloca.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/detail/crash/crash_handler.hpp>
#include <procpool/detail/crash/crash_report.hpp>
#include <procpool/detail/crash/death_report.hpp>
#include <procpool/detail/module/symbols.hpp>
#include <procpool/detail/os/memory.hpp>

#include "support/child.hpp"
#include "support/shared.hpp"

namespace {

using procpool::detail::crash_handler;
using procpool::detail::crash_note;
using procpool::detail::crash_report;
using procpool::detail::read_crash;
namespace os = procpool::detail::os;

/// The test framework's handler runs on a stack of its own, too, which must not help ours.
void drop_signal_stack() {
  stack_t none{};
  none.ss_flags = SS_DISABLE;
  CHILD_REQUIRE(sigaltstack(&none, nullptr) == 0);
}

/// How a child ended that ran @p body with the handler in place.
struct crash {
  int exitcode = 0;
  crash_report report = {};
};

crash crash_of(const std::function<int()>& body) {
  const support::shared<crash_note> note;
  const int exitcode = support::run_child([&] {
    drop_signal_stack();
    const crash_handler handler(*note);
    return body();
  });
  return {exitcode, read_crash(*note, -exitcode)};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// How many frames of the stack are in a function of this name.
auto frames_in(const crash_report& report, const std::string& name) {
  return std::count_if(report.stack.begin(), report.stack.end(),
                       [&](const auto& line) { return contains(line, name); });
}

bool is_innermost(const crash_report& report, const std::string& name) {
  return !report.stack.empty() && contains(report.stack.front(), name);
}

/// Nothing that follows a crash can be optimized into a jump to it.
volatile int sink = 0;
int through_sink(int value) {
  sink = value;
  return sink;
}

// The places to crash, each a function that no symbol is exported for.
constexpr std::uintptr_t nowhere = 0x10;
volatile std::uintptr_t wild_address = nowhere;  // the compiler would see through a constant

[[gnu::noinline]] int write_to_nowhere() {
  *reinterpret_cast<volatile int*>(wild_address) = 1;
  return through_sink(0);
}

[[gnu::noinline]] int call_one_that_crashes() {
  const int got = write_to_nowhere();
  return through_sink(got + 1);
}

__attribute__((noinline, no_sanitize("undefined"))) int divide_by(int divisor) {
  return through_sink(1000 / divisor);
}

[[gnu::noinline]] int abort_here() {
  std::abort();
}

[[gnu::noinline]] int throw_too_far() {
  if (sink == 0) throw std::runtime_error("nobody catches this");
  return 0;
}
[[gnu::noinline]] int let_nothing_through() noexcept {
  return through_sink(throw_too_far());
}

template <std::size_t bytes>
[[gnu::noinline]] int recurse_for_ever(int depth) {
  volatile char frame[bytes];
  frame[0] = 1;
  const int deeper = depth < INT_MAX ? recurse_for_ever<bytes>(depth + 1) : 0;
  return deeper + frame[0];
}

// UBSan would look at the function before it calls it.
__attribute__((noinline, no_sanitize("undefined"))) int call_nothing() {
  int (*volatile nothing)() = nullptr;
  const int got = nothing();
  return through_sink(got + 1);
}

[[gnu::noinline]] int burn_time() {
  while (sink == 0) continue;
  return 0;
}

TEST_CASE("a wild write is reported with its address and its stack", "[crash]") {
  const auto [exitcode, report] = crash_of(call_one_that_crashes);
  CHECK(exitcode == -SIGSEGV);
  CHECK(report.fault_address == nowhere);
  CHECK(report.reason == "address not mapped");
  REQUIRE(report.stack.size() > 2);
  CHECK(contains(report.stack[0], "(anonymous namespace)::write_to_nowhere() + 0x"));
  CHECK(contains(report.stack[0], " in "));
  CHECK(contains(report.stack[1], "(anonymous namespace)::call_one_that_crashes() + 0x"));
  CHECK(frames_in(report, "main") > 0);
}

TEST_CASE("a lambda that crashes has a name", "[crash]") {
  const auto bad = [](std::uintptr_t address) __attribute__((noinline)) {
    *reinterpret_cast<volatile int*>(address) = 1;
    return 0;
  };
  const auto [exitcode, report] = crash_of([&] { return bad(wild_address); });
  CHECK(exitcode == -SIGSEGV);
  CHECK(is_innermost(report, "::operator()(unsigned long) const"));
}

TEST_CASE("writing to constant memory is told from writing to nowhere", "[crash]") {
  static const int constant = 5;
  const auto [exitcode, report] = crash_of([] {
    *const_cast<volatile int*>(&constant) = 1;
    return 0;
  });
  CHECK(exitcode == -SIGSEGV);
  CHECK(report.fault_address == reinterpret_cast<std::uintptr_t>(&constant));
  CHECK(report.reason == "invalid permissions");
}

TEST_CASE("reading behind the end of a mapped file is a SIGBUS with its address", "[crash]") {
  const auto [exitcode, report] = crash_of([] {
    const os::fd file(memfd_create("empty", MFD_CLOEXEC));
    void* at = mmap(reinterpret_cast<void*>(0x10000000), 4096, PROT_READ,
                    MAP_SHARED | MAP_FIXED_NOREPLACE, file.get(), 0);
    return through_sink(*static_cast<volatile int*>(at));
  });
  CHECK(exitcode == -SIGBUS);
  CHECK(report.fault_address == 0x10000000);
  CHECK(contains(report.reason, "beyond the end of a mapped file"));
}

#if defined(__x86_64__)  // others have zero as the result
TEST_CASE("a division by zero is reported", "[crash]") {
  const auto [exitcode, report] = crash_of([] { return divide_by(through_sink(0)); });
  CHECK(exitcode == -SIGFPE);
  CHECK(report.fault_address.has_value());
  CHECK(contains(report.reason, "division by zero"));
  CHECK(is_innermost(report, "::divide_by(int)"));
}
#endif

TEST_CASE("an illegal instruction is reported", "[crash]") {
  const auto [exitcode, report] = crash_of([]() -> int { __builtin_trap(); });
  CHECK((exitcode == -SIGILL || exitcode == -SIGTRAP));
  CHECK_FALSE(report.stack.empty());
}

TEST_CASE("an abort is reported with who called it", "[crash]") {
  const auto [exitcode, report] = crash_of(abort_here);
  CHECK(exitcode == -SIGABRT);
  CHECK_FALSE(report.fault_address.has_value());
  CHECK(report.reason == "abort()");
  CHECK(frames_in(report, "::abort_here()") == 1);
  CHECK_FALSE(is_innermost(report, "::abort_here()"));
}

TEST_CASE("an exception that nobody may catch is reported with who threw it", "[crash]") {
  const auto ended = crash_of([] {
    std::freopen("/dev/null", "w", stderr);  // std::terminate says something
    return let_nothing_through();
  });
  CHECK(ended.exitcode == -SIGABRT);
  CHECK(frames_in(ended.report, "::let_nothing_through()") == 1);
}

TEST_CASE("a stack overflow is reported, with small frames and with large ones", "[crash]") {
  const auto small = crash_of([] { return recurse_for_ever<16>(0); });
  CHECK(small.exitcode == -SIGSEGV);
  CHECK(small.report.reason == "stack overflow");
  CHECK(small.report.fault_address.has_value());
  CHECK(is_innermost(small.report, "recurse_for_ever<16ul>(int)"));
  CHECK(small.report.stack.size() == crash_note::max_frames);

  const auto large = crash_of([] { return recurse_for_ever<300'000>(0); });
  CHECK(large.exitcode == -SIGSEGV);
  CHECK(large.report.reason == "stack overflow");
  CHECK(frames_in(large.report, "recurse_for_ever<300000ul>(int)") > 5);
}

TEST_CASE("a call of a null function pointer is reported with the caller", "[crash]") {
  const auto [exitcode, report] = crash_of(call_nothing);
  CHECK(exitcode == -SIGSEGV);
  CHECK(report.fault_address == 0);
  REQUIRE(report.stack.size() > 3);
  CHECK(report.stack[0] == "0x0");
  CHECK(contains(report.stack[1], "(anonymous namespace)::call_nothing() + 0x"));
  CHECK(frames_in(report, "main") > 0);
}

TEST_CASE("a crash of a thread that is not the first is reported with that thread's stack",
          "[crash]") {
  const auto [exitcode, report] = crash_of([] {
    std::thread other([] { call_one_that_crashes(); });
    other.join();
    return 0;
  });
  CHECK(exitcode == -SIGSEGV);
  CHECK(report.fault_address == nowhere);
  CHECK(is_innermost(report, "::write_to_nowhere()"));
  CHECK(frames_in(report, "main") == 0);
}

TEST_CASE("threads that crash at the same time leave one whole report", "[crash]") {
  constexpr int rounds = 20;
  constexpr int threads = 4;
  for (int round = 0; round < rounds; ++round) {
    const auto [exitcode, report] = crash_of([] {
      std::atomic<int> ready{0};
      const auto crash_together = [&ready](bool writes) {
        for (++ready; ready < threads;) continue;
        return writes ? call_one_that_crashes() : abort_here();
      };
      std::vector<std::thread> all;
      for (int i = 0; i < threads; ++i) all.emplace_back(crash_together, i != 0);
      for (auto& each : all) each.join();
      return 0;
    });
    CHECK((exitcode == -SIGSEGV || exitcode == -SIGABRT));
    CHECK(frames_in(report, exitcode == -SIGSEGV ? "::write_to_nowhere()" : "::abort_here()") == 1);
    REQUIRE_FALSE(report.stack.empty());
    CHECK(contains(report.stack.back(), "libc"));  // where every thread begins
  }
}

TEST_CASE("a signal sent from outside ends the process as such and names the sender", "[crash]") {
  const support::shared<crash_note> note;
  const support::shared<std::atomic<bool>> ready;
  const pid_t pid = support::start_child([&] {
    const crash_handler handler(*note);
    *ready = true;
    return burn_time();
  });
  CHECK(support::eventually([&] { return ready->load(); }));
  kill(pid, SIGSEGV);
  CHECK(support::wait_child(pid) == -SIGSEGV);
  const auto report = read_crash(*note, SIGSEGV);
  CHECK_FALSE(report.fault_address.has_value());
  CHECK(report.reason == "sent by kill() from process " + std::to_string(getpid()));
  CHECK(frames_in(report, "main") > 0);
}

TEST_CASE("each signal of a crash ends the process as itself and is noted", "[crash]") {
  for (const int number : procpool::detail::crash_signals) {
    const auto [exitcode, report] = crash_of([number] { return raise(number); });
    CHECK(exitcode == -number);
    CHECK(report.reason == (number == SIGABRT ? "abort()" : "sent by raise() or to one thread"));
    CHECK(frames_in(report, "main") > 0);
  }
}

TEST_CASE("a process that used up its CPU time is reported with what it did", "[crash]") {
  const auto [exitcode, report] = crash_of([] {
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGXCPU;
    timer_t timer{};
    CHILD_REQUIRE(timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) == 0);
    const itimerspec soon{{}, {0, 20'000'000}};
    CHILD_REQUIRE(timer_settime(timer, 0, &soon, nullptr) == 0);
    return burn_time();
  });
  CHECK(exitcode == -SIGXCPU);
  CHECK(report.reason == "sent by a timer");
  CHECK(is_innermost(report, "::burn_time()"));
}

TEST_CASE("the signal that ends the process carries the true cause, for a core dump", "[crash]") {
  const support::shared<crash_note> note;
  const pid_t pid = support::start_child([&] {
    const crash_handler handler(*note);
    CHILD_REQUIRE(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0);
    return call_one_that_crashes();
  });
  int status = 0;
  int stops = 0;
  while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
    ++stops;
    siginfo_t info{};
    CHECK(WSTOPSIG(status) == SIGSEGV);
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, nullptr, &info) == 0);
    CHECK(info.si_code == SEGV_MAPERR);
    CHECK(info.si_addr == reinterpret_cast<void*>(nowhere));
    ptrace(PTRACE_CONT, pid, nullptr, WSTOPSIG(status));
  }
  CHECK(stops == 2);  // the fault, and the end
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
}

TEST_CASE("a child of the process dies of its own signals and does not touch the note", "[crash]") {
  const support::shared<crash_note> note;
  const int exitcode = support::run_child([&] {
    const crash_handler handler(*note);
    CHILD_REQUIRE(support::run_child(call_one_that_crashes) == -SIGSEGV);
    CHILD_REQUIRE(support::run_child(abort_here) == -SIGABRT);
    CHILD_REQUIRE(support::run_child([] { return raise(SIGTRAP); }) == -SIGTRAP);
    CHILD_REQUIRE(support::run_child([] { return recurse_for_ever<16>(0); }) == -SIGSEGV);
    CHILD_REQUIRE(note->signal == 0);
    CHILD_REQUIRE(note->frames == 0);
    return call_one_that_crashes();
  });
  CHECK(exitcode == -SIGSEGV);
  CHECK(is_innermost(read_crash(*note, SIGSEGV), "::write_to_nowhere()"));
}

TEST_CASE("a child can have a note of its own", "[crash]") {
  const support::shared<crash_note> note;
  const support::shared<crash_note> childs;
  const int exitcode = support::run_child([&] {
    const crash_handler handler(*note);
    CHILD_REQUIRE(support::run_child([&] {
                    const crash_handler own(*childs);
                    return call_one_that_crashes();
                  }) == -SIGSEGV);
    return abort_here();
  });
  CHECK(exitcode == -SIGABRT);
  CHECK(is_innermost(read_crash(*childs, SIGSEGV), "::write_to_nowhere()"));
  CHECK(frames_in(read_crash(*note, SIGABRT), "::abort_here()") == 1);
}

TEST_CASE("a handler that was installed later wins", "[crash]") {
  const auto [exitcode, report] = crash_of([] {
    signal(SIGSEGV, [](int) { _exit(7); });
    return call_one_that_crashes();
  });
  CHECK(exitcode == 7);
  CHECK(report.stack.empty());
}

TEST_CASE("signals that are ignored stay ignored", "[crash]") {
  const support::shared<crash_note> note;
  const int exitcode = support::run_child([&] {
    signal(SIGXCPU, SIG_IGN);
    const crash_handler handler(*note);
    return raise(SIGXCPU);
  });
  CHECK(exitcode == 0);
  CHECK(note->signal == 0);
}

TEST_CASE("after the end of the handler's life a crash is only a crash", "[crash]") {
  const support::shared<crash_note> note;
  const int exitcode = support::run_child([&] {
    { const crash_handler handler(*note); }
    return call_one_that_crashes();
  });
  CHECK(exitcode == -SIGSEGV);
  CHECK(note->signal == 0);
}

// ------------------------------------------------------------------ stacks that cannot be walked

#if defined(__x86_64__)
[[gnu::noinline]] int crash_without_a_frame() {
  const auto size = static_cast<std::size_t>(through_sink(100));
  auto* memory = static_cast<volatile char*>(alloca(size));
  memory[0] = 1;  // a frame of unknown size is found by rbp only
  asm volatile("mov $0x4008, %%rbp\n movl $1, 0x10" ::: "memory");
  return through_sink(memory[0]);
}

/// Jumps to address 0 with the stack pointer at @p stack.
[[noreturn]] void jump_with_stack(void* stack) {
  asm volatile("mov %0, %%rsp\n xor %%eax, %%eax\n jmp *%%rax" : : "r"(stack) : "memory");
  __builtin_unreachable();
}

/// A page of memory that the reader of the stack will stumble over.
char* map_page(int file) {
  void* at = mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                  file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, file, 0);
  CHILD_REQUIRE(at != MAP_FAILED);
  return static_cast<char*>(at);
}

TEST_CASE("a stack overflow is told however the stack is used", "[crash]") {
  const auto push = []() -> int {
    asm volatile("xor %%eax, %%eax\n1: push %%rax\n jmp 1b" ::: "memory");
    __builtin_unreachable();
  };
  const auto page_by_page = []() -> int {
    asm volatile("1: sub $4096, %%rsp\n movl $0, (%%rsp)\n jmp 1b" ::: "memory");
    __builtin_unreachable();
  };
  const auto middle_of_large_frames = []() -> int {
    asm volatile("1: sub $2000000, %%rsp\n movl $0, 1000000(%%rsp)\n jmp 1b" ::: "memory");
    __builtin_unreachable();
  };
  CHECK(crash_of(push).report.reason == "stack overflow");
  CHECK(crash_of(page_by_page).report.reason == "stack overflow");
  CHECK(crash_of(middle_of_large_frames).report.reason == "stack overflow");

  // The first thread of a process that another thread forked has that thread's stack.
  std::array<crash, 2> forked_by_thread;
  std::thread([&] { forked_by_thread = {crash_of(push), crash_of(page_by_page)}; }).join();
  for (const crash& each : forked_by_thread) {
    CHECK(each.exitcode == -SIGSEGV);
    CHECK(each.report.reason == "stack overflow");
  }
}

TEST_CASE("a stack that cannot be read costs the frames behind, not the report", "[crash]") {
  const auto [exitcode, report] = crash_of(crash_without_a_frame);
  CHECK(exitcode == -SIGSEGV);
  CHECK(report.fault_address == 0x10);
  REQUIRE(report.stack.size() == 1);
  CHECK(is_innermost(report, "::crash_without_a_frame()"));
}

TEST_CASE("a second crash by another signal while the stack is read does not hide the first",
          "[crash]") {
  const auto [exitcode, report] = crash_of([]() -> int {
    const int file = memfd_create("empty", MFD_CLOEXEC);
    jump_with_stack(map_page(file) + 800);  // reading it is a SIGBUS
  });
  CHECK(exitcode == -SIGSEGV);
  CHECK(report.fault_address == 0);
  CHECK(report.stack.size() == 1);
}

TEST_CASE("a process that hangs while the stack is read ends all the same", "[crash][limit:60]") {
  const int fault = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
  if (fault < 0) SKIP("no userfaultfd here");
  close(fault);
  const auto [exitcode, report] = crash_of([]() -> int {
    // Whoever reads this page waits until somebody else fills it.
    const int pages = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
    uffdio_api api{};
    api.api = UFFD_API;
    CHILD_REQUIRE(ioctl(pages, UFFDIO_API, &api) == 0);
    char* page = map_page(-1);
    uffdio_register missing{};
    missing.range = {reinterpret_cast<std::uintptr_t>(page), 4096};
    missing.mode = UFFDIO_REGISTER_MODE_MISSING;
    CHILD_REQUIRE(ioctl(pages, UFFDIO_REGISTER, &missing) == 0);
    jump_with_stack(page + 800);
  });
  CHECK(exitcode == -SIGSEGV);
  CHECK(report.fault_address == 0);
  CHECK(report.stack.size() == 1);
}
#endif

// ------------------------------------------------------------------------------ the parent's side

TEST_CASE("a note is believed only if it tells of the signal that ended the process", "[crash]") {
  crash_note note{};
  CHECK(read_crash(note, SIGSEGV).stack.empty());
  note.code = SEGV_MAPERR;
  note.frames = 1;
  note.signal = SIGSEGV;
  CHECK(read_crash(note, SIGSEGV).stack.size() == 1);
  CHECK(read_crash(note, SIGSEGV).fault_address == 0);
  CHECK(read_crash(note, SIGKILL).stack.empty());
  CHECK_FALSE(read_crash(note, SIGKILL).fault_address.has_value());
  CHECK(read_crash(note, 0).stack.empty());
}

TEST_CASE("a forged note gives a wrong report and nothing worse", "[crash][hostile]") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto code = reinterpret_cast<std::uintptr_t>(&call_one_that_crashes);
  constexpr std::array<std::uint64_t, 6> counts{0, 1, 56, 57, std::uint64_t{1} << 60, ~0ULL};
  for (int round = 0; round < 300; ++round) {
    crash_note note{};
    note.code = static_cast<std::int32_t>(round % 2 == 0 ? random() : random() % 10);
    note.address = random();
    note.pc = random();
    note.thread = random();
    for (auto& frame : note.stack) {
      frame = random() >> (random() % 64);
      if (random() % 2 == 0) frame = code + random() % 0x200000 - 0x100000;  // near ours
    }
    note.frames = counts[random() % counts.size()];
    note.signal = static_cast<std::uint32_t>(random() % 65);
    const int signal = static_cast<int>(note.signal.load());
    CHECK(read_crash(note, signal).stack.size() == std::min<std::uint64_t>(note.frames, 56));
  }
}

// ---------------------------------------------------------------------------------------- symbols

os::code_place place_at(std::uintptr_t address) {
  std::array<os::code_place, 1> places{};
  places[0].address = address;
  places[0].lookup = address;
  os::name_code(places);
  return places[0];
}

TEST_CASE("functions that are not exported are found, others too, and numbers stay numbers",
          "[symbols]") {
  const auto own = reinterpret_cast<std::uintptr_t>(&divide_by);
  CHECK(contains(os::describe(place_at(own + 1)), "::divide_by(int) + 0x1 in "));
  const auto exported = reinterpret_cast<std::uintptr_t>(&std::terminate);
  CHECK(contains(os::describe(place_at(exported)), "std::terminate() + 0x0 in "));
  CHECK(os::describe(place_at(0x1234)) == "0x1234");
  CHECK(os::describe(place_at(~std::uintptr_t{0})) == "0xffffffffffffffff");
}

TEST_CASE("the names of C functions are not taken for types", "[symbols]") {
  CHECK(os::describe({0x1010, 0x1010, "f", "lib.so", 0x1000}) == "f + 0x10 in lib.so");
  CHECK(os::describe({0x1010, 0x1010, "_Z1fi", "lib.so", 0x1000}) == "f(int) + 0x10 in lib.so");
  CHECK(os::describe({0x1010, 0x1010, "", "lib.so", 0x1000}) == "lib.so + 0x10");
}

TEST_CASE("a file that is another build than the module in memory gives no names", "[symbols]") {
  const auto own = reinterpret_cast<std::uintptr_t>(&divide_by);
  auto module = os::module_search::find(own);
  REQUIRE(module);
  const auto name_in = [&](const os::loaded_module& from) {
    os::code_place place{own, own};
    std::array places{&place};
    os::elf_file::of(from).name(places, from.base);
    return place.function;
  };
  CHECK_FALSE(name_in(*module).empty());
  REQUIRE_FALSE(module->notes.empty());
  module->notes.back().bytes.back() ^= 1;
  CHECK(name_in(*module).empty());
  module->notes.clear();
  for (const char* other : {"/dev/null", "/", "/proc/self/mem", "/nothing/there", "no-path"}) {
    module->path = other;
    CHECK(name_in(*module).empty());
  }
}

/// The smallest ELF file with a symbol: "hello!" at 0x1000, 16 bytes long.
struct small_elf {
  Elf64_Ehdr head{};
  std::array<Elf64_Shdr, 3> sections{};
  std::array<Elf64_Sym, 3> symbols{};
  std::array<char, 16> strings{"\0nothing\0hello!"};

  small_elf() {
    std::memcpy(head.e_ident, ELFMAG, SELFMAG);
    head.e_ident[EI_CLASS] = ELFCLASS64;
    head.e_ident[EI_DATA] = ELFDATA2LSB;
    head.e_shoff = offsetof(small_elf, sections);
    head.e_shentsize = sizeof(Elf64_Shdr);
    head.e_shnum = 3;
    sections[1].sh_type = SHT_SYMTAB;
    sections[1].sh_offset = offsetof(small_elf, symbols);
    sections[1].sh_size = sizeof symbols;
    sections[1].sh_entsize = sizeof(Elf64_Sym);
    sections[1].sh_link = 2;
    sections[2].sh_type = SHT_STRTAB;
    sections[2].sh_offset = offsetof(small_elf, strings);
    sections[2].sh_size = sizeof strings;
    symbols[1] = {1, ELF64_ST_INFO(STB_LOCAL, STT_OBJECT), 0, 1, 0x1000, 16};
    symbols[2] = {9, ELF64_ST_INFO(STB_LOCAL, STT_FUNC), 0, 1, 0x1000, 16};
  }
};

class elf_file_under_test {
 public:
  /// What is found for the address 0x5008 in @p bytes loaded at 0x4000.
  std::string name(const char* bytes, std::size_t size) {
    const os::fd file(memfd_create("elf", MFD_CLOEXEC));
    REQUIRE(write(file.get(), bytes, size) == static_cast<ssize_t>(size));
    os::code_place before{0x4fff, 0x4fff};
    os::code_place inside{0x5008, 0x5008};
    os::code_place behind{0x5010, 0x5010};
    std::array places{&behind, &inside, &before};
    os::elf_file(os::fd(dup(file.get()))).name(places, 0x4000);
    others_ = before.function + behind.function;
    return inside.function;
  }
  [[nodiscard]] const std::string& others() const { return others_; }

 private:
  std::string others_;
};

TEST_CASE("an ELF file that is damaged anywhere costs names and nothing else",
          "[symbols][hostile]") {
  const small_elf good;
  std::array<char, sizeof good> bytes{};
  std::memcpy(bytes.data(), &good, sizeof good);
  elf_file_under_test file;
  CHECK(file.name(bytes.data(), bytes.size()) == "hello!");
  CHECK(file.others().empty());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    CHECK(file.name(bytes.data(), size).empty());
  }
  int survived = 0;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    for (const int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      auto damaged = bytes;
      damaged[at] = static_cast<char>(value);
      survived += file.name(damaged.data(), damaged.size()) == "hello!" ? 1 : 0;
    }
  }
  CHECK(survived > 0);
}

TEST_CASE("names without an end and tables that reach over the whole file are refused",
          "[symbols][hostile]") {
  struct {
    small_elf elf;
    std::array<char, 200'000> more;
  } large{};
  large.more.fill('x');
  auto& [head, sections, symbols, strings] = large.elf;
  sections[2].sh_size = ~std::uint64_t{0};
  strings.fill('y');
  elf_file_under_test file;
  const auto name = [&] { return file.name(reinterpret_cast<const char*>(&large), sizeof large); };
  CHECK(name().empty());
  strings = {"\0nothing\0hello!"};
  CHECK(name() == "hello!");
  sections[1].sh_size = ~std::uint64_t{0};  // symbols up to the end of the file
  CHECK(name() == "hello!");
  sections[1].sh_offset = ~std::uint64_t{0} - 8;
  CHECK(name().empty());
  head.e_shnum = 0xffff;
  sections[1].sh_type = SHT_NULL;
  CHECK(name().empty());
}

}  // namespace

TEST_CASE("a stack ends before the library's frames, whatever their result type", "[crash]") {
  using stack = std::vector<std::string>;
  using procpool::detail::without_callers;
  const std::string user = "user::boom(int) + 0x18 in program";
  for (const std::string ours :
       {"decltype(auto) procpool::detail::argument_list<>::pass_to<int (* const)(int)>(int)",
        "decltype(auto) procpool::detail::invoke_member<int (user::*)(int)>(int)",
        "void procpool::detail::run_decoded_item<int>(int)"}) {
    CHECK(without_callers({user, ours, "main"}) == stack{user});
    CHECK(without_callers({ours, "main"}) == stack{ours, "main"});
  }
  const std::string takes_ours = "user::look(procpool::detail::argument_list<int>)";
  CHECK(without_callers({user, takes_ours}) == stack{user, takes_ours});
}
