// SPDX-License-Identifier: MIT
#include <procpool/detail/os/cpu.hpp>

#include <sched.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <map>
#include <string>
#include <thread>

#include "support/child.hpp"

using procpool::detail::os::affinity_cpus;
using procpool::detail::os::cgroup_cpus;
using procpool::detail::os::cpu_mask;
using procpool::detail::os::cpus_for;
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
