/*
 * Starting the other vCPUs by INIT and SIPI, one after the other. vCPU i has
 * APIC id i. Owns the AP stacks.
 *
 * ap_stack, ap_cpu, ap_body: written by vCPU 0 before the SIPI, read by the one
 * AP that is starting; ap_up: written by that AP, read by vCPU 0.
 */
#include "kernel.h"

u8 *ap_stack;
static volatile u32 ap_cpu;
static void (*volatile ap_body)(u32 cpu);
static volatile u64 ap_up;
void (*volatile ap_first)(u32 cpu);
static u8 stacks[MAX_CPUS - 1][STACK_BYTES] __attribute__((aligned(16)));

extern const u8 trampoline_start[], trampoline_end[];

void ap_entry(void)
{
    u32 cpu = ap_cpu;
    load_idt();
    if (ap_first)
        ap_first(cpu);
    apic_open();
    if (apic_id() != cpu)
        fail("APIC ids are not 0, 1, 2, ...");
    report_open(cpu);
    ap_up = cpu;
    ap_body(cpu);
    cli();
    for (;;)
        hlt();
}

u32 cpus_wanted(u32 otherwise)
{
    u64 cpus = param_u64("cpus", otherwise);
    if (cpus < 1 || cpus > MAX_CPUS)
        fail("cpus is out of range");
    return (u32)cpus;
}

/* True once *value is at least `at_least`, false `cycles` later. */
bool wait_tsc(u64 cycles, const volatile u64 *value, u64 at_least)
{
    u64 start = rdtsc();
    while (*value < at_least)
        if (rdtsc() - start > cycles)
            return *value >= at_least;
    return true;
}

bool start_ap(u32 cpu, void (*body)(u32 cpu))
{
    const u64 patience = 20000000000ul;
    u8 *to = (u8 *)TRAMPOLINE;
    for (const u8 *from = trampoline_start; from < trampoline_end; from++)
        *to++ = *from;
    ap_body = body;
    ap_stack = stacks[cpu - 1] + STACK_BYTES;
    ap_cpu = cpu;
    ap_up = 0;
    barrier();
    apic_send(cpu, ICR_INIT);
    apic_send(cpu, ICR_SIPI | TRAMPOLINE >> 12);
    return wait_tsc(patience, &ap_up, cpu);
}

void start_aps(u32 cpus, void (*body)(u32 cpu))
{
    for (u32 cpu = 1; cpu < cpus; cpu++)
        if (!start_ap(cpu, body))
            fail("a vCPU did not answer INIT and SIPI");
}
