/* SPDX-License-Identifier: MIT
 *
 * How a worker and the parent put each other to sleep and wake each other, with store buffers on
 * both sides. One worker, killed at any step; frames that arrive one by one; tasks that take long;
 * results that are held back; results for which there is no room before others were read.
 *
 *   proctype worker   parking.hpp: worker_parking, parent_waker; worker_channel.hpp: wait_until,
 *                     wait_for_parent, done, may_hold_back, flush
 *   proctype parent   parking.hpp: worker_waker; process_backend.hpp: arm, disarm, wait;
 *                     leader.hpp: step, wait_for_results; parent_channel.hpp: send, drain
 *
 * Both may sleep before they have spun and wake for no reason (SPURIOUS times each). A futex sleeps
 * if the doorbell still has the value it is given, in one step; a descriptor that was rung stays so
 * until it is silenced. What a worker has stored is in memory before it is reported dead.
 *
 * Checked: nobody sleeps while there is something for it to do: all frames get their results, or
 * the worker is found dead; then both sleep.
 *
 * Mutations, each of which must fail:
 *   PARK_NO_FENCE   the worker announces its sleep without the fence
 *   BELL_NO_FENCE   the parent looks whether the worker sleeps without the fence
 *   ARM_NO_FENCE    the parent announces its sleep without the fence
 *   RING_NO_FENCE   the worker looks whether the parent sleeps without the fence
 *   PARK_NO_LOOK    the worker does not look again when it has announced its sleep
 *   ARM_NO_LOOK     the parent does not
 *   BELL_LATE       the worker takes the doorbell's number behind its last look
 *   NO_UNTOLD       before it sleeps the parent looks at `committed` only
 *   ONE_RING        a bell is rung once and never again: the announcements have no numbers
 */
#ifndef FRAMES
#define FRAMES 3
#endif
#ifndef SPURIOUS
#define SPURIOUS 1
#endif
#ifndef KILLS
#define KILLS 1
#endif

#define PUBLISHED 0 /* task_control and outbound_header, written by the parent */
#define CONSUMED 1
#define DOORBELL 2
#define ARMED 3
#define COMMITTED 4 /* result_control, written by the worker */
#define FINISHED 5
#define PARKED 6
#define LOCATIONS 7

#define PARENT 0
#define WORKER 1
#define PROCESSORS 2
#define DEPTH 3
#include "store_buffers.pml"

bool asleep;        /* the worker, in futex_wait */
bool rung;          /* the event descriptor of the worker */
byte received;      /* results, by the parent */
bool killed, dead;  /* dead: the control socket has a report */

/* ---- the worker ---- */

inline wake_if_armed() {
#ifndef RING_NO_FENCE
  fence(WORKER);
#endif
  if
  :: atomic { load(ARMED) % 2 == 1 && load(ARMED) != rung_for -> rung_for = load(ARMED) };
     d_step { fence(WORKER); rung = true } /* a system call */
  :: load(ARMED) % 2 == 0 || load(ARMED) == rung_for
  fi
}

inline flush() {
  atomic { held_back = false; store_release(WORKER, COMMITTED, done) };
  wake_if_armed()
}

inline announce_sleep() {
  atomic {
    sleeps++;
    store_relaxed(WORKER, PARKED, sleeps)
  };
#ifndef PARK_NO_FENCE
  fence(WORKER)
#else
  skip
#endif
}

/* worker_channel::wait_until, worker_parking::wait_until and sleep_unless; `ready` is an expression
 * over what the parent publishes */
inline wait_until(ready) {
  if
  :: ready
  :: else ->
     if
     :: held_back -> flush()
     :: else
     fi;
     wake_if_armed();
     do
     :: ready -> break
     :: else ->
#ifndef BELL_LATE
        bell = load(DOORBELL);
#endif
        announce_sleep();
        if
#ifndef PARK_NO_LOOK
        :: ready
#endif
        :: else ->
#ifdef BELL_LATE
           bell = load(DOORBELL);
#endif
           atomic {
             fence(WORKER); /* a system call */
             if
             :: load(DOORBELL) == bell -> asleep = true
             :: else
             fi;
             bell = 0
           };
end_asleep:
           !asleep
        fi
     od;
     atomic { bell = 0; store_relaxed(WORKER, PARKED, 0) }
  fi
}

proctype worker() {
  byte done, sleeps, bell, rung_for;
  bool held_back;
  {
    do
    :: true ->
       wait_until(load(PUBLISHED) > done); /* next() */
       if
       :: true                     /* a short task */
       :: true -> received >= done /* one that takes until all before it was received */
       :: load(CONSUMED) < done -> /* a result that needs all the ring: wait_for_room() */
          atomic { held_back = false; store_release(WORKER, COMMITTED, done) };
          wake_if_armed();
          wait_until(load(CONSUMED) == done)
       fi;
       atomic { done++; store_release(WORKER, FINISHED, done) }; /* done() */
#ifndef RING_NO_FENCE
       fence(WORKER); /* armed() */
#endif
       if
       :: load(ARMED) % 2 == 1 -> flush()
       :: load(ARMED) % 2 == 0 ->
          if
          :: held_back = true /* may_hold_back(): there is another frame, or was, see take_back */
          :: true -> flush()
          fi
       fi
    od
  } unless {
    killed;
    d_step {
      fence(WORKER);
      asleep = false; held_back = false;
      done = 0; sleeps = 0; bell = 0; rung_for = 0;
      dead = true
    }
  }
}

proctype killer() {
end:
  if
  :: KILLS > 0 -> killed = true
  fi
}

/* Signals, and other reasons to wake for nothing. */
proctype nuisance() {
  byte left = SPURIOUS;
end:
  do
  :: atomic { left > 0 && asleep -> asleep = false; left-- }
  od
}

/* ---- the parent ---- */

#ifdef ONE_RING
#define unanswered (load(PARKED) != 0 && rung_for == 0)
#else
#define unanswered (load(PARKED) != 0 && load(PARKED) != rung_for)
#endif

inline wake_if_parked() {
#ifndef BELL_NO_FENCE
  fence(PARENT);
#endif
  if
  :: atomic { unanswered -> rung_for = load(PARKED) };
     d_step { fence(PARENT); memory[DOORBELL]++ }; /* release */
     asleep = false /* futex_wake */
  :: !unanswered
  fi
}

inline drain(cursor) {
  atomic { load(cursor) > received -> received = load(cursor);
           store_release(PARENT, CONSUMED, received) };
  wake_if_parked()
}

proctype parent() {
  byte sent, armed, rung_for, left = SPURIOUS;

  do
  :: received == FRAMES || dead -> break
  :: else ->
     /* advance(): drain(), then dispatch() */
     if
     :: drain(COMMITTED)
     :: drain(FINISHED)
     :: atomic { sent < FRAMES && sent - received < 2 ->
                 sent++; store_release(PARENT, PUBLISHED, sent) };
        wake_if_parked()
     :: load(COMMITTED) <= received && load(FINISHED) <= received &&
        (sent == FRAMES || sent - received == 2) ->
        /* wait_for_news(): arm() */
        atomic { armed++; store_relaxed(PARENT, ARMED, armed) };
#ifndef ARM_NO_FENCE
        fence(PARENT);
#endif
        if
#ifndef ARM_NO_LOOK
        :: load(COMMITTED) > received
#ifndef NO_UNTOLD
        :: load(FINISHED) > received
#endif
#endif
        :: else ->
           if
           :: d_step { drained(PARENT) && rung -> rung = false } /* wait(), silence() */
           :: dead
           :: atomic { left > 0 -> left-- }
           fi
        fi;
        atomic { armed++; store_relaxed(PARENT, ARMED, armed) } /* disarm() */
     fi
  od
}

init {
  atomic {
    run store_unit(PARENT);
    run store_unit(WORKER);
    run worker();
    run parent();
    run killer();
    run nuisance()
  }
}
