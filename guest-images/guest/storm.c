/*
 * What a guest does wrong, or too often, or both; and whether its timers and
 * interrupts work afterwards. With `idle=` it halts for so long behind that, so
 * that its monitor can be watched. Owns the choice of the storm.
 */
/* Nothing here is in a hurry, and an image has little room. */
#pragma GCC optimize("Os")

#include "storm.h"

const char image_name[] = "storm";

#define TICKS 10
#define LVT_MASKED 0x10000
#define IDLE_MOST 60000

u32 storm_cpus;

static const struct storm {
    const char *name;
    void (*run)(u64 count);
    u64 count;
} storms[] = {
    {"init", storm_init, 10000},     {"nmi", storm_nmi, 5000},
    {"self", storm_self, 100000},    {"modes", storm_modes, 2000},
    {"nobody", storm_nobody, 12000}, {"mmio", storm_mmio, 10000},
    {"lines", storm_lines, 4000},
};

/* Xorshift. */
u32 storm_random(void)
{
    static u32 state = 2463534242u;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

/* Each ends a halt, so that a timer which does not come leaves the guest asleep:
 * the monitor's time limit says so. */
static void timer_ticks(void)
{
    cli();
    log_clear();
    for (u32 i = 0; i < TICKS; i++) {
        apic_timer_once(1000000, VECTOR_TIMER);
        while (log_count(0) <= i) {
            sti_hlt();
            cli();
        }
    }
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    check_is("timer-ticks-afterwards", log_count(0), TICKS);
    log_clear();
}

static void ipis_arrive(void)
{
    for (u32 cpu = 0; cpu < storm_cpus; cpu++) {
        apic_send(cpu, ICR_FIXED | 0x50);
        check_cpus("ipi-arrives-afterwards", storm_cpus, 1u << cpu, "50");
    }
}

static const struct storm *chosen(void)
{
    for (u32 i = 0; i < sizeof(storms) / sizeof(storms[0]); i++)
        if (param_is("storm", storms[i].name))
            return &storms[i];
    fail("storm= is none of init, nmi, self, modes, nobody, mmio, lines");
}

void image_main(void)
{
    const struct storm *storm = chosen();
    u64 idle = param_u64("idle", 0);
    storm_cpus = cpus_wanted(1);
    if (storm_cpus > STORM_CPUS_MOST)
        fail("cpus is not in 1..8");
    if (idle > IDLE_MOST)
        fail("idle is above 60000");
    apic_choose();
    irq_open();
    apic_open();
    start_aps(storm_cpus, serve);
    storm->run(param_u64("count", storm->count));
    irq_hook = NULL;
    timer_ticks();
    ipis_arrive();
    if (idle) {
        put("storm: halts\n");
        idle_us(idle * 1000);
        put("storm: is back\n");
    }
    check_end();
}
