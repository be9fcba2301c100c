/*
 * Ticks: every vCPU arms its APIC timer on one absolute grid of TSC values and
 * notes how late each interrupt was. Owns the choice of the timer mode and the
 * arithmetic of the grid; the ticking itself is tick_entry.S.
 */
#include "tick.h"

const char image_name[] = "tick";

#define LVT_ONESHOT 0x00000
#define LVT_PERIODIC 0x20000
#define LVT_DEADLINE 0x40000
#define LVT_MASKED 0x10000

#define MAX_HZ 100000
#define MAX_SECS 1000000

enum mode { DEADLINE, ONESHOT, PERIODIC };

/* Written by vCPU 0 before it starts the others, then only read. */
static enum mode mode;
static u64 hz, target, period, phase, ratio, khz, periodic_count;
static u32 cpus;

/* Counts vCPUs that are done; each adds its own bit. */
static volatile u64 done;

static enum mode choose_mode(void)
{
    bool has_deadline = (cpuid(1).ecx >> 24) & 1;
    if (param_is("mode", "oneshot"))
        return ONESHOT;
    if (param_is("mode", "periodic"))
        return PERIODIC;
    if (param_is("mode", "deadline")) {
        if (!has_deadline)
            fail("mode=deadline, but CPUID.1:ECX[24] is clear");
        return DEADLINE;
    }
    return has_deadline ? DEADLINE : ONESHOT;
}

static void choose(void)
{
    u64 tsc = tsc_hz(), timer = apic_timer_hz(), secs = param_u64("secs", 0);
    if (tsc == 0)
        fail("the TSC frequency is unknown");
    hz = param_u64("hz", 100);
    if (hz < 1 || hz > MAX_HZ)
        fail("hz is not in 1..100000");
    if (secs > MAX_SECS)
        fail("secs is above 1000000");
    mode = choose_mode();
    target = secs * hz;
    khz = tsc / 1000;
    period = tsc / hz;
    ratio = (timer << 32) / tsc;
    periodic_count = (timer + hz / 2) / hz;
    if (mode == PERIODIC)
        /* What the rounded count really lasts, or lateness would drift. */
        period = periodic_count * (tsc / 1000) / (timer / 1000);
    u64 ns = param_u64("phase", 0);
    phase = ns < 1000000000ul ? ns * khz / 1000000 % period : 0;
    apic_choose();
}

static const void *handler(void)
{
    switch (mode) {
    case DEADLINE:
        return apic_is_x2 ? tick_deadline_x2apic : tick_deadline_xapic;
    case ONESHOT:
        return apic_is_x2 ? tick_oneshot_x2apic : tick_oneshot_xapic;
    default:
        return apic_is_x2 ? tick_periodic_x2apic : tick_periodic_xapic;
    }
}

/* The first point of the grid that is not nearer than a tenth of a period. */
static u64 first_deadline(void)
{
    u64 now = rdtsc() + period / 10;
    return (now - phase + period) / period * period + phase;
}

static void arm(volatile struct report *report)
{
    u64 next = first_deadline();
    switch (mode) {
    case DEADLINE:
        report->next = next;
        apic_write(APIC_LVT_TIMER, LVT_DEADLINE | VECTOR_TIMER);
        /* In xAPIC mode the LVT store must be done before the MSR write. */
        __asm__ volatile("mfence" : : : "memory");
        wrmsr(MSR_TSC_DEADLINE, next);
        break;
    case ONESHOT:
        report->next = next;
        apic_write(APIC_LVT_TIMER, LVT_ONESHOT | VECTOR_TIMER);
        apic_write(APIC_TMICT, (u32)(((next - rdtsc()) * ratio >> 32) + 1));
        break;
    case PERIODIC:
        /* The grid starts where the timer does. */
        while (rdtsc() < next - period / 20)
            barrier();
        apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VECTOR_TIMER);
        report->next = rdtsc() + period;
        apic_write(APIC_TMICT, (u32)periodic_count);
        break;
    }
}

static void tick_on(u32 cpu)
{
    volatile struct report *report = report_of(cpu);
    report->tsc_khz = khz;
    report->period = period;
    report->ratio = ratio;
    if (!param_is("eoi", "plain"))
        pv_eoi_open(report);
    arm(report);
    tick_idle(target);
    apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
    report->state = STATE_DONE;
    __asm__ volatile("lock orq %1, %0" : "+m"(done) : "r"(1ul << cpu) : "memory");
}

static void put_us(const char *label, u64 cycles)
{
    put(label);
    put_tenths(cycles * 10000 / khz);
}

/* The upper edge of the bucket in which `permille` of the ticks are reached. */
static u64 quantile(const volatile struct report *report, u64 permille)
{
    u64 rank = (report->ticks * permille + 999) / 1000, seen = 0;
    for (u64 i = 0; i < HIST_BUCKETS; i++) {
        seen += report->hist[i];
        if (seen >= rank) {
            u64 octave = i >> HIST_SUB_BITS ? (i >> HIST_SUB_BITS) - 1 : 0;
            u64 top = ((i - (octave << HIST_SUB_BITS) + 1) << octave) - 1;
            return top < report->max ? top : report->max;
        }
    }
    return report->max;
}

static void print(u32 cpu)
{
    const volatile struct report *report = report_of(cpu);
    put("tick: cpu");
    put_u64(cpu);
    put(" ticks=");
    put_u64(report->ticks);
    put(" early=");
    put_u64(report->early);
    if (mode == PERIODIC) {
        put(" lost=");
        put_u64(report->lost);
    }
    put_us(" p50_us=", quantile(report, 500));
    put_us(" p99_us=", quantile(report, 990));
    put_us(" max_us=", report->max);
    put("\n");
}

void image_main(void)
{
    choose();
    cpus = cpus_wanted(1);
    set_gate(VECTOR_TIMER, handler());
    apic_open();
    start_aps(cpus, tick_on);
    tick_on(0);
    u64 all = ~0ul >> (64 - cpus);
    while (done != all)
        barrier();
    for (u32 cpu = 0; cpu < cpus; cpu++)
        print(cpu);
}
