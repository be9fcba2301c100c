/* The storms of the image storm, by what they fall upon. Each leaves the machine
 * as storm.c can check it: CPU 0 with IF=0, the others in serve(). */
#ifndef STORM_H
#define STORM_H

#include "check.h"

#define STORM_CPUS_MOST 8

/* storm.c: how many vCPUs there are. */
extern u32 storm_cpus;
/* The same numbers in each run. Of CPU 0. */
u32 storm_random(void);

/* storm_cpus.c */
void storm_init(u64 count);
void storm_nmi(u64 count);
/* storm_apic.c */
void storm_self(u64 count);
void storm_modes(u64 count);
void storm_nobody(u64 count);
/* storm_board.c */
void storm_mmio(u64 count);
void storm_lines(u64 count);

#endif
