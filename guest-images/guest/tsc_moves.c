/*
 * A TSC that is moved: IA32_TSC_ADJUST and IA32_TIME_STAMP_COUNTER (SDM vol. 3B,
 * "Time-Stamp Counter Adjustment"), and the APIC timer's deadline (vol. 3A,
 * "TSC-Deadline Mode"), which is one of this counter. Ends where it began.
 */
#include "check.h"
#include "kvmclock.h"

#define LVT_MASKED 0x10000
#define LVT_DEADLINE 0x40000
#define LEAF_FEATURES 7
#define TSC_ADJUST_BIT 1
/* Far more cycles than a check takes. */
#define FAR (1ul << 42)
#define MOVES 200

/* Of the CPU that checks: when its deadline fired, by its own TSC. */
static volatile u64 fired_at;
/* In cycles: set once. */
static u64 millisecond;

static void on_timer(u32 vector)
{
    if (vector == VECTOR_TIMER)
        fired_at = rdtsc();
    if (vector != VECTOR_NMI && vector != VECTOR_SPURIOUS)
        apic_eoi();
}

static void shift(u64 by)
{
    wrmsr(MSR_TSC_ADJUST, rdmsr(MSR_TSC_ADJUST) + by);
}

/* Some hosts have their guests read the host's counter, whatever CPUID says. */
static bool tsc_moves(void)
{
    u64 before = rdtsc();
    wrmsr(MSR_TSC_ADJUST, FAR);
    bool moved = rdtsc() - before > FAR / 2;
    wrmsr(MSR_TSC_ADJUST, 0);
    return moved;
}

static void adjusting(void)
{
    check_is("tsc-adjust-begins-at-zero", rdmsr(MSR_TSC_ADJUST), 0);
    u64 before = rdtsc();
    wrmsr(MSR_TSC_ADJUST, FAR);
    u64 moved = rdtsc();
    check("tsc-adjust-forward-adds-its-difference", moved - before - FAR < FAR / 2);
    check_is("tsc-adjust-reads-back", rdmsr(MSR_TSC_ADJUST), FAR);
    wrmsr(MSR_TSC_ADJUST, FAR + 1);
    check("tsc-adjust-counts-the-difference-alone", rdtsc() - moved < FAR / 2);
    wrmsr(MSR_TSC_ADJUST, -before);
    check("tsc-adjust-backward-takes-its-difference", rdtsc() < FAR / 2);
    wrmsr(MSR_TSC_ADJUST, 0);
    check("tsc-adjust-zero-is-where-it-began", rdtsc() - before < FAR / 2);
}

/* What each move adds or loses would add up, beside a clock that is not moved. */
static void many_moves(void)
{
    u64 before[2], after[2], ratio = apic_timer_hz() / 1000000;
    apic_write(APIC_TMICT, ~0u);
    before[0] = rdtsc();
    u64 first = apic_read(APIC_TMCCT);
    before[1] = rdtsc();
    for (u32 i = 0; i < MOVES; i++) {
        wrmsr(MSR_TSC_ADJUST, FAR + i);
        wrmsr(MSR_TSC_ADJUST, 0);
    }
    after[0] = rdtsc();
    u64 last = apic_read(APIC_TMCCT);
    after[1] = rdtsc();
    apic_write(APIC_TMICT, 0);
    u64 cycles = (first - last) / ratio * millisecond / 1000, share = cycles / 100;
    check("tsc-adjust-many-moves-leave-no-error",
          cycles + share >= after[0] - before[1] && cycles <= after[1] - before[0] + share);
}

/* The counter's value at the moment of a write is what was written less what the
 * write added to IA32_TSC_ADJUST: it lies between the readings around it. */
static void writing(u64 value)
{
    u64 adjust = rdmsr(MSR_TSC_ADJUST), before = rdtsc();
    wrmsr(MSR_TSC, value);
    u64 after = rdtsc(), added = rdmsr(MSR_TSC_ADJUST) - adjust, then = value - added;
    check("tsc-write-goes-on-from-its-value", after - value < FAR / 2);
    check("tsc-write-moves-adjust-by-as-much",
          then - before < FAR / 2 && after - added - then < FAR / 2);
}

static void arm(u64 deadline)
{
    fired_at = 0;
    log_clear();
    apic_write(APIC_LVT_TIMER, LVT_DEADLINE | VECTOR_TIMER);
    __asm__ volatile("mfence" : : : "memory");
    wrmsr(MSR_TSC_DEADLINE, deadline);
}

/* Has fired, once, and not before the TSC had that value. */
static bool fired(u64 deadline)
{
    take(1);
    return log_count(cpu_index()) == 1 && fired_at - deadline < FAR / 2 &&
           rdmsr(MSR_TSC_DEADLINE) == 0;
}

static void armed_after(const char *name)
{
    u64 deadline = rdtsc() + 3 * millisecond;
    arm(deadline);
    check(name, fired(deadline));
}

static void armed_after_shifts(void)
{
    shift(FAR);
    armed_after("deadline-behind-a-forward-shift");
    shift(-(FAR / 2));
    armed_after("deadline-behind-a-backward-shift");
    wrmsr(MSR_TSC, 0);
    armed_after("deadline-behind-a-counter-of-zero");
    wrmsr(MSR_TSC, -millisecond);
    while (rdtsc() > FAR)
        barrier();
    armed_after("deadline-behind-a-counter-that-wrapped");
    wrmsr(MSR_TSC_ADJUST, 0);
}

/* A deadline that is `lead` away and is moved farther by as much. */
static bool postponed(u64 lead, bool halt)
{
    u64 deadline = rdtsc() + lead;
    arm(deadline);
    shift(-lead);
    while (halt && !fired_at) {
        sti_hlt();
        cli();
    }
    return fired(deadline);
}

/* Again with a longer lead where the CPU may have been away for the first. */
static void check_postponed(const char *name, bool halt)
{
    bool holds = false;
    for (u64 lead = 5; lead <= 500 && !holds; lead *= 10)
        holds = postponed(lead * millisecond, halt);
    check(name, holds);
    wrmsr(MSR_TSC_ADJUST, 0);
}

static bool waits(u64 deadline)
{
    sti();
    pause_us(10000);
    cli();
    return !log_count(cpu_index()) && rdmsr(MSR_TSC_DEADLINE) == deadline;
}

static void armed_before_shifts(void)
{
    u64 deadline = rdtsc() + FAR;
    arm(deadline);
    shift(FAR + FAR / 4);
    check("deadline-left-in-the-past-fires-at-once", fired(deadline));
    wrmsr(MSR_TSC_ADJUST, 0);
    check_postponed("deadline-is-postponed-by-a-backward-shift", false);
    check_postponed("deadline-is-postponed-in-a-halt", true);

    shift(FAR);
    deadline = rdtsc() + FAR / 4;
    arm(deadline);
    shift(-(FAR / 2));
    check("deadline-far-away-waits", waits(deadline));
    shift(FAR);
    check("deadline-comes-near-with-the-counter", fired(deadline));

    deadline = rdtsc() + FAR / 4;
    arm(deadline);
    wrmsr(MSR_TSC, 0);
    check("deadline-waits-for-a-counter-set-to-zero", waits(deadline));
    wrmsr(MSR_TSC, deadline);
    check("deadline-is-met-by-what-is-written", fired(deadline));
    wrmsr(MSR_TSC_ADJUST, 0);
}

/* Each move, and its way back, leaves KVM's clock where it was. */
static void clock_goes_on(void)
{
    u32 jumps = 0;
    for (u32 i = 0; i < 4; i++) {
        u64 before = kvmclock_ns();
        wrmsr(MSR_TSC_ADJUST, i % 2 ? 0 : FAR);
        jumps += kvmclock_ns() - before > 100000000000ul;
    }
    check_is("kvmclock-goes-on-while-the-tsc-moves", jumps, 0);
}

void tsc_moves_open(u64 hz)
{
    if (!hz)
        fail("the TSC frequency is unknown");
    millisecond = hz / 1000;
}

static bool is_offered(void)
{
    return cpuid(0).eax >= LEAF_FEATURES && (cpuid(LEAF_FEATURES).ebx >> TSC_ADJUST_BIT) & 1;
}

static bool has_deadline(void)
{
    return (cpuid(1).ecx >> 24) & 1;
}

static void skip_all(const char *why)
{
    skipped("tsc-", why);
    skipped("kvmclock-goes-on", why);
    skipped("deadline", why);
}

static void moves(void)
{
    if (!is_offered()) {
        skip_all("IA32_TSC_ADJUST is not offered");
        return;
    }
    if (!tsc_moves()) {
        skip_all("the TSC does not move");
        return;
    }
    adjusting();
    many_moves();
    writing(1);
    writing(FAR);
    writing(-FAR);
    wrmsr(MSR_TSC_ADJUST, 0);
    if (kvmclock_ns())
        clock_goes_on();
    if (has_deadline()) {
        armed_after_shifts();
        armed_before_shifts();
    } else {
        skipped("deadline", "not offered");
    }
    wrmsr(MSR_TSC_ADJUST, 0);
}

void check_tsc_moves(void)
{
    irq_hook = on_timer;
    moves();
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    irq_hook = NULL;
}

void check_written_counter(void)
{
    if (!has_deadline()) {
        skipped("written-counter", "there is no deadline");
        return;
    }
    irq_hook = on_timer;
    wrmsr(MSR_TSC, 0);
    armed_after("written-counter-of-zero-fires-deadlines");
    wrmsr(MSR_TSC, FAR);
    armed_after("written-counter-fires-deadlines");
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    irq_hook = NULL;
}
