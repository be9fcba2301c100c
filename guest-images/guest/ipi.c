/*
 * A token goes round a ring of vCPUs that sleep in HLT: each waits for its
 * IPI, then sends one to the next. Owns nothing but the number of rounds; the
 * IPIs that a vCPU has received are `ticks` of its report page.
 */
#include "kernel.h"

const char image_name[] = "ipi";

#define MAX_ROUNDS 100000000

/* Written by vCPU 0 before it starts the others, then only read. */
static u64 rounds;
static u32 cpus;

static void wait_for(u32 cpu, u64 token)
{
    const volatile struct report *report = report_of(cpu);
    cli();
    while (report->ticks < token) {
        sti_hlt();
        cli();
    }
    if (report->ticks > token)
        fail("an IPI came twice");
}

static void pass_on(u32 cpu)
{
    apic_send(cpu + 1 < cpus ? cpu + 1 : 0, ICR_FIXED | VECTOR_IPI);
}

static void ring_ap(u32 cpu)
{
    for (u64 token = 1; token <= rounds; token++) {
        wait_for(cpu, token);
        pass_on(cpu);
    }
    report_of(cpu)->state = STATE_DONE;
}

void image_main(void)
{
    rounds = param_u64("rounds", 1000);
    if (rounds < 1 || rounds > MAX_ROUNDS)
        fail("rounds is not in 1..100000000");
    cpus = cpus_wanted(2);
    if (cpus < 2 || cpus > 8)
        fail("cpus is not in 2..8");
    apic_choose();
    set_gate(VECTOR_IPI, ipi_entry);
    apic_open();
    start_aps(cpus, ring_ap);
    for (u64 token = 1; token <= rounds; token++) {
        pass_on(0);
        wait_for(0, token);
    }
    report_of(0)->state = STATE_DONE;
    put("ipi: cpus=");
    put_u64(cpus);
    put(" rounds=");
    put_u64(rounds);
    put(" ok\n");
}
