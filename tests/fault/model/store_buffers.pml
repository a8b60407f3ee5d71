/* SPDX-License-Identifier: MIT
 *
 * A machine with store buffers, for the models that show which fences are needed.
 *
 * A store goes into the buffer of its processor and reaches memory some time later. Stores may
 * overtake each other on the way, as C++ allows: a relaxed one everything but an earlier store to
 * the same place, a release store nothing. A fence, and the sequentially consistent store that ends
 * with one, waits until the buffer is empty. So a load after it comes after the stores before it,
 * and without it perhaps not. (Loads are not reordered among themselves here. Where it matters in
 * the code they are acquire loads or stand behind a fence.)
 *
 * With SEQUENTIAL there are no buffers: for larger bounds, once the fences are known to be enough.
 *
 * The model that includes this defines LOCATIONS, PROCESSORS and DEPTH. No processor reads a place
 * that it writes itself: the code keeps private copies of those.
 */
typedef waiting_store { byte where; byte what; bit release };
typedef store_buffer { byte used; waiting_store entry[DEPTH] };

byte memory[LOCATIONS];
store_buffer buffers[PROCESSORS];

#define load(where_) memory[where_]
#define drained(processor) (buffers[processor].used == 0)

/* A relaxed store, or a release store. */
#define store_relaxed(processor, where_, what_) put(processor, where_, what_, 0)
#define store_release(processor, where_, what_) put(processor, where_, what_, 1)

#ifdef SEQUENTIAL
inline put(processor, where_, what_, release_) { memory[where_] = what_ }
#else
inline put(processor, where_, what_, release_) {
  d_step {
    buffers[processor].used < DEPTH;
    buffers[processor].entry[buffers[processor].used].where = where_;
    buffers[processor].entry[buffers[processor].used].what = what_;
    buffers[processor].entry[buffers[processor].used].release = release_;
    buffers[processor].used++
  }
}
#endif

/* std::atomic_thread_fence(seq_cst); also what a system call amounts to. */
inline fence(processor) { drained(processor) }

#define older(i, j) (buffers[me].entry[i].where == buffers[me].entry[j].where)
#define relaxed(i) (buffers[me].used > i && !buffers[me].entry[i].release)

inline drain_entry(i) {
  memory[buffers[me].entry[i].where] = buffers[me].entry[i].what;
  hole = i;
  do
  :: hole + 1 < buffers[me].used ->
     buffers[me].entry[hole].where = buffers[me].entry[hole + 1].where;
     buffers[me].entry[hole].what = buffers[me].entry[hole + 1].what;
     buffers[me].entry[hole].release = buffers[me].entry[hole + 1].release;
     hole++
  :: else -> break
  od;
  buffers[me].used--;
  buffers[me].entry[buffers[me].used].where = 0; /* so that equal states are equal */
  buffers[me].entry[buffers[me].used].what = 0;
  buffers[me].entry[buffers[me].used].release = 0;
  hole = 0
}

/* Carries the stores of one processor to memory. */
proctype store_unit(byte me) {
  byte hole;
end:
  do
  :: d_step { buffers[me].used > 0 -> drain_entry(0) }
  :: d_step { relaxed(1) && !older(0, 1) -> drain_entry(1) }
  :: d_step { relaxed(2) && !older(0, 2) && !older(1, 2) -> drain_entry(2) }
  od
}
