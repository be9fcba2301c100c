/*
 * The I/O APIC: registers, and the PIT's edge through it (Intel 82093AA
 * datasheet; version 0x20 is that of the ICH's). Levels come from the clock's
 * alarm line where it can be made one.
 */
#include "legacy.h"

const char image_name[] = "ioapic";

static void registers(void)
{
    u32 version = ioapic_read(IOAPIC_VERSION);
    check("version-is-11-or-20", (version & 0xff) == 0x11 || (version & 0xff) == 0x20);
    check_is("has-24-pins", ioapic_pins(), 24);
    *(volatile u32 *)IOAPIC_BASE = 0x17;
    check_is("index-reads-back", *(volatile u32 *)IOAPIC_BASE & 0xff, 0x17);
    ioapic_write(IOAPIC_VERSION, 0xffffffff);
    check_is("version-is-read-only", ioapic_read(IOAPIC_VERSION), version);
    ioapic_write(IOAPIC_ID, 0xffffffff);
    check_is("id-has-four-bits", ioapic_read(IOAPIC_ID), 0x0f000000);
    ioapic_write(IOAPIC_ID, 0);
    check_is("id-is-set", ioapic_read(IOAPIC_ID), 0);
    for (u32 pin = 0; pin < 24; pin += 23) {
        ioapic_set(pin, IOAPIC_MASKED | 0xafff, 0x5a);
        check_is("entry-keeps-its-bits", ioapic_get(pin) & ~0x5000u, 0x1afff);
        check_is("entry-delivery-status-is-read-only", ioapic_get(pin) & 0x5000, 0);
        check_is("entry-keeps-its-destination", ioapic_read(0x11 + 2 * pin) >> 24, 0x5a);
        ioapic_write(0x10 + 2 * pin, 0xffffffff);
        check_is("entry-remote-irr-is-read-only", ioapic_get(pin) & IOAPIC_REMOTE_IRR, 0);
        ioapic_set(pin, IOAPIC_MASKED, 0);
    }
    check_is("absent-register-reads-the-same", ioapic_read(0x10 + 2 * 24) == ioapic_read(0xff), 1);
}

static void edges(void)
{
    u32 pin = ioapic_pit_pin;
    log_clear();
    ioapic_set(pin, 0x31, 0);
    irq0_raise();
    take(1);
    check_log("edge-is-delivered", 0, "31");
    take(1);
    check_log("edge-comes-once", 0, "31");
    irq0_raise();
    irq0_raise();
    check("edge-waits-in-irr", wait_irr(0x31, 1000000));
    check("edge-sets-no-tmr", !vector_bit(APIC_TMR, 0x31));
    check_is("edge-has-no-remote-irr", ioapic_get(pin) & IOAPIC_REMOTE_IRR, 0);
    take(2);
    check_log("edges-merge", 0, "31 31");
    ioapic_set(pin, IOAPIC_MASKED | 0x31, 0);
    log_clear();
    irq0_raise();
    take(0);
    check_log("masked-edge-is-silent", 0, "");
    ioapic_set(pin, 0x31, 0);
    take(0);
    check("masked-edge-is-lost-or-kept-once", log_count(0) <= 1);
    log_clear();
    ioapic_set(pin, 0x32, 0);
    irq0_raise();
    take(1);
    check_log("vector-changes", 0, "32");
    ioapic_set(pin, 0x33, 9);
    log_clear();
    irq0_raise();
    take(0);
    check_log("absent-destination-gets-nothing", 0, "");
}

static void modes(u32 cpus)
{
    u32 pin = ioapic_pit_pin, all = (1u << cpus) - 1;
    log_clear();
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        ioapic_set(pin, 0x40 + cpu, (u8)cpu);
        irq0_raise();
        char want[3] = {'4', (char)('0' + cpu), 0};
        check_cpus("physical-destination", cpus, 1u << cpu, want);
    }
    ioapic_set(pin, 0x50, 0xff);
    irq0_raise();
    check_cpus("physical-broadcast", cpus, all, "50");
    ioapic_set(pin, 0x400, 0);
    irq0_raise();
    check_cpus("nmi", cpus, 1, "02");
    ioapic_set(pin, 0x851, (u8)all);
    irq0_raise();
    check_cpus("logical-destination", cpus, all, "51");
    ioapic_set(pin, 0x962, (u8)all);
    log_total = 0;
    irq0_raise();
    sti();
    u64 start = rdtsc();
    while (!log_total && !is_over(start, 100000))
        barrier();
    pause_us(2000);
    cli();
    check_is("lowest-priority-total", log_total, 1);
    log_clear();
    ioapic_set(pin, IOAPIC_MASKED, 0);
}

/* The PIT's output stays high after mode 0's end, so that its line is a level. */
static void count_levels(u32 vector)
{
    log_mark((ioapic_get(ioapic_pit_pin) & IOAPIC_REMOTE_IRR) ? 1 : 0);
    if (log_count(0) >= 6)
        ioapic_write(0x10 + 2 * ioapic_pit_pin, IOAPIC_MASKED | IOAPIC_LEVEL | vector);
    apic_eoi();
}

static void levels(void)
{
    u32 pin = ioapic_pit_pin;
    cli();
    outb(PIT_CONTROL, 0x30);
    log_clear();
    ioapic_set(pin, IOAPIC_LEVEL | 0x61, 0);
    irq_hook = count_levels;
    irq0_raise();
    wait_irr(0x61, 1000000);
    check("level-sets-tmr", vector_bit(APIC_IRR, 0x61) && vector_bit(APIC_TMR, 0x61));
    check_is("level-sets-remote-irr", ioapic_get(pin) & IOAPIC_REMOTE_IRR, IOAPIC_REMOTE_IRR);
    take(2);
    idle_us(20000);
    bool again = log_count(0) >= 6;
    for (u32 i = 0; i < 6; i++)
        again = again && log_at(0, i) == (i % 2 ? 0x01 : 0x61);
    check("level-comes-again-after-eoi", again);
    check_is("eoi-clears-remote-irr", ioapic_get(pin) & IOAPIC_REMOTE_IRR, 0);
    outb(PIT_CONTROL, 0x30);
    log_clear();
    ioapic_set(pin, IOAPIC_LEVEL | 0x62, 0);
    take(0);
    check_log("low-level-is-silent", 0, "");
    ioapic_set(pin, IOAPIC_MASKED, 0);
    irq_hook = NULL;
}

static void serve_logical(u32 cpu)
{
    if (!apic_is_x2) {
        apic_write(APIC_DFR, 0xffffffff);
        apic_write(APIC_LDR, 1u << (24 + cpu));
    }
    if (cpu)
        serve(cpu);
}

void image_main(void)
{
    u32 cpus = cpus_wanted(1);
    if (cpus > 8)
        fail("cpus is not in 1..8");
    apic_choose();
    irq_open();
    apic_open();
    check("present", ioapic_is_there());
    if (!ioapic_is_there())
        check_end();
    ioapic_mask_all();
    registers();
    check("pit-is-on-pin-0-or-2", ioapic_find_pit());
    edges();
    start_aps(cpus, serve_logical);
    serve_logical(0);
    modes(cpus);
    levels();
    check_end();
}
