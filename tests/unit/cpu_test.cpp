// SPDX-License-Identifier: MIT
#include <procpool/detail/machine/cpu.hpp>

#include <sched.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>

#include <procpool/procpool.hpp>

#include "support/child.hpp"

using procpool::detail::os::affinity_cpus;
using procpool::detail::os::cgroup_cpus;
using procpool::detail::os::cpu_mask;
using procpool::detail::os::cpus_for;
using procpool::detail::os::cpus_of_environment;
using procpool::detail::os::no_quota;
using procpool::detail::os::one_cpu_of;
using procpool::detail::os::usable_cpus;

namespace {

/// CPUs on a machine with just these files.
int cpus_with(std::map<std::string, std::string> files) {
  return cgroup_cpus([&](const std::string& path) { return files[path]; });
}

const std::string unified_mount =
    "25 18 0:22 / /proc rw,nosuid shared:5 - proc proc rw\n"
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

const std::string split_mounts =
    "31 24 0:27 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n"
    "32 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n";

}  // namespace

TEST_CASE("A quota is worth as many CPUs as it can keep busy, rounded up", "[cpu]") {
  CHECK(cpus_for(100000, 100000) == 1);
  CHECK(cpus_for(100001, 100000) == 2);
  CHECK(cpus_for(150000, 100000) == 2);
  CHECK(cpus_for(400000, 100000) == 4);
  CHECK(cpus_for(1000, 100000) == 1);
  CHECK(cpus_for(-1, 100000) == no_quota);
  CHECK(cpus_for(100000, 0) == no_quota);
  CHECK(cpus_for(INT64_MAX, 1) == no_quota);
}

TEST_CASE("A quota of control groups version 2 is found", "[cpu]") {
  CHECK(cpus_with({{"/proc/self/cgroup", "0::/\n"},
                   {"/proc/self/mountinfo", unified_mount},
                   {"/sys/fs/cgroup/cpu.max", "250000 100000\n"}}) == 3);
  CHECK(cpus_with({{"/proc/self/cgroup", "0::/a/b\n"},
                   {"/proc/self/mountinfo", unified_mount},
                   {"/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"}}) == no_quota);
}

TEST_CASE("The smallest quota of a group and those round it counts", "[cpu]") {
  CHECK(cpus_with({{"/proc/self/cgroup", "0::/a/b/c\n"},
                   {"/proc/self/mountinfo", unified_mount},
                   {"/sys/fs/cgroup/a/b/c/cpu.max", "800000 100000\n"},
                   {"/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"},
                   {"/sys/fs/cgroup/a/cpu.max", "200000 100000\n"}}) == 2);
}

TEST_CASE("A quota of control groups version 1 is found", "[cpu]") {
  const std::string groups = "5:memory:/m\n4:cpu,cpuacct:/a/b\n1:name=systemd:/s\n0::/s\n";
  CHECK(cpus_with({{"/proc/self/cgroup", groups},
                   {"/proc/self/mountinfo", split_mounts},
                   {"/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n"},
                   {"/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n"},
                   {"/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n"},
                   {"/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "20000\n"}}) == 3);
}

TEST_CASE("In a container the group's path is taken relative to what is mounted", "[cpu]") {
  CHECK(cpus_with({{"/proc/self/cgroup", "4:cpu,cpuacct:/docker/1234\n"},
                   {"/proc/self/mountinfo",
                    "32 24 0:28 /docker/1234 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"},
                   {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n"},
                   {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"}}) == 1);
}

TEST_CASE("Missing, empty and broken files are no limit", "[cpu]") {
  CHECK(cpus_with({}) == no_quota);
  CHECK(cpus_with({{"/proc/self/cgroup", "\n:\n::\nx"},
                   {"/proc/self/mountinfo", "\n - \na b - c"}}) == no_quota);
  CHECK(cpus_with({{"/proc/self/cgroup", "0::/\n"},
                   {"/proc/self/mountinfo", unified_mount},
                   {"/sys/fs/cgroup/cpu.max", "lots of them\n"}}) == no_quota);
}

namespace {

/// A line of mountinfo: a hierarchy of control groups, version 2.
std::string cgroup2_mount(int id, int parent, const std::string& root, const std::string& point) {
  return std::to_string(id) + " " + std::to_string(parent) + " 0:26 " + root + " " + point +
         " rw,nosuid shared:4 - cgroup2 cgroup rw\n";
}

std::string tmpfs_mount(int id, int parent, const std::string& point) {
  return std::to_string(id) + " " + std::to_string(parent) + " 0:27 / " + point +
         " rw - tmpfs tmpfs rw\n";
}

}  // namespace

TEST_CASE("Spaces, tabs, line breaks and backslashes in mounted paths are understood", "[cpu]") {
  struct escaped {
    const char* plain;
    const char* written;
  };
  for (const auto& [plain, written] :
       {escaped{" ", "\\040"}, {"\t", "\\011"}, {"\\", "\\134"}, {"\\1", "\\1341"}}) {
    const std::string group = std::string("/tenant") + plain + "name";
    const std::string point = std::string("/sys/a") + plain + "mount";
    CHECK(cpus_with({{"/proc/self/cgroup", "0::" + group + "/app\n"},
                     {"/proc/self/mountinfo",
                      cgroup2_mount(29, 23, std::string("/tenant") + written + "name",
                                    std::string("/sys/a") + written + "mount")},
                     {point + "/app/cpu.max", "100000 100000\n"}}) == 1);
  }
  CHECK(cpus_with({{"/proc/self/cgroup", "0::/app\n"},
                   {"/proc/self/mountinfo", cgroup2_mount(29, 23, "/", "/sys/a\\012mount")},
                   {"/sys/a\nmount/app/cpu.max", "100000 100000\n"}}) == 1);
  CHECK(cpus_with({{"/proc/self/cgroup", "0::/ten\u00a0ant\r/app\n"},
                   {"/proc/self/mountinfo", cgroup2_mount(29, 23, "/ten\u00a0ant\r", "/sys/\xff")},
                   {"/sys/\xff/app/cpu.max", "100000 100000\n"}}) == 1);
}

TEST_CASE("A group that is not in what is mounted has no quota there", "[cpu]") {
  for (const char* group :
       {"/tenant2/app", "/tenant2", "/ten", "/../app", "/tenant/../app", "app"}) {
    CHECK(cpus_with({{"/proc/self/cgroup", std::string("0::") + group + "\n"},
                     {"/proc/self/mountinfo", cgroup2_mount(29, 23, "/tenant", "/sys/part")},
                     {"/sys/part/cpu.max", "100000 100000\n"},
                     {"/sys/part2/app/cpu.max", "100000 100000\n"},
                     {"/sys/part/../app/cpu.max", "100000 100000\n"}}) == no_quota);
  }
}

TEST_CASE("Part of a hierarchy may be mounted, or all of it and a part", "[cpu]") {
  CHECK(cpus_with({{"/proc/self/cgroup", "0::/tenant/app\n"},
                   {"/proc/self/mountinfo", cgroup2_mount(29, 23, "/tenant", "/sys/part")},
                   {"/sys/part/app/cpu.max", "300000 100000\n"},
                   {"/sys/cpu.max", "100000 100000\n"}}) == 3);  // no group
  CHECK(cpus_with({{"/proc/self/cgroup", "0::/tenant\n"},
                   {"/proc/self/mountinfo", cgroup2_mount(29, 23, "/tenant", "/sys/part")},
                   {"/sys/part/cpu.max", "200000 100000\n"}}) == 2);
  CHECK(cpus_with({{"/proc/self/cgroup", "0::/tenant/app\n"},
                   {"/proc/self/mountinfo", cgroup2_mount(30, 23, "/tenant/app", "/sys/part") +
                                                cgroup2_mount(29, 23, "/", "/sys/fs/cgroup")},
                   {"/sys/part/cpu.max", "max 100000\n"},
                   {"/sys/fs/cgroup/tenant/cpu.max", "200000 100000\n"}}) == 2);
}

TEST_CASE("Files that a later mount hides are not those of the group", "[cpu]") {
  const std::string all = cgroup2_mount(29, 23, "/", "/sys/fs/cgroup");
  const std::map<std::string, std::string> files{
      {"/proc/self/cgroup", "0::/a/app\n"},
      {"/sys/fs/cgroup/a/app/cpu.max", "100000 100000\n"},
      {"/sys/fs/cgroup/app/cpu.max", "200000 100000\n"},
      {"/sys/fs/cgroup/a/cpu.max", "300000 100000\n"},
      {"/sys/fs/cgroup/alias/app/cpu.max", "100000 100000\n"}};
  const auto with_mounts = [&](const std::string& mounts) {
    auto more = files;
    more["/proc/self/mountinfo"] = mounts;
    return cpus_with(more);
  };
  CHECK(with_mounts(all) == 1);
  CHECK(with_mounts(all + cgroup2_mount(30, 29, "/b", "/sys/fs/cgroup")) == no_quota);
  CHECK(with_mounts(all + cgroup2_mount(30, 29, "/a", "/sys/fs/cgroup")) == 2);
  CHECK(with_mounts(all + tmpfs_mount(30, 29, "/sys/fs/cgroup")) == no_quota);
  CHECK(with_mounts(all + tmpfs_mount(30, 29, "/sys/fs/cgroup/a/app")) == 3);
  CHECK(with_mounts(all + tmpfs_mount(30, 29, "/sys/fs/cgroup/a/app/cpu.max")) == 3);
  CHECK(with_mounts(all + tmpfs_mount(30, 29, "/sys/fs/cgroup/a/ap")) == 1);
  CHECK(with_mounts(all + cgroup2_mount(30, 29, "/a", "/sys/fs/cgroup/alias") +
                    tmpfs_mount(31, 29, "/sys/fs/cgroup")) == no_quota);
  CHECK(with_mounts(tmpfs_mount(20, 1, "/") + tmpfs_mount(23, 20, "/sys") +
                    tmpfs_mount(24, 20, "/sys/fs") + all) == 1);  // the one on /sys/fs is hidden
}

TEST_CASE("Hidden files and foreign groups of version 1 are left out, too", "[cpu]") {
  const auto mount = [](int id, int parent, const std::string& root, const std::string& point) {
    return std::to_string(id) + " " + std::to_string(parent) + " 0:28 " + root + " " + point +
           " rw - cgroup cgroup rw,cpu\n";
  };
  const auto with = [](const std::string& group, const std::string& mounts) {
    return cpus_with({{"/proc/self/cgroup", "4:cpu:" + group + "\n"},
                      {"/proc/self/mountinfo", mounts},
                      {"/cpu/app/cpu.cfs_quota_us", "100000\n"},
                      {"/cpu/app/cpu.cfs_period_us", "100000\n"}});
  };
  CHECK(with("/tenant/app", mount(32, 24, "/tenant", "/cpu")) == 1);
  CHECK(with("/tenant2/app", mount(32, 24, "/tenant", "/cpu")) == no_quota);
  CHECK(with("/app", mount(32, 24, "/", "/cpu") + tmpfs_mount(33, 32, "/cpu")) == no_quota);
}

TEST_CASE("Without word of mounts or groups the usual places are tried", "[cpu]") {
  const std::string some = "150000 100000\n";
  for (const char* groups : {"", "0::/\n", "1:cpu:/app\n", "0::/app\n"}) {
    CHECK(cpus_with({{"/proc/self/cgroup", groups}, {"/sys/fs/cgroup/cpu.max", some}}) == 2);
  }
  CHECK(cpus_with({{"/proc/self/mountinfo", unified_mount}, {"/sys/fs/cgroup/cpu.max", some}}) ==
        2);
  for (const char* place : {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"}) {
    const std::string at = place;
    for (const char* useless : {"", "max", "rubbish\n"}) {
      CHECK(cpus_with({{"/sys/fs/cgroup/cpu.max", useless},
                       {at + "/cpu.cfs_quota_us", "100000\n"},
                       {at + "/cpu.cfs_period_us", "100000\n"}}) == 1);
    }
    CHECK(cpus_with({{at + "/cpu.cfs_quota_us", "-1\n"},
                     {at + "/cpu.cfs_period_us", "100000\n"}}) == no_quota);
    CHECK(cpus_with({{"/sys/fs/cgroup/cpu.max", "max 100000\n"},
                     {at + "/cpu.cfs_quota_us", "100000\n"},
                     {at + "/cpu.cfs_period_us", "100000\n"}}) == no_quota);
  }
}

TEST_CASE("A group whose name makes its line ambiguous is not guessed", "[cpu]") {
  for (const char* groups : {"0::/foo\nbar\n", "0::/foo\n\n", "0::/foo\n0::/bar\n"}) {
    CHECK(cpus_with({{"/proc/self/cgroup", groups},
                     {"/proc/self/mountinfo", unified_mount},
                     {"/sys/fs/cgroup/foo/cpu.max", "100000 100000\n"},
                     {"/sys/fs/cgroup/cpu.max", "max 100000\n"}}) == no_quota);
  }
}

TEST_CASE("Lines of other file systems and broken ones are passed over", "[cpu]") {
  CHECK(cpus_with({{"/proc/self/cgroup", "1:net_cls:/\n0::/app\n"},
                   {"/proc/self/mountinfo", "malformed\n" + tmpfs_mount(28, 23, "/sys/wrong") +
                                                cgroup2_mount(29, 23, "/", "/sys/fs/cgroup")},
                   {"/sys/wrong/app/cpu.max", "100000 100000\n"},
                   {"/sys/fs/cgroup/app/cpu.max", "200000 100000 5000\n"}}) == 2);
}

TEST_CASE("PROCPOOL_MAX_CPUS caps the number of CPUs, and is a number", "[cpu]") {
  CHECK(cpus_of_environment(nullptr) == no_quota);
  CHECK(cpus_of_environment("") == no_quota);
  CHECK(cpus_of_environment("3") == 3);
  CHECK(cpus_of_environment("9223372036854775807") == no_quota);
  for (const char* bad : {"0", "-1", "+2", " 2", "2 ", "2.5", "two", "99999999999999999999"}) {
    CHECK_THROWS_AS(cpus_of_environment(bad), std::invalid_argument);
    CHECK_THROWS_WITH(
        cpus_of_environment(bad),
        std::string("PROCPOOL_MAX_CPUS must be a number of CPUs, 1 or more, but is ") + bad);
  }
  const int code = support::run_child([] {
    const int before = procpool::cpu_count();
    setenv("PROCPOOL_MAX_CPUS", "1", 1);
    CHILD_REQUIRE(procpool::cpu_count() == 1);
    setenv("PROCPOOL_MAX_CPUS", "1000000", 1);
    CHILD_REQUIRE(procpool::cpu_count() == before);
    setenv("PROCPOOL_MAX_CPUS", "many", 1);
    try {
      const procpool::Pool pool;
      return 1;
    } catch (const std::invalid_argument&) {
    }
    return 0;
  });
  CHECK(code == 0);
}

TEST_CASE("The affinity mask of the calling thread counts", "[cpu]") {
  const int all = affinity_cpus();
  CHECK(all >= 1);
  CHECK(usable_cpus() >= 1);
  CHECK(usable_cpus() <= all);
  const int code = support::run_child([] {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET(static_cast<unsigned>(sched_getcpu()), &mask);
    CHILD_REQUIRE(sched_setaffinity(0, sizeof mask, &mask) == 0);
    CHILD_REQUIRE(affinity_cpus() == 1);
    CHILD_REQUIRE(usable_cpus() == 1);
    return 0;
  });
  CHECK(code == 0);
}

TEST_CASE("The CPUs of a mask are counted through, from the first one again behind the last",
          "[cpu]") {
  const cpu_mask mask{0b1001'0100, 0, std::uint64_t{1} << 63};
  CHECK(one_cpu_of(mask, 0) == cpu_mask{0b0000'0100, 0, 0});
  CHECK(one_cpu_of(mask, 1) == cpu_mask{0b0001'0000, 0, 0});
  CHECK(one_cpu_of(mask, 2) == cpu_mask{0b1000'0000, 0, 0});
  CHECK(one_cpu_of(mask, 3) == cpu_mask{0, 0, std::uint64_t{1} << 63});
  CHECK(one_cpu_of(mask, 4) == one_cpu_of(mask, 0));
  CHECK(one_cpu_of(mask, 4'000'000'003) == one_cpu_of(mask, 3));
  CHECK(one_cpu_of({std::uint64_t{1} << 5}, 17) == cpu_mask{std::uint64_t{1} << 5});
}
