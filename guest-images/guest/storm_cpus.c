/*
 * Storms between CPUs: INIT, with and without what follows it, and NMI.
 */
/* Nothing here is in a hurry, and an image has little room. */
#pragma GCC optimize("Os")

#include "probe.h"
#include "storm.h"

#define UNUSED_PORT 0x80
#define STRING_BYTES 64
#define KINDS 8
#define QUESTION 0x51
/* Of so many INITs one meets a CPU that was started properly. */
#define PROPER 64
/* Real-mode code of one instruction, IRET. */
#define IRET_AT (PROBE_PAGE + 0xff0)
#define IRET 0xcf

/* What an INIT interrupts: accesses that leave the guest, some of them half done. */
static void busy(u32 cpu)
{
    static u8 bytes[STRING_BYTES];
    for (;;) {
        const u8 *from = bytes;
        u64 count = STRING_BYTES;
        __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(UNUSED_PORT) : "memory");
        (void)inb(UNUSED_PORT);
        (void)apic_read(APIC_TMCCT);
        apic_send(cpu, ICR_FIXED | 0x51);
        apic_timer_once(1000, VECTOR_TIMER);
        sti();
        cli();
    }
}

/* An NMI that meets a CPU in real mode is taken by the interrupt table at 0. */
static void take_nmis_in_real_mode(void)
{
    u64 entry = 4 * VECTOR_NMI;
    __asm__("" : "+r"(entry));
    *(volatile u32 *)entry = (PROBE_PAGE >> 4) << 16 | (IRET_AT - PROBE_PAGE);
    *(volatile u8 *)IRET_AT = IRET;
}

static void blow(u32 victim, u32 kind)
{
    switch (kind) {
    case 1:
        apic_send(victim, ICR_NMI);
        break;
    case 2:
        apic_send(victim, ICR_FIXED | 0x52);
        break;
    case 3:
        apic_send(victim, ICR_SIPI | PROBE_OTHER_PAGE >> 12);
        break;
    }
    apic_send(victim, ICR_INIT);
    if (kind >= 4)
        apic_send(victim, ICR_SIPI | PROBE_PAGE >> 12);
    if (kind == 5)
        apic_send(victim, ICR_SIPI | PROBE_OTHER_PAGE >> 12);
    if (kind == 6)
        pause_us(20);
    if (kind == 7)
        apic_send(victim, ICR_FIXED | 0x53);
}

void storm_init(u64 count)
{
    u32 victim = storm_cpus - 1, unanswered = 0;
    if (!victim)
        fail("storm=init needs two vCPUs");
    probe_at(PROBE_PAGE);
    probe_at(PROBE_OTHER_PAGE);
    take_nmis_in_real_mode();
    for (u64 i = 0; i < count; i++) {
        blow(victim, storm_random() % KINDS);
        if (i % PROPER == 0)
            unanswered += !start_ap(victim, busy);
    }
    check_is("cpu-answers-amidst-the-storm", unanswered, 0);
    check("cpu-was-started-by-some-sipis", count_at(PROBE_PAGE) != 0);
    check("cpu-starts-after-the-storm", start_ap(victim, serve));
    pause_us(1000);
}

/* By CPU: NMIs taken, and questions answered, counted by who takes them. How many
 * NMIs CPU 1 is to have sent, and has. */
static volatile u64 taken[STORM_CPUS_MOST], answers[STORM_CPUS_MOST];
static volatile u64 wanted, sent;

static void on_nmi(u32 vector)
{
    if (vector == VECTOR_NMI) {
        taken[cpu_index()]++;
        return;
    }
    answers[cpu_index()] += vector == QUESTION;
    if (vector != VECTOR_SPURIOUS)
        apic_eoi();
}

static void send_back(u32 cpu)
{
    for (; sent < wanted; sent++)
        apic_send(0, ICR_NMI);
    serve(cpu);
}

/* Whether it answers a fixed interrupt, twice: behind the first one it may still have
 * an NMI that waited for another's IRET. */
static bool is_quiet(u32 cpu)
{
    bool came = true;
    for (u32 i = 0; i < 2; i++) {
        u64 before = answers[cpu];
        apic_send(cpu, ICR_FIXED | QUESTION);
        sti();
        for (u64 start = rdtsc(); answers[cpu] == before && came;)
            came = !is_over(start, 5000000);
        cli();
    }
    return came;
}

static u64 one_more(u32 cpu)
{
    u64 before = taken[cpu];
    apic_send(cpu, ICR_NMI);
    is_quiet(cpu);
    return taken[cpu] - before;
}

void storm_nmi(u64 count)
{
    u32 other = storm_cpus > 1 ? 1 : 0;
    irq_hook = on_nmi;
    wanted = count;
    if (other && !start_ap(other, send_back))
        fail("CPU 1 did not answer INIT and SIPI");
    for (u64 i = 0; i < count; i++)
        apic_send(other, ICR_NMI);
    for (u64 start = rdtsc(); other && sent < wanted;)
        if (is_over(start, 20000000))
            fail("CPU 1 does not come to its end");
    for (u32 cpu = 0; cpu <= other; cpu++) {
        check("cpu-answers-behind-its-nmis", is_quiet(cpu));
        check_range("nmis-are-as-many-as-sent-at-most", taken[cpu], 1, count);
        check_is("nmi-comes-once-after-the-storm", one_more(cpu), 1);
    }
}
