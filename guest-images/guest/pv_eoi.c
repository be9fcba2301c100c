/*
 * KVM's paravirtual end of interrupt: a bit in memory that the host sets when the
 * interrupt in service needs no EOI write, because nothing else is pending; the
 * guest clears it instead (KVM's MSR documentation, MSR_KVM_PV_EOI_EN).
 */
#include "check.h"

const char image_name[] = "pv-eoi";

#define FEATURE_PV_EOI 6

/* Bit 0 is set by the host, cleared by the guest. */
static volatile u32 word __attribute__((aligned(4)));
/* What the first handler found: written by it, then read. */
static volatile u32 found, found_later;

/* The way it is meant: true where the bit was set. */
static bool end_by_bit(void)
{
    bool was;
    __asm__ volatile("btrl $0, %0; setc %1" : "+m"(word), "=q"(was) : : "memory");
    return was;
}

static void end(u32 vector)
{
    found = word & 1;
    if (vector != VECTOR_NMI && !end_by_bit())
        apic_eoi();
}

static void request_then_end(u32 vector)
{
    if (log_count(0) > 1) {
        end(vector);
        return;
    }
    found = word & 1;
    self_ipi(0x41);
    pause_us(1000);
    found_later = word & 1;
    if (!end_by_bit())
        apic_eoi();
}

static void plain_end(u32 vector)
{
    (void)vector;
    found = word & 1;
    apic_eoi();
}

static void first_finds(u32 vector)
{
    u32 seen = word & 1;
    if (!end_by_bit())
        apic_eoi();
    if (vector == 0x61)
        found = seen;
}

static void run(void)
{
    irq_hook = end;
    self_ipi(0x50);
    take(1);
    check_is("bit-is-set-when-alone", found, 1);
    check("clearing-ends-the-service", !vector_bit(APIC_ISR, 0x50));
    self_ipi(0x50);
    take(2);
    check_log("same-vector-comes-again", 0, "50 50");
    check_is("ppr-is-clear", apic_read(APIC_PPR), 0);
    log_clear();
    irq_hook = first_finds;
    self_ipi(0x41);
    self_ipi(0x61);
    take(2);
    check_log("several-come-in-order", 0, "61 41");
    check_is("bit-is-clear-when-another-waits", found, 0);
    log_clear();
    irq_hook = request_then_end;
    self_ipi(0x61);
    take(2);
    check_log("later-request-comes-after-the-end", 0, "61 41");
    check_is("bit-is-set-before-a-later-request", found, 1);
    check_is("later-request-clears-the-bit", found_later, 0);
    log_clear();
    irq_hook = plain_end;
    self_ipi(0x50);
    take(1);
    self_ipi(0x50);
    take(2);
    check_log("written-eoi-is-one-too", 0, "50 50");
    check_is("written-eoi-leaves-no-bit", word & 1, 0);
}

void image_main(void)
{
    u64 value;
    apic_choose();
    irq_open();
    apic_open();
    if (!kvm_offers(FEATURE_PV_EOI)) {
        skipped("pv-eoi", "not offered");
        check_end();
    }
    check("address-must-be-aligned", !try_wrmsr(MSR_KVM_PV_EOI, (u64)&word | 3));
    check("msr-is-written", try_wrmsr(MSR_KVM_PV_EOI, (u64)&word | 1));
    check("msr-reads-back", try_rdmsr(MSR_KVM_PV_EOI, &value) && value == ((u64)&word | 1));
    run();
    wrmsr(MSR_KVM_PV_EOI, 0);
    log_clear();
    word = 0;
    irq_hook = plain_end;
    self_ipi(0x50);
    take(1);
    check_is("switched-off-sets-no-bit", found, 0);
    check_log("switched-off-serves", 0, "50");
    check_end();
}
