// SPDX-License-Identifier: MIT
// The one function that a module exports for certain: MODULE_NAME says its name.

struct offered;
[[gnu::visibility("hidden")]] const offered* offered_here();
extern "C" {
[[gnu::visibility("default")]] const offered* MODULE_NAME();
}

const offered* MODULE_NAME() {
  return offered_here();
}
