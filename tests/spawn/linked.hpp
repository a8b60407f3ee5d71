// SPDX-License-Identifier: MIT
/// @file
/// The library that the test program is linked with.
#pragma once

long linked_cube(long x);
