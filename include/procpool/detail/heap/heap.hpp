// SPDX-License-Identifier: MIT
/// @file
/// The shared heap for those who use it. The first four headers declare, the others implement.
#pragma once

#include <procpool/config.hpp>
#include <procpool/detail/heap/descriptor_store.hpp>
#include <procpool/detail/heap/heap_of_program.hpp>
#include <procpool/detail/heap/held_object.hpp>
#include <procpool/detail/heap/owner_lock.hpp>

#ifndef PROCPOOL_COMPILED
#include <procpool/detail/heap/descriptor_transfer.hpp>
#include <procpool/detail/heap/object_transfer.hpp>
#include <procpool/detail/heap/sleeping.hpp>
#endif
