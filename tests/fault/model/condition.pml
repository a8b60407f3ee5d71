/* SPDX-License-Identifier: MIT
 *
 * A Condition: threads that wait, one that notifies, each killed at any step (detail/sync/condition_access.hpp).
 *
 *   proctype waiter    condition_access::wait, sleep, pass_marks_on, pass_on
 *   proctype notifier  condition_access::notify
 *
 * A thread has one cell. The oldest that waits is any that waits here: order is no matter of life and
 * death. A slice is over whenever there is something to do. A lock is taken over from the dead.
 *
 * Checked, when nothing moves any more: if a living thread still waits, every notification was taken
 * by somebody who then had the lock, or was dropped when nobody waited.
 *
 * Mutations, each of which must fail:
 *   CLEAR_FIRST   a mark is taken from the dead cell before another one has it
 *   FREE_EARLY    who was marked frees its cell before it has the lock
 *   NOBODY_LOOKS  nobody looks at the cells of the dead
 */
#ifndef WAITERS
#define WAITERS 3
#endif
#ifndef NOTIFICATIONS
#define NOTIFICATIONS 2
#endif
#ifndef KILLS
#define KILLS 2
#endif
#define NOTIFIER WAITERS

#define WAITING 1
#define MARKED 2

byte owner[WAITERS];  /* 0, or a process + 1 */
byte state[WAITERS];
byte lock, passing;   /* 0, or a process + 1 */
bool dead[WAITERS + 1];
byte given, consumed, dropped;

#define is_free(word) (word == 0 || dead[word - 1])
#define left_by_the_dead(c) (state[c] == MARKED && owner[c] != 0 && dead[owner[c] - 1])
#define waits_alive(c) (state[c] == WAITING && !dead[c])

inline take_lock() { atomic { is_free(lock) -> lock = me + 1 } }

/* Marks a cell that waits; `found` says whether there was one. A dead one may be known to be dead:
 * then its cell is freed, and another one is looked for. */
inline mark_one() {
  found = false;
  do
  :: atomic { state[0] == WAITING && dead[0] -> state[0] = 0; owner[0] = 0 }
  :: atomic { state[1] == WAITING && dead[1] -> state[1] = 0; owner[1] = 0 }
  :: atomic { state[2] == WAITING && dead[2] -> state[2] = 0; owner[2] = 0 }
  :: atomic { state[0] == WAITING -> state[0] = MARKED; found = true }; break
  :: atomic { state[1] == WAITING -> state[1] = MARKED; found = true }; break
  :: atomic { state[2] == WAITING -> state[2] = MARKED; found = true }; break
  :: state[0] != WAITING && state[1] != WAITING && state[2] != WAITING -> break
  od
}

inline pass_on(c) {
  if
  :: atomic { is_free(passing) -> passing = me + 1 };
     if
     :: left_by_the_dead(c) ->
#ifdef CLEAR_FIRST
        state[c] = 0;
        mark_one();
        dropped = dropped + (found -> 0 : 1);
#else
        mark_one();
        atomic { state[c] = 0; dropped = dropped + (found -> 0 : 1) };
#endif
        owner[c] = 0
     :: else
     fi;
     passing = 0
  :: !is_free(passing) -> skip
  fi
}

proctype waiter(byte me) {
  bool found;
  {
    take_lock();
    owner[me] = me + 1;
    state[me] = WAITING;
    lock = 0;
end_wait:
    do
    :: state[me] != WAITING -> break
#ifndef NOBODY_LOOKS
    :: state[me] == WAITING && left_by_the_dead(0) -> pass_on(0)
    :: state[me] == WAITING && left_by_the_dead(1) -> pass_on(1)
    :: state[me] == WAITING && left_by_the_dead(2) -> pass_on(2)
#endif
#ifdef TIMEOUTS
    :: atomic { state[me] == WAITING -> state[me] = 0 };
       owner[me] = 0;
       take_lock();
       goto leave
#endif
    od;
#ifdef FREE_EARLY
    state[me] = 0;
    owner[me] = 0;
    take_lock();
    consumed++;
#else
    take_lock();
    atomic { state[me] = 0; consumed++ };
    owner[me] = 0;
#endif
leave:
    lock = 0
  } unless { dead[me] -> skip }
}

proctype notifier(byte me) {
  bool found;
  byte left = NOTIFICATIONS;
  {
    do
    :: left > 0 ->
       left--;
       take_lock();
       atomic { given++; dropped++ };  /* until it is known that somebody waits */
       found = false;
       do
       :: atomic { state[0] == WAITING -> state[0] = MARKED; dropped-- }; break
       :: atomic { state[1] == WAITING -> state[1] = MARKED; dropped-- }; break
       :: atomic { state[2] == WAITING -> state[2] = MARKED; dropped-- }; break
       :: state[0] != WAITING && state[1] != WAITING && state[2] != WAITING -> break
       od;
       lock = 0
    :: left == 0 -> break
    od
  } unless { dead[me] -> skip }
}

proctype killer() {
  byte left = KILLS;
  do
  :: left > 0 && !dead[0] -> dead[0] = true; left--
  :: left > 0 && !dead[1] -> dead[1] = true; left--
  :: left > 0 && !dead[2] -> dead[2] = true; left--
  :: left > 0 && !dead[NOTIFIER] -> dead[NOTIFIER] = true; left--
  :: break
  od
}

proctype monitor() {
  timeout;
  assert(!(waits_alive(0) || waits_alive(1) || waits_alive(2)) || given <= consumed + dropped)
}

init {
  atomic {
    run waiter(0);
    run waiter(1);
    run waiter(2);
    run notifier(NOTIFIER);
    run killer();
    run monitor()
  }
}
