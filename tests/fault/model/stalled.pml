/* SPDX-License-Identifier: MIT
 *
 * A worker that has nothing to do and yet no room: its ring is full of frames that were taken back
 * and that it has not passed. The parent must hear of it when it has. One worker, killed at any
 * step, a ring of two frames; tasks are cancelled while they are in the ring. Both sides sleep, as
 * in sleeps.pml; memory is sequentially consistent here.
 *
 *   proctype worker   task_consumer.hpp: next, claim; worker_channel.hpp: wait_until, done;
 *                     parking.hpp: worker_parking, parent_waker
 *   proctype parent   parent_channel.hpp: send, take_back, anything_passed; task_producer.hpp:
 *                     note_refusal, passed_more, forget_skipped; dispatcher.hpp: dispatch,
 *                     resume_blocked, withdraw; scheduler.hpp: refused, resume, finished,
 *                     taken_back; engine.hpp: advance; leader.hpp: step, wait_for_results
 *
 * Checked: every task is done or cancelled in the end, and nobody sleeps before.
 *
 * Mutations, each of which must fail:
 *   NOTE_LATE     what the worker had passed at a refusal is noted behind the only look for room
 *   NO_PASSED     before it sleeps the parent does not look at what stalled workers have passed
 *   NO_RESUME     a refused worker is offered nothing before it has finished something
 *   NO_RING       a worker that has passed everything goes to sleep without a ring
 *   LIMIT_NO_BELL the parent lifts the limit and does not look whether the worker sleeps
 */
#ifndef TASKS
#define TASKS 3
#endif
#ifndef TAKES
#define TAKES 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define SLOTS 2
#define NO_LIMIT 200
#define at(ordinal) (2 * (ordinal)) /* cursors of a frame's head and end */
#define end(ordinal) (2 * (ordinal) + 2)

/* written by the parent */
byte published, limit = NO_LIMIT, doorbell, armed;
bool skip_frame[SLOTS]; /* the frames' kinds */
/* written by the worker */
byte claimed, finished, parked;

bool asleep;         /* the worker, in futex_wait */
bool rung;           /* the worker's event descriptor */
bool killed, report; /* report: on the control socket */
bool requested = true;

/* ---- the worker ---- */

inline wake_if_armed() {
  if
  :: atomic { armed % 2 == 1 && armed != rung_for -> rung_for = armed };
     rung = true
  :: armed % 2 == 0 || armed == rung_for
  fi
}

inline wait_until(ready) {
  if
  :: ready
  :: else ->
#ifndef NO_RING
     wake_if_armed();
#endif
     do
     :: ready -> break
     :: else ->
        bell = doorbell;
        atomic { sleeps++; parked = sleeps };
        if
        :: ready
        :: else ->
           atomic {
             if
             :: doorbell == bell -> asleep = true
             :: else
             fi;
             bell = 0
           };
end_asleep:
           !asleep
        fi
     od;
     atomic { bell = 0; parked = 0 }
  fi
}

proctype worker() {
  byte cursor, done, sleeps, bell, rung_for;
end_vacant:
  requested -> requested = false;
  {
    do
    :: true ->
       wait_until(published > cursor);
       claimed = cursor + 1;
       if
       :: limit > cursor
       :: else -> wait_until(limit > cursor)
       fi;
       if
       :: skip_frame[(cursor / 2) % SLOTS] ->
          atomic { cursor = cursor + 2; claimed = cursor }
       :: else ->
          atomic { cursor = cursor + 2; done++; finished = done };
          wake_if_armed() /* done(), flush() */
       fi
    od
  } unless {
    killed
  }
  atomic {
    killed = false; asleep = false;
    cursor = 0; done = 0; sleeps = 0; bell = 0; rung_for = 0;
    report = true
  };
  goto end_vacant
}

proctype killer() {
end:
  if
  :: KILLS > 0 && !requested -> killed = true
  fi
}

/* ---- the parent ---- */

inline wake_if_parked() {
  if
  :: atomic { parked != 0 && parked != rung_for -> rung_for = parked };
     doorbell++;
     asleep = false
  :: parked == 0 || parked == rung_for
  fi
}

/* task_producer::room and make_room: whether there is room now */
inline look_for_room() {
  d_step {
    do
    :: front < next && skipped[front % SLOTS] && end(front) <= claimed ->
       skipped[front % SLOTS] = false;
       front++
    :: else -> break
    od;
    room = (next - front < SLOTS)
  }
}

/* parent_channel::send */
inline send() {
  look_for_room();
  if
  :: !room ->
     refused_at = claimed; /* note_refusal() */
#ifndef NOTE_LATE
     look_for_room()
#endif
  :: else
  fi;
  if
  :: room ->
     atomic {
       skip_frame[next % SLOTS] = false;
       next++;
       has++;
       pending--;
       published = at(next)
     };
     wake_if_parked()
  :: else ->
     atomic {
       refused = true; /* scheduler::refused */
       if
       :: has == 0 -> stalled = true
       :: else
       fi
     }
  fi
}

/* cancels the tasks that the worker has, as far as it has not begun: dispatcher::withdraw */
inline cancel() {
  takes++;
  ordinal = front;
  do
  :: skipped[ordinal % SLOTS] && ordinal < next -> ordinal++
  :: else -> break
  od;
  limit = at(ordinal);
  seen = claimed;
  from = ordinal;
  ordinal = next;
  do
  :: ordinal > from && at(ordinal - 1) >= seen ->
     atomic {
       ordinal--;
       if
       :: skipped[ordinal % SLOTS] /* taken back before */
       :: else ->
          skip_frame[ordinal % SLOTS] = true;
          skipped[ordinal % SLOTS] = true;
          has--;
          settled++;
#ifndef NO_RESUME
          refused = false /* scheduler::taken_back */
#endif
       fi
     }
  :: else -> break
  od;
  limit = NO_LIMIT;
#ifndef LIMIT_NO_BELL
  wake_if_parked();
#endif
  atomic { ordinal = 0; from = 0; seen = 0 }
}

proctype parent() {
  byte next, front, received;    /* task_producer, result_consumer */
  byte pending = TASKS, has, settled, takes;
  byte refused_at, rung_for, ordinal, from, seen;
  bool skipped[SLOTS], refused, stalled, room, cancelled;

  do
  :: settled == TASKS -> break
  :: else ->
     if /* somebody may cancel what is under way */
     :: has > 0 && takes < TAKES -> cancelled = false; cancel()
     :: !cancelled
     fi;
     /* advance(): resume_blocked(), drain(), dispatch() */
     atomic {
       if
       :: stalled -> stalled = false;
#ifndef NO_RESUME
          refused = false
#endif
       :: else
       fi
     };
     do
     :: atomic { /* drain(), finish_front(), scheduler::finished */
          has > 0 && finished > received ->
          received++;
          do
          :: skipped[front % SLOTS] -> skipped[front % SLOTS] = false; front++
          :: else -> break
          od;
          front++;
          has--;
          settled++;
          refused = false
        }
     /* a worker has at most as many tasks as its ring has frames */
     :: pending > 0 && !refused && has < SLOTS -> send()
     :: else -> break
     od;
     if
     :: settled == TASKS
     :: else ->
        /* wait_for_news() */
        armed++;
        if
        :: has > 0 && finished > received
#ifndef NO_PASSED
        :: stalled && claimed != refused_at
#endif
        :: else ->
           if
           :: atomic { rung -> rung = false }
           :: report
           :: has > 0 && takes < TAKES -> cancelled = true /* interrupt_leader() */
           fi
        fi;
        armed++;
        /* handle_events(): what it had is pending again or has its outcome */
        if
        :: atomic {
             report ->
             report = false;
             d_step {
               pending = pending + has - (finished - received);
               settled = settled + finished - received;
               has = 0; cancelled = false; received = 0; next = 0; front = 0;
               skipped[0] = false; skipped[1] = false;
               refused = false; refused_at = 0; rung_for = 0;
               published = 0; limit = NO_LIMIT; doorbell = 0;
               skip_frame[0] = false; skip_frame[1] = false;
               claimed = 0; finished = 0; parked = 0; rung = false;
               requested = true
             }
           }
        :: else
        fi
     fi
  od
}

init {
  atomic {
    run worker();
    run parent();
    run killer()
  }
}
