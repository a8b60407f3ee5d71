/* SPDX-License-Identifier: MIT
 *
 * Who has a frame: the worker that claims it or the parent that takes it back, and when its space
 * in the ring may be used again. One worker, a ring of two frames, store buffers on both sides.
 *
 *   proctype parent   task_producer.hpp: try_send, take_back, take_away, pop_front, forget_skipped
 *   proctype worker   task_consumer.hpp: next, claim, pass
 *
 * A frame takes two units of the ring here, so that a cursor can point behind the begin of a frame
 * (a claim) or behind its end (passed). Whoever waits sleeps perfectly: sleeps.pml and stalled.pml
 * are about that.
 *
 * Checked: no frame is run that was taken back, none is taken back that is run, none is run twice,
 * whatever is dead when; nobody waits for ever.
 *
 * Mutations, each of which must fail:
 *   RELAXED_CLAIM  the claim is stored without the fence behind it
 *   RELAXED_LIMIT  the limit is stored without the fence behind it
 *   CLAIM_FREES    the claim is already the end of the frame, where the parent reads "passed"
 *   NO_SECOND_LOOK the kind is not looked at again behind the claim
 *   NO_WAIT        the worker does not mind the limit
 */
#define FRAMES 4
#define SLOTS 2
#define NO_LIMIT 200

#define PUBLISHED 0 /* task_control, written by the parent */
#define LIMIT 1
#define SLOT 2 /* two frames: 0, or run(tag), or skip(tag) */
#define CLAIMED 4 /* result_control, written by the worker */
#define FINISHED 5
#define LOCATIONS 6

#define PARENT 0
#define WORKER 1
#define PROCESSORS 2
#define DEPTH 3
#include "store_buffers.pml"

#define run_frame(tag) (2 * (tag) + 2)
#define skip_frame(tag) (2 * (tag) + 3)
#define is_skip(frame) ((frame) % 2 == 1)
#define tag_of(frame) (((frame) - 2) / 2)

#define at(ordinal) (2 * (ordinal)) /* cursors of a frame's head and end */
#define end(ordinal) (2 * (ordinal) + 2)

#define is_there(ordinal) \
  ((ordinal) >= front && (ordinal) < next && !skipped[(ordinal) % SLOTS])

bool killed, dead;
/* for the assertions only */
bool begun[FRAMES], taken[FRAMES];

/* task_consumer::next, and a task of no length */
proctype worker() {
  byte cursor, frame, finished;
  {
    do
    :: true;
end_idle:
       load(PUBLISHED) > cursor;
#ifdef NO_SECOND_LOOK
       frame = load(SLOT + (cursor / 2) % SLOTS);
#endif
       /* claim() */
#ifdef CLAIM_FREES
       store_release(WORKER, CLAIMED, cursor + 2);
#else
       store_release(WORKER, CLAIMED, cursor + 1);
#endif
#ifndef RELAXED_CLAIM
       fence(WORKER);
#endif
#ifndef NO_WAIT
       if
       :: load(LIMIT) <= cursor -> load(LIMIT) > cursor
       :: else
       fi;
#endif
#ifndef NO_SECOND_LOOK
       frame = load(SLOT + (cursor / 2) % SLOTS);
#endif
       if
       :: is_skip(frame) ->
          cursor = cursor + 2;
#ifndef CLAIM_FREES
          store_release(WORKER, CLAIMED, cursor)
#endif
       :: else ->
#ifndef NO_SECOND_LOOK
          frame = load(SLOT + (cursor / 2) % SLOTS); /* "return head" copies it */
#endif
          d_step {
            assert(!taken[tag_of(frame)]); /* somebody else has it */
            assert(!begun[tag_of(frame)]); /* done twice */
            begun[tag_of(frame)] = true
          };
          finished++;
          store_release(WORKER, FINISHED, finished);
          cursor = cursor + 2 /* pass() */
       fi
    od
  } unless {
    killed;
    fence(WORKER); /* what it has stored is stored */
    dead = true
  }
}

proctype killer() {
  if
  :: killed = true
  :: true
  fi
}

proctype parent() {
  byte next, front;      /* ordinals: next_ordinal_, in_flight_.front() */
  bool skipped[SLOTS];   /* entry::skipped */
  byte claimed, finished, received, from, ordinal;

  do
  :: dead -> break
  :: next == FRAMES && front == next -> break /* all have gone one way or the other */

  /* results: pop_front */
  :: load(FINISHED) > received ->
     d_step {
       do
       :: skipped[front % SLOTS] -> skipped[front % SLOTS] = false; front++
       :: else -> break
       od;
       front++;
       received++
     }

  /* forget_skipped */
  :: front < next && skipped[front % SLOTS] && end(front) <= load(CLAIMED) ->
     d_step { skipped[front % SLOTS] = false; front++ }

  /* try_send: the frame, then the cursor */
  :: next < FRAMES && next - front < SLOTS ->
     store_relaxed(PARENT, SLOT + next % SLOTS, run_frame(next));
     store_release(PARENT, PUBLISHED, end(next));
     next++

  /* take_back(from) */
  :: is_there(front) || is_there(front + 1) ->
     if
     :: is_there(front) -> from = front
     :: is_there(front + 1) -> from = front + 1
     fi;
     store_release(PARENT, LIMIT, at(from));
#ifndef RELAXED_LIMIT
     fence(PARENT);
#endif
     claimed = load(CLAIMED);
     if
     :: ordinal = next
     :: ordinal = from + 1 /* take_away(from): those behind it stay */
     fi;
     do
     :: ordinal > from && at(ordinal - 1) >= claimed ->
        ordinal--;
        if
        :: skipped[ordinal % SLOTS] /* taken back before */
        :: else ->
           store_relaxed(PARENT, SLOT + ordinal % SLOTS, skip_frame(ordinal));
           d_step {
             skipped[ordinal % SLOTS] = true;
             assert(!begun[ordinal]); /* the worker runs it */
             taken[ordinal] = true
           }
        fi
     :: else -> break
     od;
     store_release(PARENT, LIMIT, NO_LIMIT);
     fence(PARENT)
  od;

  /* The worker is dead: of what it had, only the oldest frame may have been begun, and only if it
   * was claimed (supervisor::was_running). The others are sent to somebody else. */
  if
  :: dead ->
     d_step {
       claimed = load(CLAIMED);
       finished = load(FINISHED);
       do
       :: front < next && (skipped[front % SLOTS] || received < finished) ->
          if
          :: skipped[front % SLOTS]
          :: else -> received++
          fi;
          skipped[front % SLOTS] = false;
          front++
       :: else -> break
       od;
       assert(received == finished);
       ordinal = front;
       do
       :: ordinal < next ->
          assert(!begun[ordinal] || skipped[ordinal % SLOTS] ||
                 (ordinal == front && at(ordinal) < claimed));
          ordinal++
       :: else -> break
       od
     }
  :: else ->
     d_step {
       ordinal = 0;
       do
       :: ordinal < FRAMES -> assert(begun[ordinal] != taken[ordinal]); ordinal++
       :: else -> break
       od
     }
  fi
}

init {
  atomic {
    memory[LIMIT] = NO_LIMIT;
    run store_unit(PARENT);
    run store_unit(WORKER);
    run worker();
    run parent();
    run killer()
  }
}
