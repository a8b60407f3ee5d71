/* SPDX-License-Identifier: MIT
 *
 * Killing a worker for the item that it runs too long, and for no other. One worker with a timed
 * frame of two items and, behind it, a frame without a limit; store buffers on both sides. The
 * parent finds the worker late at any moment; between its order and the kill any time may pass, and
 * the worker may also die by itself.
 *
 *   proctype worker   result_producer.hpp: begin_item, begin_timed; task_consumer.hpp: next, claim
 *   proctype parent   deadline_monitor.hpp: enforce_limit, limit_between_items, stop; parent_channel.hpp: halt,
 *                     unhalt; task_producer.hpp: take_back; supervisor.hpp: was_running
 *   proctype server   fork_server.hpp: kill
 *
 * Items are counted through: 0 and 1 in the timed frame, 2 in the other. Whoever waits sleeps
 * perfectly.
 *
 * Checked: when the parent's kill comes, nothing runs but the item that it is for; the item that
 * runs when the worker dies is charged, and no other; nobody waits for ever.
 *
 * Mutations, each of which must fail:
 *   NO_HALT       the parent looks at what has started, and kills
 *   HALT_RELAXED  the halt is stored without the fence behind it
 *   START_RELAXED the start is stored without the fence behind it
 *   NO_TAKE_BACK  the frame behind is left where it is
 *   NO_TARGET     was_running() does not compare with the item that the kill was for
 *   STARTED_ZERO  before the first item `started` names the first item of the first frame
 */
#define TRIES 2
#define ITEMS 3
#define NO_LIMIT 200
#define NOTHING 200

#define HALT 0 /* task_control, written by the parent */
#define LIMIT 1
#define SKIP 2 /* the second frame was taken back */
#define CLAIMED 3 /* result_control, written by the worker */
#define STARTED 4
#define WRITTEN 5
#define LOCATIONS 6

#define PARENT 0
#define WORKER 1
#define PROCESSORS 2
#define DEPTH 3
#include "store_buffers.pml"

#define frame_of(item) ((item) / 2)
#define at(frame) (2 * (frame)) /* cursors of a frame's head and end */

bool ordered, killed, dead;
/* for the assertions only */
byte marked = NOTHING, running = NOTHING; /* the item last begun, and the one whose code is run */
bool kill_hits;                           /* the worker's death is the one that was ordered */

/* task_consumer::claim */
inline claim(frame) {
  store_release(WORKER, CLAIMED, at(frame) + 1);
  fence(WORKER);
  load(LIMIT) > at(frame)
}

inline run_and_write() {
  running = item; /* it runs */
  d_step {
    running = NOTHING;
    store_release(WORKER, WRITTEN, item + 1);
    item++
  }
}

inline begin_timed() {
  atomic { marked = item; store_release(WORKER, STARTED, item) };
#ifndef START_RELAXED
  fence(WORKER);
#endif
  load(HALT) == 0 /* a look, and the wait if need be */
}

proctype worker() {
  byte item;
  {
    claim(0);
    begin_timed();
    run_and_write();
    begin_timed();
    run_and_write();
    claim(1);
    if
    :: load(SKIP) == 1
    :: else ->
       atomic { marked = item; store_release(WORKER, STARTED, item) }; /* begin_item() */
       run_and_write()
    fi;
end_idle:
    false
  } unless {
    killed;
    d_step { fence(WORKER); item = 0; dead = true }
  }
}

/* Kills on request; and the worker may crash. */
proctype server() {
end:
  if
  :: atomic { ordered -> kill_hits = true; killed = true }
  :: killed = true
  fi
}

#ifdef NO_TARGET
#define meant(item) true
#else
#define meant(item) (!late || target == item)
#endif

proctype parent() {
  byte target, tries, done;
  bool behind = true, late;

  do
  :: dead -> break
  :: tries < TRIES && !late && load(CLAIMED) > at(0) ->
     tries++;
     target = load(STARTED);
     /* stop(): takes back what is behind */
#ifndef NO_TAKE_BACK
     if
     :: behind ->
        store_release(PARENT, LIMIT, at(1));
        fence(PARENT);
        if
        :: load(CLAIMED) <= at(1) -> store_relaxed(PARENT, SKIP, 1); behind = false
        :: else
        fi;
        store_release(PARENT, LIMIT, NO_LIMIT);
        fence(PARENT)
     :: else
     fi;
#endif
     if
#ifndef NO_TAKE_BACK
     :: behind && load(CLAIMED) > at(1) /* it has finished this frame */
#else
     :: false
#endif
     :: else ->
#ifndef NO_HALT
        store_release(PARENT, HALT, 1);
#ifndef HALT_RELAXED
        fence(PARENT);
#endif
#endif
        if
        :: load(STARTED) == target -> late = true; ordered = true
        :: else -> store_release(PARENT, HALT, 0); fence(PARENT)
        fi
     fi
  od;

  assert(dead);
  d_step { /* drain_last(), was_running() */
    done = load(WRITTEN);
    assert(!kill_hits || running == NOTHING || running == target);
    if
    :: done < ITEMS && (frame_of(done) == 0 || behind) && load(CLAIMED) > at(frame_of(done)) &&
       load(STARTED) == done && meant(done) ->
       assert(marked == done && (running == done || running == NOTHING));
       assert(!kill_hits || target == done) /* not one that was held back */
    :: else -> assert(running == NOTHING)
    fi
  }
}

init {
  atomic {
    memory[LIMIT] = NO_LIMIT;
#ifndef STARTED_ZERO
    memory[STARTED] = NOTHING;
#endif
    run store_unit(PARENT);
    run store_unit(WORKER);
    run worker();
    run parent();
    run server()
  }
}
