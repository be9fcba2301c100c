/* tick_entry.S: the timer handlers, one for each timer mode and APIC mode, and
 * the loop they interrupt. */
#ifndef TICK_H
#define TICK_H

#include "kernel.h"

/* Interrupt entries. Their state is in registers that tick_idle sets up: only it
 * may be interrupted by them. */
extern const u8 tick_deadline_x2apic[], tick_deadline_xapic[];
extern const u8 tick_oneshot_x2apic[], tick_oneshot_xapic[];
extern const u8 tick_periodic_x2apic[], tick_periodic_xapic[];

/* Halts with IF=1 until `ticks` interrupts were handled; 0: for ever. The report's
 * period, next deadline and ratio are those to go on with. */
void tick_idle(u64 ticks);

#endif
