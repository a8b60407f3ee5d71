/* SPDX-License-Identifier: MIT
 *
 * One thread of the program leads and sleeps for all, and must not sleep through what another
 * thread has set in motion meanwhile. The leader waits for a long task on worker 0; another thread
 * submits tasks to worker 1, which is idle, and waits for each as a follower. The long task ends
 * only when the other thread has all its results, so whoever oversleeps does so for ever. Store
 * buffers on all sides; worker 1 may be killed at any step.
 *
 *   proctype leader   leader.hpp: lead, step, wait_for_results, anything_uncommitted, notify_waiters;
 *                     process_backend.hpp: arm, disarm, wait, reports;
 *                     engine.hpp: advance, each_busy_channel; dispatcher.hpp: poll_set_grew
 *   proctype other    worker_pool.hpp: submit, wait; leader.hpp: follow; dispatcher.hpp: send
 *   proctype worker   worker_channel.hpp: done, flush; parking.hpp: parent_waker
 *
 * Workers wait for frames perfectly here; sleeps.pml is about that. The leader may skip its
 * spinning, and looks at workers that are asleep or dead without harm.
 *
 * Checked: all results reach the threads that wait for them.
 *
 * Mutations, each of which must fail:
 *   GLANCE_ONLY    before it sleeps the leader looks at the workers that were busy when it left
 *   WIDENED_LATE   the other thread says that a worker got something to do behind the frame
 *   NO_NEWS        the leader does not tell the followers
 */
#ifndef ROUNDS
#define ROUNDS 2
#endif
#define PUBLISHED 0 /* and 1: by worker */
#define ARMED 2
#define WIDENED 3
#define FINISHED 4 /* and 5 */
#define LOCATIONS 6

#define LEADER 0
#define OTHER 1
#define WORKER_0 2
#define WORKER_1 3
#define PROCESSORS 4
#define DEPTH 2
#include "store_buffers.pml"

bool rung[2];      /* the workers' event descriptors */
bool report;       /* on the control socket: worker 1 has died */
bool killed, restarted;

bool locked;       /* guarded_engine::mutex, and what it guards */
bool busy[2];      /* the scheduler has a task with this worker */
byte received[2];  /* result_consumer::seen_ */
byte results;      /* jobs of the other thread that are ready */
bool notified;     /* guarded_engine::changed */
bool all_received; /* the other thread has what it wanted */

inline lock() { atomic { !locked -> locked = true } }
inline unlock(processor) { fence(processor); locked = false }

proctype worker(byte me, processor) {
  byte done, rung_for;
  {
    do
    :: true;
end_idle:
       load(PUBLISHED + me) > done;
       if
       :: me == 0 -> all_received /* the long task */
       :: else
       fi;
       atomic { done++; store_release(processor, FINISHED + me, done) };
       fence(processor);
       if
       :: atomic { load(ARMED) % 2 == 1 && load(ARMED) != rung_for -> rung_for = load(ARMED) };
          d_step { fence(processor); rung[me] = true }
       :: load(ARMED) % 2 == 0 || load(ARMED) == rung_for
       fi
    od
  } unless {
    me == 1 && killed;
    d_step { fence(processor); killed = false; done = 0; rung_for = 0 };
    report = true
  }
}

proctype killer() {
end:
  killed = true
}

/* A job of the other thread has its outcome: it is told. */
inline ready() {
  results++;
#ifndef NO_NEWS
  notified = true;
#endif
  busy[1] = false
}

proctype leader() {
  byte armed;
  bool glance[2];
  lock();
  do
  :: received[0] == 1 -> break
  :: else ->
     if
     /* advance() */
     :: atomic { busy[0] && load(FINISHED) > received[0] -> received[0]++; busy[0] = false }
     :: atomic { busy[1] && load(FINISHED + 1) > received[1] -> received[1]++; ready() }
     :: !(busy[0] && load(FINISHED) > received[0]) &&
        !(busy[1] && load(FINISHED + 1) > received[1]) ->
        /* step(): what it looks at while it is away */
        d_step { glance[0] = busy[0]; glance[1] = busy[1] };
        store_relaxed(LEADER, WIDENED, 0);
        unlock(LEADER);
        /* wait_for_news() */
        atomic { armed++; store_relaxed(LEADER, ARMED, armed) };
        fence(LEADER);
        if
        :: glance[0] && load(FINISHED) > received[0]
        :: glance[1] && load(FINISHED + 1) > received[1]
#ifndef GLANCE_ONLY
        :: load(WIDENED) == 1
#endif
        :: else ->
           if /* wait(), silence() */
           :: atomic { rung[0] -> rung[0] = false }
           :: atomic { rung[1] -> rung[1] = false }
           :: report
           fi
        fi;
        atomic { armed++; store_relaxed(LEADER, ARMED, armed) };
        lock();
        /* handle_events(), worker_exited(): what it had gets its outcome, one way or another,
         * and a replacement is started */
        if
        :: atomic {
             report -> report = false;
             if
             :: busy[1] -> ready()
             :: else
             fi;
             restarted = true;
             received[1] = 0;
             memory[PUBLISHED + 1] = 0;
             memory[FINISHED + 1] = 0;
             run worker(1, WORKER_1)
           }
        :: else
        fi
     fi
  od;
  unlock(LEADER)
}

proctype other() {
  byte round, published;
  bool fresh;
  do
  :: round < ROUNDS ->
     lock();
     /* submit(), dispatch(), send(): the worker had no task */
     d_step {
       if
       :: restarted && !fresh -> published = 0; fresh = true
       :: else
       fi;
       busy[1] = true;
       published++
     };
#ifndef WIDENED_LATE
     store_relaxed(OTHER, WIDENED, 1);
     store_release(OTHER, PUBLISHED + 1, published);
#else
     store_release(OTHER, PUBLISHED + 1, published);
     fence(OTHER);
     store_relaxed(OTHER, WIDENED, 1);
#endif
     unlock(OTHER);
     lock();
     round++;
     /* wait(), follow(): gives the lock up while it waits */
     do
     :: results >= round -> break
     :: else ->
        d_step { notified = false; locked = false };
        notified;
        lock()
     od;
     unlock(OTHER)
  :: else -> break
  od;
  all_received = true
}

init {
  atomic {
    memory[PUBLISHED] = 1; /* the leader has submitted its task */
    busy[0] = true;
    run store_unit(LEADER);
    run store_unit(OTHER);
    run store_unit(WORKER_0);
    run store_unit(WORKER_1);
    run worker(0, WORKER_0);
    run worker(1, WORKER_1);
    run leader();
    run other();
    run killer()
  }
}
