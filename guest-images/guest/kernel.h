/*
 * What the images share: types, instructions as functions, and the few
 * services of boot.c, serial.c, cmdline.c, clock.c, apic.c, smp.c and power.c.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include "abi.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

struct report {
    u64 magic;
    u32 version;
    u32 vcpu;
    u64 ticks;
    u64 progress;
    u64 early;
    u64 lost;
    u64 max;
    u64 tsc_khz;
    u64 period;
    u64 next;
    u32 buckets;
    u32 sub_bits;
    u64 ratio;
    u32 state;
    u32 pad0;
    u32 pv_eoi;
    u8 pad1[REPORT_HIST - REPORT_PV_EOI - 4];
    u32 hist[HIST_BUCKETS];
};

#define CHECK_OFFSET(field, offset) \
    _Static_assert(__builtin_offsetof(struct report, field) == (offset), #field)
CHECK_OFFSET(ticks, REPORT_TICKS);
CHECK_OFFSET(max, REPORT_MAX);
CHECK_OFFSET(next, REPORT_NEXT);
CHECK_OFFSET(ratio, REPORT_RATIO);
CHECK_OFFSET(pv_eoi, REPORT_PV_EOI);
CHECK_OFFSET(hist, REPORT_HIST);
_Static_assert(sizeof(struct report) <= REPORT_BYTES, "a report is one page");

static inline volatile struct report *report_of(u32 cpu)
{
    return (volatile struct report *)(u64)(REPORT_BASE + cpu * REPORT_BYTES);
}

static inline void outb(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(u16 port, u16 value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u64 rdmsr(u32 msr)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return ((u64)high << 32) | low;
}

static inline void wrmsr(u32 msr, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return ((u64)high << 32) | low;
}

struct cpuid {
    u32 eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(u32 leaf)
{
    struct cpuid r;
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(0));
    return r;
}

static inline void barrier(void)
{
    __asm__ volatile("" : : : "memory");
}

static inline void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}

static inline void sti(void)
{
    __asm__ volatile("sti; nop" : : : "memory");
}

/* The shadow of STI covers HLT: a pending interrupt is taken after the HLT. */
static inline void sti_hlt(void)
{
    __asm__ volatile("sti; hlt" : : : "memory");
}

static inline void hlt(void)
{
    __asm__ volatile("hlt" : : : "memory");
}

/* Each image defines its name and its body, run on vCPU 0 with IF=0. */
extern const char image_name[];
void image_main(void);

/* boot.c */
void load_idt(void);
void set_gate(u32 vector, const void *entry);
void report_open(u32 cpu);

/* serial.c */
void put(const char *text);
void put_u64(u64 value);
void put_hex(u64 value);
void put_tenths(u64 tenths);

/* cmdline.c */
extern char cmdline[];
void cmdline_load(u64 kind, u64 info);
bool param(const char *key, const char **value);
u64 param_u64(const char *key, u64 otherwise);
bool param_is(const char *key, const char *value);

/* clock.c: all 0 where unknown. */
u64 tsc_hz(void);
/* As CPUID says, without kvmclock. */
u64 cpuid_tsc_hz(void);
u64 apic_timer_hz(void);
/* Whether this is KVM and it offers that paravirtual feature. */
bool kvm_offers(u32 feature);

/* boot.S: not functions to call, interrupt entries. */
extern const u8 ipi_entry[], spurious_entry[];

/* apic.c */
extern u32 apic_is_x2;
void apic_choose(void);
void apic_open(void);
u32 apic_id(void);
void apic_write(u32 reg, u32 value);
u32 apic_read(u32 reg);
void apic_eoi(void);
void pv_eoi_open(volatile struct report *report);
#define ICR_FIXED   0x4000
#define ICR_NMI     0x4400
#define ICR_INIT    0x4500
#define ICR_SIPI    0x4600
#define ICR_LOWEST  0x4100
#define ICR_LOGICAL 0x800
#define ICR_SELF    0x40000
#define ICR_ALL     0x80000
#define ICR_OTHERS  0xc0000
void apic_send(u32 target, u32 command);
void apic_timer_once(u64 nanoseconds, u32 vector);

/* smp.c */
u32 cpus_wanted(u32 otherwise);
void start_aps(u32 cpus, void (*body)(u32 cpu));
/* INIT, one SIPI; false if it did not answer. */
/* Called on an AP before its APIC is touched, if there is one; %gs is not set yet. */
extern void (*volatile ap_first)(u32 cpu);
bool start_ap(u32 cpu, void (*body)(u32 cpu));
bool wait_tsc(u64 cycles, const volatile u64 *value, u64 at_least);

/* power.c */
/* `code` goes to port 0xf4 if there is one. */
void leave(bool has_code, u8 code) __attribute__((noreturn));
void finish(void) __attribute__((noreturn));
void fail(const char *why) __attribute__((noreturn));
void empty_idt(void);
void triple_fault(void) __attribute__((noreturn));

#endif
