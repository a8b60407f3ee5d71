/* SPDX-License-Identifier: MIT
 *
 * A queue whose producers and consumers are killed at any step. Sequential consistency: what is
 * written under a lock is seen by its next owner, and `passed` is released and acquired.
 *
 *   proctype producer  put_turn.hpp: put_turn, add, go_to_another_segment, publish
 *   proctype consumer  get_turn.hpp: get_turn, next, publish; queue_waiting.hpp: retire
 *
 * A segment has a cell for an item and one for a jump. A lock is taken from a dead owner.
 *
 * Checked: what is taken is what was put, in the order in which it was put, nothing lost and nothing
 * twice; a segment is used again only when nothing is left in it; nobody waits for ever.
 *
 * Mutations, each of which must fail:
 *   ONE_COPY      the place is changed where it is, and not in its other copy
 *   TWO_WORDS     the number of items and the copy that holds are two words
 *   COMMIT_EARLY  an item exists before it is written
 *   TAKE_EARLY    a drained segment is given back before its items are gone
 *   NO_TAKEOVER   the lock of a dead owner stays taken
 */
#ifndef ITEMS
#define ITEMS 2 /* of each producer */
#endif
#ifndef KILLS
#define KILLS 2
#endif
#define PROCESSES 5 /* 1, 2: producers; 3, 4: consumers; 0: nobody */
#define CELLS 2
#define LAST 1 /* the cell for a jump */
#define SEGMENTS 6
#define NONE 9
#define JUMP 100

typedef end_type {
  byte lock;
  byte passed; /* items */
  bit copy;    /* stored with it, in one step */
  byte segment[2];
  byte at[2];
}
end_type puts, gets;
byte memory[12]; /* SEGMENTS * CELLS: an item, or JUMP + segment */
byte spare = NONE;
byte fresh = 1;
bool killed[PROCESSES], over[PROCESSES];
byte kills;
/* for the assertions only */
byte log[8];
byte put_count, got_count;

inline acquire(end, id) {
#ifdef NO_TAKEOVER
  atomic { end.lock == 0 -> end.lock = id }
#else
  atomic { (end.lock == 0 || over[end.lock]) -> end.lock = id }
#endif
}

inline write_place(end, to) {
#ifdef ONE_COPY
  to = end.copy;
#else
  to = 1 - end.copy;
#endif
  end.segment[to] = segment;
  end.at[to] = at
}

proctype producer(byte id) {
  byte segment, at, next, i;
  bit to;
  {
    do
    :: i == ITEMS -> break
    :: else ->
       acquire(puts, id);
       d_step {
         segment = puts.segment[puts.copy];
         at = puts.at[puts.copy];
         assert(at <= LAST)
       }
       if
       :: at < LAST
       :: else -> /* go_to_another_segment */
          atomic { next = spare; spare = NONE }
          if
          :: next == NONE -> next = fresh; fresh++; assert(next < SEGMENTS)
          :: else
          fi;
          memory[segment * CELLS + at] = JUMP + next;
          segment = next;
          at = 0
       fi;
#ifndef COMMIT_EARLY
       memory[segment * CELLS + at] = id * 10 + i;
#endif
       at++;
       write_place(puts, to);
#ifdef TWO_WORDS
       puts.copy = to;
#endif
       d_step {
         puts.copy = to;
         puts.passed++;
         log[put_count] = id * 10 + i;
         put_count++
       }
#ifdef COMMIT_EARLY
       memory[segment * CELLS + at - 1] = id * 10 + i;
#endif
       d_step {
         puts.lock = 0;
         i++;
         segment = 0;
         at = 0;
         next = 0;
         to = 0
       }
    od
  } unless { killed[id] };
  over[id] = true
}

proctype consumer(byte id) {
  byte segment, at, drained, value;
  bit to;
  {
    do
    :: true ->
end_idle:
       gets.passed != puts.passed; /* sleeps perfectly */
       acquire(gets, id);
       if
       :: gets.passed == puts.passed -> gets.lock = 0
       :: else ->
          d_step {
            segment = gets.segment[gets.copy];
            at = gets.at[gets.copy];
            drained = NONE
          }
          value = memory[segment * CELLS + at];
          if
          :: value >= JUMP ->
             drained = segment;
             segment = value - JUMP;
             at = 0;
             value = memory[segment * CELLS + at]
          :: else
          fi;
          at++;
#ifdef TAKE_EARLY
          if
          :: drained != NONE && spare == NONE -> spare = drained
          :: else
          fi;
#endif
          write_place(gets, to);
#ifdef TWO_WORDS
          gets.copy = to;
#endif
          d_step {
            gets.copy = to;
            gets.passed++;
            assert(value == log[got_count]);
            got_count++
          }
#ifndef TAKE_EARLY
          if
          :: drained != NONE && spare == NONE -> spare = drained
          :: else
          fi;
#endif
          d_step {
            gets.lock = 0;
            drained = NONE;
            segment = 0;
            at = 0;
            value = 0;
            to = 0
          }
       fi
    od
  } unless { killed[id] };
  over[id] = true
}

active proctype killer() {
  byte who;
end_idle:
  do
  :: kills < KILLS ->
     select(who : 1 .. 3); /* one consumer stays */
     atomic {
       if
       :: !killed[who] -> killed[who] = true; kills++
       :: else
       fi
     }
  :: break
  od
}

/* At the end everything that was put has been taken, whoever died. */
active proctype judge() {
end_wait:
  over[1] && over[2] && gets.passed == puts.passed && gets.lock != 3 && gets.lock != 4 ->
  assert(got_count == put_count)
}

init {
  atomic {
    run producer(1);
    run producer(2);
    run consumer(3);
    run consumer(4)
  }
}
