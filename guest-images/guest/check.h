/*
 * What the images that check a chapter of the interrupt hardware share: checks
 * with names, MSR accesses that may fault, a log of the interrupts taken, and
 * waiting that ends.
 */
#ifndef CHECK_H
#define CHECK_H

#include "kernel.h"

/* check.c: one line each, `ok NAME` or `FAIL NAME`. */
void check(const char *name, bool holds);
void check_is(const char *name, u64 got, u64 want);
void check_range(const char *name, u64 got, u64 least, u64 most);
/* The vectors that `cpu` logged, in order, as hexadecimal pairs: "60 50". */
void check_log(const char *name, u32 cpu, const char *want);
/* Checks that cannot be made here. */
void skipped(const char *name, const char *why);
/* Leaves by port 0xf4: code 0 where every check held, else 2. */
void check_end(void) __attribute__((noreturn));

/* trap.S: false where it raised #GP. */
bool try_rdmsr(u32 msr, u64 *value);
bool try_wrmsr(u32 msr, u64 value);

/* irq.c */
#define MARK_LAST 0x0f
/* After apic_choose. Gates for NMI and the vectors 0x20 to 0xff, and the #GP of the above. */
void irq_open(void);
/* Called for each interrupt after it was logged; without one, EOI is written
 * for all but NMI and the spurious vector. */
extern void (*volatile irq_hook)(u32 vector);
void log_clear(void);
/* A number up to MARK_LAST among the vectors of this CPU's log. */
void log_mark(u8 mark);
u32 log_count(u32 cpu);
u8 log_at(u32 cpu, u32 index);
u32 cpu_index(void);
/* Interrupts of all CPUs since it was set to 0; not exact when several come at
 * once. */
extern volatile u32 log_total;

/* Waits with IF as it is; about `us` microseconds, whatever the TSC's speed. */
void pause_us(u64 us);
/* Whether that time has passed since the TSC was `start`. */
bool is_over(u64 start, u64 us);
/* The same in HLT with IF=1, by the APIC timer. Ends with IF=0. */
void idle_us(u64 us);
/* Halts that end at once: a host that has noticed the end of a timer, and not
 * looked yet what comes of it, does so in a halt. TPR must be below 0xf0. */
void settle(void);
/* Takes interrupts with IF=1 until this CPU's log has `count` entries, at most
 * a second, and a little longer for what must not come. Ends with IF=0. */
void take(u32 count);
/* Waits until the log of `cpu` has `count` entries, at most a second. */
bool wait_log(u32 cpu, u32 count);

/* An AP's life: it takes interrupts in HLT. */
void serve(u32 cpu);
/* Whether, of the CPUs below `cpus`, those in `mask` logged `want` and the others
 * nothing; waits for it, and a little longer for what must not come. CPU 0 opens
 * its interrupts meanwhile. */
void check_cpus(const char *name, u32 cpus, u32 mask, const char *want);

/* The bit of `vector` in the 256-bit register that starts at `reg`. */
bool vector_bit(u32 reg, u32 vector);
void self_ipi(u32 vector);

#endif
