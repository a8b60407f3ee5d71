// SPDX-License-Identifier: MIT
/// @file
/// Locks and the like that processes share: Lock, RLock, Semaphore, BoundedSemaphore, Condition,
/// Event, Barrier. Python: multiprocessing.synchronize. See docs/synchronize.md.
#pragma once

#include <procpool/barrier.hpp>
#include <procpool/condition.hpp>
#include <procpool/event.hpp>
#include <procpool/lock.hpp>
#include <procpool/semaphore.hpp>
