/*
 * Interrupts between CPUs: every delivery mode, destination mode and shorthand
 * of the ICR (SDM vol. 3A, "Issuing Interprocessor Interrupts").
 */
#include "check.h"

const char image_name[] = "ipis";

#define VECTOR_LDR 0x21
#define ROUNDS 10

/* Written by CPU 0, then only read. */
static u32 cpus, all;

/* Which LDR and DFR the CPUs take when VECTOR_LDR arrives. */
enum model { FLAT, CLUSTER };
static volatile enum model model;

static void set_logical_id(void)
{
    u32 cpu = cpu_index();
    if (apic_is_x2)
        return;
    apic_write(APIC_DFR, model == FLAT ? 0xffffffff : 0x0fffffff);
    apic_write(APIC_LDR, model == FLAT ? 1u << (24 + cpu) : (cpu / 2) << 28 | 1u << (24 + cpu % 2));
}

static void on_ipi(u32 vector)
{
    if (vector == VECTOR_LDR)
        set_logical_id();
    if (vector != VECTOR_NMI && vector != VECTOR_SPURIOUS)
        apic_eoi();
}

static void all_take(enum model wanted)
{
    model = wanted;
    apic_send(0, ICR_FIXED | ICR_ALL | VECTOR_LDR);
    sti();
    for (u32 cpu = 0; cpu < cpus; cpu++)
        wait_log(cpu, 1);
    cli();
    log_clear();
}

static void physical(void)
{
    u32 broadcast = apic_is_x2 ? 0xffffffff : 0xff;
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        apic_send(cpu, ICR_FIXED | (0x50 + cpu));
        char want[3] = {'5', (char)('0' + cpu), 0};
        check_cpus("physical-one", cpus, 1u << cpu, want);
    }
    apic_send(0x30, ICR_FIXED | 0x50);
    check_cpus("physical-nobody", cpus, 0, "");
    apic_send(broadcast, ICR_FIXED | 0x51);
    check_cpus("physical-broadcast", cpus, all, "51");
    apic_send(cpus - 1, ICR_LOWEST | 0x52);
    check_cpus("physical-lowest-priority", cpus, 1u << (cpus - 1), "52");
    /* Level-triggered and asserted: taken as an edge by processors since the Pentium 4. */
    apic_send(cpus - 1, ICR_FIXED | 0x53);
    apic_send(cpus - 1, ICR_FIXED | 0x43);
    check("two-arrive", wait_log(cpus - 1, cpus > 1 ? 2 : 0));
    take(cpus > 1 ? 0 : 2);
    log_clear();
}

static void shorthands(void)
{
    apic_send(0, ICR_FIXED | ICR_SELF | 0x54);
    check_cpus("shorthand-self", cpus, 1, "54");
    apic_send(0, ICR_FIXED | ICR_ALL | 0x55);
    check_cpus("shorthand-all", cpus, all, "55");
    apic_send(0, ICR_FIXED | ICR_OTHERS | 0x56);
    check_cpus("shorthand-others", cpus, all & ~1u, "56");
    apic_send(0x30, ICR_FIXED | ICR_LOGICAL | ICR_OTHERS | 0x57);
    check_cpus("shorthand-ignores-the-destination", cpus, all & ~1u, "57");
}

static void lowest_priority(u32 destination)
{
    u32 total = 0;
    log_total = 0;
    for (u32 i = 0; i < ROUNDS; i++) {
        apic_send(destination, ICR_LOWEST | ICR_LOGICAL | 0x58);
        /* One at a time: two of a vector may merge. */
        sti();
        u64 start = rdtsc();
        while (log_total <= i && !is_over(start, 100000))
            barrier();
        cli();
    }
    sti();
    pause_us(2000);
    cli();
    for (u32 cpu = 0; cpu < cpus; cpu++)
        total += log_count(cpu);
    check_is("lowest-priority-total", total, ROUNDS);
    log_clear();
}

static void logical(const char *one, const char *several, const char *everyone)
{
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        apic_send(1u << cpu, ICR_FIXED | ICR_LOGICAL | 0x60);
        check_cpus(one, cpus, 1u << cpu, "60");
    }
    apic_send(all & 0xa5, ICR_FIXED | ICR_LOGICAL | 0x61);
    check_cpus(several, cpus, all & 0xa5, "61");
    apic_send(apic_is_x2 ? 0xffffffff : 0xff, ICR_FIXED | ICR_LOGICAL | 0x62);
    check_cpus(everyone, cpus, all, "62");
    apic_send(0, ICR_FIXED | ICR_LOGICAL | 0x63);
    check_cpus("logical-nobody", cpus, 0, "");
}

static void clusters(void)
{
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        apic_send((cpu / 2) << 4 | 1u << cpu % 2, ICR_FIXED | ICR_LOGICAL | 0x64);
        check_cpus("cluster-one", cpus, 1u << cpu, "64");
    }
    apic_send(0x13, ICR_FIXED | ICR_LOGICAL | 0x65);
    check_cpus("cluster-both", cpus, all & 0xc, "65");
    apic_send(0xe3, ICR_FIXED | ICR_LOGICAL | 0x66);
    check_cpus("cluster-absent", cpus, 0, "");
    apic_send(0xff, ICR_FIXED | ICR_LOGICAL | 0x67);
    check_cpus("cluster-broadcast", cpus, all, "67");
}

static void nmis(void)
{
    u32 last = cpus - 1;
    apic_send(last, ICR_NMI);
    check_cpus("nmi-one", cpus, 1u << last, "02");
    apic_send(0, ICR_NMI | 0x77);
    check_cpus("nmi-to-itself-ignores-the-vector", cpus, 1, "02");
    apic_send(0, ICR_NMI | ICR_OTHERS);
    check_cpus("nmi-others", cpus, all & ~1u, "02");
    apic_send(all & 6, ICR_NMI | ICR_LOGICAL);
    check_cpus("nmi-logical", cpus, all & 6, "02");
}

static void registers(void)
{
    apic_send(0, ICR_FIXED | ICR_SELF | 0x68);
    take(1);
    log_clear();
    check_is("icr-keeps-the-command", apic_read(APIC_ICR), ICR_FIXED | ICR_SELF | 0x68);
    if (!apic_is_x2) {
        apic_write(APIC_ICR_HIGH, 0xffffffff);
        check_is("icr-high-keeps-eight-bits", apic_read(APIC_ICR_HIGH), 0xff000000);
        check_cpus("icr-high-sends-nothing", cpus, 0, "");
    }
}

static void init(void)
{
    u32 last = cpus - 1;
    apic_send(last, ICR_SIPI | TRAMPOLINE >> 12);
    apic_send(last, ICR_FIXED | 0x70);
    check_cpus("sipi-leaves-a-running-cpu-alone", cpus, 1u << last, "70");
    apic_send(last, 0x8500);
    apic_send(last, ICR_FIXED | 0x71);
    check_cpus("init-deassert-does-nothing", cpus, 1u << last, "71");
    apic_send(last, ICR_INIT);
    pause_us(1000);
    apic_send(last, ICR_FIXED | 0x72);
    check_cpus("init-stops-a-cpu", cpus, 0, "");
    check("sipi-starts-it-again", start_ap(last, serve));
    pause_us(1000);
    apic_send(last, ICR_FIXED | 0x73);
    check_cpus("restarted-cpu-takes-interrupts", cpus, 1u << last, "73");
}

void image_main(void)
{
    cpus = cpus_wanted(2);
    if (cpus > 8)
        fail("cpus is not in 1..8");
    all = (1u << cpus) - 1;
    apic_choose();
    irq_open();
    irq_hook = on_ipi;
    apic_open();
    start_aps(cpus, serve);
    physical();
    shorthands();
    all_take(FLAT);
    logical("logical-one", "logical-several", "logical-broadcast");
    lowest_priority(all);
    nmis();
    if (!apic_is_x2) {
        all_take(CLUSTER);
        clusters();
    }
    registers();
    if (cpus > 1)
        init();
    check_end();
}
