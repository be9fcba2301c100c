/*
 * What ends a HLT: with IF=0 only an NMI, with IF=1 an interrupt that was
 * pending before it. Prints which of the checks failed. A timer stands behind
 * each HLT that must not sleep, so that a failure ends instead of hanging.
 */
#include "kernel.h"

const char image_name[] = "halt";

#define PATIENCE_NS 1000000000ul
#define PAUSE_CYCLES 60000000ul
#define NMI_CYCLES 6000000000ul

extern const u8 nmi_entry[], timeout_entry[];

/* Each is written by the vCPU named and read by the other, in x86 order. */
volatile u64 nmis;              /* vCPU 0: NMIs taken */
volatile u64 timeouts;          /* vCPU 0: HLTs that slept */
static volatile u64 halting;    /* vCPU 0: about to HLT with IF=0 */
static volatile u64 awake;      /* vCPU 0: after that HLT */
static volatile u64 fixed_woke; /* vCPU 1: the fixed IPI ended that HLT */
static volatile u64 nmi_sent;   /* vCPU 1 */

static void pending_interrupt_ends_halt(void)
{
    volatile struct report *report = report_of(0);
    u64 before = report->ticks;
    cli();
    apic_timer_once(PATIENCE_NS, VECTOR_TIMER);
    apic_send(0, ICR_FIXED | VECTOR_IPI);
    if (report->ticks != before)
        fail("an interrupt was taken with IF=0");
    sti_hlt();
    cli();
    if (timeouts)
        fail("HLT slept with an interrupt pending");
    if (report->ticks != before + 1)
        fail("HLT ended without its interrupt");
    apic_write(APIC_TMICT, 0);
}

static void self_nmi_is_taken(void)
{
    u64 before = nmis;
    cli();
    apic_send(0, ICR_NMI);
    if (!wait_tsc(NMI_CYCLES, &nmis, before + 1))
        fail("an NMI to itself did not arrive with IF=0");
    if (nmis != before + 1)
        fail("an NMI came twice");
}

static void other_vcpu(u32 cpu)
{
    (void)cpu;
    u64 never = 0;
    wait_tsc(~0ul, &halting, 1);
    wait_tsc(PAUSE_CYCLES, &never, 1);
    apic_send(0, ICR_FIXED | VECTOR_IPI);
    wait_tsc(PAUSE_CYCLES, &never, 1);
    fixed_woke = awake;
    nmi_sent = 1;
    /* Again where vCPU 0 took it before it came to its HLT. */
    do
        apic_send(0, ICR_NMI);
    while (!wait_tsc(NMI_CYCLES, &awake, 1));
    report_of(1)->state = STATE_DONE;
}

static void only_nmi_ends_halt_with_if_clear(void)
{
    volatile struct report *report = report_of(0);
    u64 taken = report->ticks, nmis_before = nmis;
    cli();
    halting = 1;
    hlt();
    awake = 1;
    if (!nmi_sent)
        fail("a fixed interrupt ended HLT with IF=0");
    if (fixed_woke)
        fail("HLT with IF=0 ended before its NMI");
    if (nmis == nmis_before)
        fail("HLT with IF=0 ended without its NMI");
    if (report->ticks != taken)
        fail("an interrupt was taken with IF=0");
    sti();
    if (!wait_tsc(NMI_CYCLES, &report->ticks, taken + 1))
        fail("the interrupt posted during HLT was lost");
    cli();
}

void image_main(void)
{
    u32 cpus = cpus_wanted(1);
    if (cpus > 2)
        fail("cpus is not in 1..2");
    apic_choose();
    set_gate(VECTOR_NMI, nmi_entry);
    set_gate(VECTOR_TIMER, timeout_entry);
    set_gate(VECTOR_IPI, ipi_entry);
    apic_open();
    pending_interrupt_ends_halt();
    self_nmi_is_taken();
    if (cpus == 2) {
        start_aps(2, other_vcpu);
        only_nmi_ends_halt_with_if_clear();
    }
    report_of(0)->state = STATE_DONE;
    put("halt: ok\n");
}
