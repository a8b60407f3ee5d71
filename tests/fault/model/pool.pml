/* SPDX-License-Identifier: MIT
 *
 * The whole life of tasks: two workers that may be killed at any step, replacements with fresh
 * memory, frames taken back and sent elsewhere, chunks that go on behind the item that died,
 * retries. Rings of two frames and two records. Memory is sequentially consistent here (claims.pml
 * and sleeps.pml are about what makes it so) and whoever waits sleeps perfectly.
 *
 *   proctype worker   task_consumer.hpp: next, claim, pass; result_producer.hpp: begin_item, put,
 *                     end_frame; worker_loop.hpp: run_worker, run_items
 *   proctype parent   task_producer.hpp; result_consumer.hpp: drain, drain_last;
 *                     dispatcher.hpp: send, take_back, requeue_tasks_of; result_processor.hpp: drain, drain_last,
 *                     finish_front; supervisor.hpp: worker_exited, blame, was_running, replace
 *   chan reports      fork_server.hpp: forget; process_backend.hpp: deliver
 *
 * The parent does what it can in any order: any scheduler's decisions are among these, also those
 * of balance(), withdraw(), reassign_unbegun() and stop().
 *
 * Checked: every item gets exactly one outcome; an item whose outcome was written is never begun
 * again and never charged; an item is charged only if its worker was at it; it is begun once for
 * each attempt; a record is always for the item that is next; all comes to an end, and then
 * everybody is idle.
 *
 * Sizes: ITEMS_0 (items of task 0; the others have one), TASKS, RETRIES, KILLS, TAKES (times that
 * frames are taken back).
 *
 * Mutations, each of which must fail:
 *   LIMIT_FIRST   the worker reads the limit, then publishes its claim
 *   CLAIM_FIRST   the parent reads the claim, then publishes the limit
 *   CLAIM_FREES   a claim covers the whole frame, so its space counts as free too early
 *   COMMITTED_ONLY the last drain does not look at `written`
 *   NO_BLAME_DONE  was_running() does not compare the item, only the frame
 *   STARTED_ZERO   at first `started` names the first item of the first frame
 *   ATTEMPT_STAYS  the attempts are not forgotten when the item behind is next
 *   FROM_FIRST     a frame that is sent again begins with its first item
 */
#ifndef ITEMS_0
#define ITEMS_0 2
#endif
#ifndef TASKS
#define TASKS 2
#endif
#ifndef RETRIES
#define RETRIES 0
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef TAKES
#define TAKES 1
#endif
#define WORKERS 2
#define SLOTS 2
#define RECORDS 2
#define NO_LIMIT 255
#define NOTHING 255
#ifdef STARTED_ZERO
#define NO_ORDINAL 0
#else
#define NO_ORDINAL 255
#endif
#define ITEMS (ITEMS_0 + TASKS - 1)
#define items_of(task) ((task) == 0 -> ITEMS_0 : 1)
#define index_of(task, item) ((task) == 0 -> (item) : ITEMS_0 + (task) - 1)

#define at(ordinal) (2 * (ordinal)) /* cursors of a frame's head and end */
#define end(ordinal) (2 * (ordinal) + 2)

/* ---- shared memory ---- */

typedef frame { bool kind_skip; byte task, ordinal, first_item, attempt };
typedef record { byte ordinal, item };
typedef outbound { byte published, limit, consumed; frame ring[SLOTS] };
typedef inbound {
  byte claimed, started_ordinal, started_item, written, finished, committed;
  record ring[RECORDS]
};
outbound out[WORKERS];
inbound in[WORKERS];

/* ---- the fork server ---- */

bool requested[WORKERS], alive[WORKERS], killed[WORKERS];
chan reports = [WORKERS] of { byte };

/* ---- for the assertions only ---- */

byte now[WORKERS] = NOTHING; /* the item between begin_item and its outcome, as an index */
byte begun[ITEMS];
bool completed[ITEMS], outcome[ITEMS];

/* begin_item(); `started` is one store */
inline begin_item() {
  in[me].started_ordinal = ordinal;
  in[me].started_item = item;
  now[me] = index_of(task, item);
  assert(!completed[now[me]]);
  begun[now[me]]++;
  assert(begun[now[me]] == attempt);
  attempt = 1 /* the items behind are begun for the first time */
}

#ifdef CLAIM_FREES
#define claim_of(cursor) (cursor + 2)
#else
#define claim_of(cursor) (cursor + 1)
#endif
#define head out[me].ring[(cursor / 2) % SLOTS]

proctype worker(byte me) {
  byte cursor, task, ordinal, item, attempt, produced;
end_vacant:
  atomic { requested[me] -> requested[me] = false; alive[me] = true };
  {
    skip;
  next_frame:
end_idle:
#ifdef LIMIT_FIRST
    out[me].published > cursor && out[me].limit > cursor;
    in[me].claimed = claim_of(cursor);
    atomic {
#else
    atomic { out[me].published > cursor -> in[me].claimed = claim_of(cursor) };
    atomic {
      out[me].limit > cursor; /* a look, and the wait if need be */
#endif
      if
      :: head.kind_skip ->
         cursor = cursor + 2;
#ifndef CLAIM_FREES
         in[me].claimed = cursor;
#endif
         goto next_frame
      :: else ->
         d_step {
           task = head.task;
           ordinal = head.ordinal;
           item = head.first_item;
           attempt = head.attempt;
           begin_item()
         }
      fi
    };
    do
    :: atomic { /* the task has returned: put() */
         produced - out[me].consumed < RECORDS;
         d_step {
           in[me].ring[produced % RECORDS].ordinal = ordinal;
           in[me].ring[produced % RECORDS].item = item;
           produced++;
           in[me].written = produced;
           completed[now[me]] = true;
           now[me] = NOTHING;
           item++
         }
       };
       if
       :: d_step { item < items_of(task) -> begin_item() }
       :: d_step { item == items_of(task) -> /* pass(), end_frame() */
                   cursor = cursor + 2;
                   in[me].finished = produced };
          goto next_frame
       fi
    :: atomic { produced - out[me].consumed == RECORDS && in[me].committed < produced ->
                in[me].committed = produced } /* wait_for_room() */
    od
  } unless {
    killed[me]
  }
  d_step {
    alive[me] = false; killed[me] = false;
    cursor = 0; task = 0; ordinal = 0; item = 0; attempt = 0; produced = 0
  };
  reports!me;
  goto end_vacant
}

proctype killer() {
  byte left = KILLS;
end:
  do
  :: atomic { left > 0 && alive[0] && !killed[0] -> killed[0] = true; left-- }
  :: atomic { left > 0 && alive[1] && !killed[1] -> killed[1] = true; left-- }
  od
}

/* ---- the parent ---- */

typedef place {              /* of a worker: task_producer, result_consumer */
  byte next, front, cursor;  /* next_ordinal_, in_flight_.front(), result_consumer::cursor_ */
  bool skipped[SLOTS];       /* entry::skipped */
  byte task[SLOTS]           /* the scheduler's queue of this worker, by ordinal */
};

#define in_flight(w) (places[w].next - places[w].front)
#define may_send(w) \
  (in_flight(w) < SLOTS || (places[w].skipped[places[w].front % SLOTS] && \
                            end(places[w].front) <= in[w].claimed))
#define is_there(w, ordinal) \
  ((ordinal) >= places[w].front && (ordinal) < places[w].next && \
   !places[w].skipped[(ordinal) % SLOTS])
#define may_take(w) (is_there(w, places[w].front) || is_there(w, places[w].front + 1))
#define any_pending \
  (pending[0] || (TASKS > 1 && pending[1 % TASKS]) || (TASKS > 2 && pending[2 % TASKS]))
#define any_record(w) \
  (in[w].committed > places[w].cursor || in[w].finished > places[w].cursor)

/* scheduler::front: the oldest frame that was not taken back, and its task */
inline front_task(w) {
  ordinal = places[w].front;
  do
  :: ordinal < places[w].next && places[w].skipped[ordinal % SLOTS] -> ordinal++
  :: else -> break
  od;
  t = (ordinal < places[w].next -> places[w].task[ordinal % SLOTS] : NOTHING)
}

/* outcomes::count, pool_task::pass */
inline settle() {
  assert(!outcome[index_of(t, done[t])]);
  outcome[index_of(t, done[t])] = true;
  done[t]++;
  settled++;
#ifndef ATTEMPT_STAYS
  attempt[t] = 1
#endif
}

/* finish_front: pop_front, scheduler::finished */
inline finish_front(w) {
  do
  :: places[w].front <= ordinal ->
     places[w].skipped[places[w].front % SLOTS] = false;
     places[w].task[places[w].front % SLOTS] = 0;
     places[w].front++
  :: else -> break
  od
}

/* result_consumer::read_until, result_processor::check_record and take_record */
inline read_until(w, one, other) {
  do
  :: places[w].cursor < one || places[w].cursor < other ->
     front_task(w);
     assert(t != NOTHING); /* these would be a protocol_violation */
     assert(in[w].ring[places[w].cursor % RECORDS].ordinal == ordinal);
     assert(in[w].ring[places[w].cursor % RECORDS].item == done[t]);
     assert(completed[index_of(t, done[t])]);
     places[w].cursor++;
     settle();
     if
     :: done[t] == items_of(t) -> finish_front(w)
     :: else
     fi
  :: else -> break
  od
}

inline fresh_memory(w) {
  out[w].published = 0; out[w].limit = NO_LIMIT; out[w].consumed = 0;
  in[w].claimed = 0; in[w].started_ordinal = NO_ORDINAL; in[w].started_item = 0;
  in[w].written = 0; in[w].finished = 0; in[w].committed = 0;
  places[w].next = 0; places[w].front = 0; places[w].cursor = 0;
  i = 0;
  do
  :: i < SLOTS ->
     places[w].skipped[i] = false; places[w].task[i] = 0;
     out[w].ring[i].kind_skip = false; out[w].ring[i].task = 0; out[w].ring[i].ordinal = 0;
     out[w].ring[i].first_item = 0; out[w].ring[i].attempt = 0;
     i++
  :: else -> break
  od;
  i = 0;
  do
  :: i < RECORDS -> in[w].ring[i].ordinal = 0; in[w].ring[i].item = 0; i++
  :: else -> break
  od;
  i = 0;
  requested[w] = true
}

#ifdef NO_BLAME_DONE
#define was_running(w) (at(ordinal) < in[w].claimed && in[w].started_ordinal == ordinal)
#else
#define was_running(w) \
  (at(ordinal) < in[w].claimed && in[w].started_ordinal == ordinal && \
   in[w].started_item == done[t])
#endif

/* supervisor::blame and was_running */
inline blame(w) {
  front_task(w);
  if
  :: t != NOTHING && was_running(w) ->
     assert(now[w] == index_of(t, done[t]));
     assert(!completed[index_of(t, done[t])]);
     if
     :: attempt[t] <= RETRIES -> attempt[t]++
     :: else ->
        assert(begun[index_of(t, done[t])] == RETRIES + 1);
        settle();
        if
        :: done[t] == items_of(t) -> finish_front(w)
        :: else
        fi
     fi
  :: else -> assert(now[w] == NOTHING)
  fi;
  now[w] = NOTHING
}

/* dispatcher::requeue_tasks_of: what it had is pending again */
inline requeue_tasks_of(w) {
  do
  :: places[w].front < places[w].next ->
     if
     :: places[w].skipped[places[w].front % SLOTS]
     :: else -> pending[places[w].task[places[w].front % SLOTS]] = true
     fi;
     places[w].front++
  :: else -> break
  od
}

proctype parent() {
  place places[WORKERS];
  bool pending[TASKS];
  byte done[TASKS], attempt[TASKS];
  byte settled, takes, w, t, ordinal, from, claimed, i;
  bool used;

  d_step {
    t = 0;
    do
    :: t < TASKS -> pending[t] = true; attempt[t] = 1; t++
    :: else -> break
    od;
    t = 0;
    fresh_memory(0);
    fresh_memory(1)
  };

  do
  :: settled == ITEMS -> break

  /* dispatcher::send, task_producer::make_room: forget_skipped, the frame, the cursor */
  :: atomic {
       any_pending && (may_send(0) || may_send(1)) ->
       if
       :: pending[0] -> t = 0
       :: TASKS > 1 && pending[1 % TASKS] -> t = 1 % TASKS
       :: TASKS > 2 && pending[2 % TASKS] -> t = 2 % TASKS
       fi;
       if
       :: may_send(0) -> w = 0
       :: may_send(1) && used -> w = 1 /* at first they are alike */
       fi;
       used = true
     };
     d_step {
       pending[t] = false;
       do
       :: in_flight(w) > 0 && places[w].skipped[places[w].front % SLOTS] &&
          end(places[w].front) <= in[w].claimed ->
          places[w].skipped[places[w].front % SLOTS] = false;
          places[w].task[places[w].front % SLOTS] = 0;
          places[w].front++
       :: else -> break
       od;
       ordinal = places[w].next;
       out[w].ring[ordinal % SLOTS].kind_skip = false;
       out[w].ring[ordinal % SLOTS].task = t;
       out[w].ring[ordinal % SLOTS].ordinal = ordinal;
       out[w].ring[ordinal % SLOTS].attempt = attempt[t];
#ifdef FROM_FIRST
       out[w].ring[ordinal % SLOTS].first_item = 0;
#else
       out[w].ring[ordinal % SLOTS].first_item = done[t];
#endif
       places[w].task[ordinal % SLOTS] = t;
       places[w].next++;
       out[w].published = at(places[w].next);
       w = 0; t = 0; ordinal = 0
     }

  /* task_producer::take_back, dispatcher::take_back */
  :: atomic {
       takes < TAKES && (may_take(0) || may_take(1)) ->
       if
       :: may_take(0) -> w = 0
       :: may_take(1) -> w = 1
       fi;
       takes++;
       if
       :: is_there(w, places[w].front) -> from = places[w].front
       :: is_there(w, places[w].front + 1) -> from = places[w].front + 1
       fi
     };
#ifdef CLAIM_FIRST
     claimed = in[w].claimed;
#endif
     out[w].limit = at(from);
#ifndef CLAIM_FIRST
     claimed = in[w].claimed;
#endif
     ordinal = places[w].next;
     do
     :: ordinal > from && at(ordinal - 1) >= claimed ->
        d_step {
          ordinal--;
          if
          :: places[w].skipped[ordinal % SLOTS] /* taken back before */
          :: else ->
             out[w].ring[ordinal % SLOTS].kind_skip = true;
             places[w].skipped[ordinal % SLOTS] = true;
             pending[places[w].task[ordinal % SLOTS]] = true
          fi
        }
     :: else -> break
     od;
     out[w].limit = NO_LIMIT;
     d_step { w = 0; from = 0; claimed = 0; ordinal = 0 }

  /* result_processor::drain */
  :: atomic {
       any_record(0) || any_record(1) ->
       if
       :: any_record(0) -> w = 0
       :: any_record(1) -> w = 1
       fi
     };
     d_step {
       t = 0;
       read_until(w, in[w].committed, in[w].finished);
       out[w].consumed = places[w].cursor;
       w = 0; t = 0; ordinal = 0
     }

  /* supervisor::worker_exited: nobody writes there any more, so this is one step */
  :: atomic {
       reports?w ->
       d_step {
         t = 0;
#ifdef COMMITTED_ONLY
         read_until(w, in[w].committed, in[w].finished);
#else
         read_until(w, in[w].committed, in[w].written);
#endif
         blame(w);
         requeue_tasks_of(w);
         fresh_memory(w);
         w = 0; t = 0; ordinal = 0
       }
     }
  od;

  assert(settled == ITEMS);
  d_step {
    i = 0;
    do
    :: i < ITEMS -> assert(outcome[i]); i++
    :: else -> break
    od;
    /* nothing is left that a worker could still begin with */
    front_task(0);
    assert(t == NOTHING);
    front_task(1);
    assert(t == NOTHING)
  }
}

init {
  atomic {
    run worker(0);
    run worker(1);
    run parent();
    run killer()
  }
}
