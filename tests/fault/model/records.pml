/* SPDX-License-Identifier: MIT
 *
 * How outcomes travel, unit by unit: records and runs in the result ring, the three cursors, what
 * the parent reads of a dead worker, and who is blamed. One worker with two frames of ITEMS items,
 * killed at any step; a ring of eight units in which larger records stream.
 *
 *   proctype worker   result_producer.hpp: begin_item, put, put_plain, open_run, close_run, write,
 *                     wait_for_room, end_frame, commit; worker_channel.hpp: done
 *   proctype parent   result_consumer.hpp: drain (partial or full), drain_last, read_until,
 *                     read_head, read_payload, read_pieces; result_processor.hpp: check_record;
 *                     supervisor.hpp: was_running
 *
 * Records begin at an even unit; a head takes four, the length in the third. A payload of three
 * units needs one of padding. With PLAIN the items have plain results of one unit, which form runs.
 * Any item may end with an exception instead, a payload of one unit.
 *
 * Checked: the parent reads whole and right records, in order, each once, whatever it reads when;
 * the worker never overwrites what was not read; a finished item keeps its outcome and is not
 * blamed; the item that was running is blamed; nobody waits for ever.
 *
 * Mutations, each of which must fail:
 *   COMMITTED_ONLY   the last drain does not look at `written`
 *   WRITTEN_LATE     `written` moves with the frame, not with the item
 *   WRITTEN_EARLY    `written` moves before the payload is there
 *   NO_BLAME_DONE    was_running() compares the frame only
 *   CONSUMED_EARLY   the parent gives space back before it has copied
 *   COMMIT_OPEN_RUN  a run may be committed while it grows
 *   HEAD_ANYHOW      drain() takes a head that is there in part
 */
#define FRAMES 2
#ifndef ITEMS
#define ITEMS 2
#endif
#define RING 8
#define HEAD 4
#define OPEN 255
#define NOTHING 255
#ifdef PLAIN
#define VALUE_UNITS 1
#else
#define VALUE_UNITS 3
#endif

#define VALUE 1
#define ERROR 2
#define RUN 3
#define id_of(frame, item) ((frame) * ITEMS + (item))
#define head_unit(kind, id) (64 * (kind) + (id))
#define payload_unit(id) (1 + (id))
#define round_up(cursor) ((cursor) + (cursor) % 2)
#define least(a, b) ((a) < (b) -> (a) : (b))

/* result_control and the ring, written by the worker */
byte committed, written, finished, started = NOTHING, claimed;
byte ring[RING];
byte consumed; /* task_control, written by the parent */

bool killed, dead;
/* for the assertions only */
byte now = NOTHING, outcomes;

#define room() (RING - (cursor - consumed_))
/* the parent's cursor is looked at only when need be */
inline look_for_room() {
  if
  :: room() < RING / 2 -> consumed_ = consumed
  :: else
  fi
}

inline wait_for_room(units) {
  committed = cursor;
  d_step { RING - (cursor - consumed) >= units -> consumed_ = consumed }
}

/* write(): as much as there is room for at a time */
inline write(unit, units) {
  left = units;
  do
  :: left > 0 ->
     look_for_room();
     if
     :: room() == 0 -> wait_for_room(1)
     :: else ->
        d_step {
          do
          :: left > 0 && room() > 0 -> ring[cursor % RING] = unit; cursor++; left--
          :: else -> break
          od;
          skip
        }
     fi
  :: else -> break
  od
}

inline write_head(kind, length) {
  write(head_unit(kind, id), 2);
  write(length, 2)
}

inline note_written() {
#ifndef WRITTEN_LATE
  written = cursor
#else
  skip
#endif
}

/* note_written() for the item that ends with it */
inline outcome_written() {
  d_step {
    note_written();
    now = NOTHING;
    outcomes++
  }
}

inline close_run() {
  if
  :: run_open ->
     run_open = false;
     ring[(run_at + 2) % RING] = cursor - run_at - HEAD;
     cursor = round_up(cursor);
     d_step { note_written() }
  :: else
  fi
}

inline put(kind, units) {
  close_run();
  write_head(kind, units);
#ifdef WRITTEN_EARLY
  outcome_written();
  write(payload_unit(id), units);
  write(0, cursor % 2)
#else
  write(payload_unit(id), units);
  write(0, cursor % 2);
  outcome_written()
#endif
}

#define RESERVE 1 /* record_alignment, less the least value */

inline put_plain() {
  look_for_room();
  if
  :: !run_open || room() < VALUE_UNITS + RESERVE ->
#ifndef COMMIT_OPEN_RUN
     close_run();
#endif
     look_for_room();
     if
     :: room() < HEAD + VALUE_UNITS + RESERVE -> wait_for_room(HEAD + VALUE_UNITS + RESERVE)
     :: else
     fi;
#ifdef COMMIT_OPEN_RUN
     close_run();
#endif
     run_at = cursor;
     run_open = true;
     write_head(RUN, OPEN)
  :: else
  fi;
  write(payload_unit(id), VALUE_UNITS);
  outcome_written()
}

proctype worker() {
  byte cursor, consumed_, run_at, left, frame, item, id;
  bool run_open;
  {
    do
    :: frame < FRAMES ->
       claimed = frame + 1;
       item = 0;
       do
       :: item < ITEMS ->
          d_step { /* begin_item() */
            id = id_of(frame, item);
            started = id;
            now = id
          };
          if
#ifdef PLAIN
          :: true -> put_plain()
#else
          :: true -> put(VALUE, VALUE_UNITS)
#endif
          :: true -> put(ERROR, 1)
          fi;
          item++
       :: else -> break
       od;
       close_run(); /* end_frame() */
#ifdef WRITTEN_LATE
       written = cursor;
#endif
       finished = cursor;
       frame++;
       if
       :: committed = cursor /* flush() */
       :: true               /* held back */
       fi
    :: else -> break
    od;
end_idle:
    false
  } unless {
    killed;
    dead = true
  }
}

proctype killer() {
end:
  killed = true
}

/* ---- the parent ---- */

/* read_head */
inline read_head(last) {
  cursor = least(round_up(cursor), end);
  if
#ifdef HEAD_ANYHOW
  :: end > cursor ->
#else
  :: end - cursor >= HEAD ->
#endif
     kind = ring[cursor % RING] / 64;
     id = ring[cursor % RING] % 64;
     length = ring[(cursor + 2) % RING];
     cursor = cursor + HEAD;
     assert(kind >= VALUE && kind <= RUN); /* check_record */
     assert(id == done);
     assert(kind != RUN || length == OPEN || length <= ITEMS - done % ITEMS);
     assert(kind != VALUE || length == VALUE_UNITS);
     assert(kind != ERROR || length == 1);
     open = true;
     left = length;
     if
     :: kind == RUN && length == OPEN ->
        assert(last); /* "a worker committed an unfinished run of results" */
        length = end - cursor;
        left = length
     :: else
     fi
  :: else -> whole = false
  fi
}

/* read_payload and read_pieces: as much as is there */
inline read_body() {
  do
  :: left > 0 && cursor < end ->
     assert(ring[cursor % RING] == payload_unit(kind == RUN -> done + length - left : id));
     cursor++;
     left--
  :: else -> break
  od;
  if
  :: left == 0 ->
     open = false;
     done = done + (kind == RUN -> length : 1);
     length = 0
  :: else -> whole = false
  fi
}

inline read_until(last) {
  whole = true;
  do
  :: whole ->
     if
     :: !open -> read_head(last)
     :: else
     fi;
     if
     :: whole -> read_body()
     :: else
     fi
  :: else -> break
  od;
  assert(done <= outcomes)
}

inline bounded(one, other) {
  end = (one > other -> one : other);
  end = (end > cursor -> end : cursor);
  assert(end - cursor <= RING)
}

proctype parent() {
  byte cursor, end, left, kind, id, length, done, seen, ended;
  bool open, whole;
  do
  :: done == FRAMES * ITEMS -> break

  /* drain(), partial or full */
  :: committed > cursor || finished > cursor ->
     seen = committed;
     if
     :: true -> ended = 0
     :: true ->
        ended = finished;
        assert(seen >= cursor || ended >= cursor) /* "a worker's result cursor went back" */
     fi;
     d_step { bounded(seen, ended) };
#ifdef CONSUMED_EARLY
     consumed = end;
     d_step { read_until(false) };
#else
     d_step { read_until(false) };
     consumed = cursor;
#endif
     d_step { /* "a worker finished a task in the middle of a result" */
       assert(ended != end || ended == 0 || (!open && cursor == end));
       seen = 0;
       ended = 0
     }

  /* drain_last(), then blame() */
  :: atomic {
       dead ->
       d_step {
         skip;
#ifdef COMMITTED_ONLY
         bounded(committed, finished);
#else
         bounded(committed, written);
#endif
         read_until(true);
         assert(done == outcomes); /* what was finished counts */
         if
#ifdef NO_BLAME_DONE
         :: done < FRAMES * ITEMS && claimed > done / ITEMS && started / ITEMS == done / ITEMS ->
#else
         :: done < FRAMES * ITEMS && claimed > done / ITEMS && started == done ->
#endif
            assert(now == done)
         :: else -> assert(now == NOTHING)
         fi
       };
       break
     }
  od
}

init {
  atomic {
    run worker();
    run parent();
    run killer()
  }
}
