/* What KVM writes for a guest that asks for its clock (KVM's MSR documentation,
 * MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW). */
#ifndef KVMCLOCK_H
#define KVMCLOCK_H

#include "kernel.h"

#define FEATURE_CLOCKSOURCE2 3
#define FEATURE_STABLE_BIT 24
#define PVCLOCK_STABLE 1

struct pvclock {
    u32 version;
    u32 pad0;
    u64 tsc_timestamp;
    u64 system_time;
    u32 tsc_to_system_mul;
    signed char tsc_shift;
    u8 flags;
    u8 pad[2];
};

/* How fast the TSC is by a multiplier and a shift; 0: they make no sense. */
u64 pvclock_hz(u32 mul, int shift);

/* tsc_moves.c: checks of the image clock, on the CPU that calls. First, once, how
 * fast the TSC is. */
void tsc_moves_open(u64 hz);
void check_tsc_moves(void);
/* Without a way back: CPU 0's alone, and the last of all. */
void check_written_counter(void);
/* kvmclock.c: this CPU's clock, in ns; 0 where there is none. */
u64 kvmclock_ns(void);

#endif
