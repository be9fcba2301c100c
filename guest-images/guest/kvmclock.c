/*
 * KVM's clock: the page that it keeps for each CPU, and the time of day (KVM's
 * MSR documentation, MSR_KVM_SYSTEM_TIME_NEW and MSR_KVM_WALL_CLOCK_NEW). Then
 * the TSC that it is counted by (tsc_moves.c). Owns the pages and who works.
 */
#include "kvmclock.h"

#include "legacy.h"

const char image_name[] = "clock";

#define CPUS_MOST 8
#define READS 10000
#define READS_ACROSS 1000
#define HANDSHAKES 50
#define SECOND 1000000000ul
#define VECTOR_WORK 0x30
#define RTC_REG_A 0x0a
#define RTC_REG_D 0x0d
#define RTC_UIP 0x80

/* Of CPU i: written by the host before it enters that CPU, read by any. */
static volatile struct pvclock pages[CPUS_MOST] __attribute__((aligned(64)));
static struct {
    volatile u32 version, seconds, nanoseconds;
} wall __attribute__((aligned(4)));

/* Written by CPU 0, then only read. */
static u32 cpus;
static bool has_clock;

/* What CPU `worker` is to do: written by CPU 0, cleared by the worker. */
static void (*volatile work)(void);
static volatile u32 worker;

static u64 scaled(u64 cycles, u32 mul, int shift)
{
    cycles = shift < 0 ? cycles >> -shift : cycles << shift;
    return (u64)(((unsigned __int128)cycles * mul) >> 32);
}

/* By the protocol: an odd version, or another one afterwards, says that the rest
 * may be half written. */
static u64 read_clock(volatile struct pvclock *page)
{
    for (;;) {
        u32 version = page->version;
        barrier();
        u64 since = rdtsc() - page->tsc_timestamp;
        u64 time = page->system_time + scaled(since, page->tsc_to_system_mul, page->tsc_shift);
        barrier();
        if (!(version & 1) && page->version == version)
            return time;
    }
}

u64 kvmclock_ns(void)
{
    return has_clock ? read_clock(&pages[cpu_index()]) : 0;
}

static void open_clock(u32 cpu)
{
    wrmsr(MSR_KVMCLOCK, (u64)&pages[cpu] | 1);
}

static void page(void)
{
    volatile struct pvclock *own = &pages[0];
    check("kvmclock-stable-bit-is-offered", kvm_offers(FEATURE_STABLE_BIT));
    open_clock(0);
    check_is("kvmclock-msr-reads-back", rdmsr(MSR_KVMCLOCK), (u64)own | 1);
    check("kvmclock-version-is-even", own->version != 0 && !(own->version & 1));
    check("kvmclock-timestamp-has-passed", own->tsc_timestamp <= rdtsc());
    u64 last = read_clock(own), backwards = 0, versions = 0;
    u32 version = own->version;
    for (u32 i = 0; i < READS; i++) {
        u64 time = read_clock(own);
        backwards += time < last;
        last = time;
        u32 now = own->version;
        versions += now < version;
        version = now;
    }
    check_is("kvmclock-grows", backwards, 0);
    check_is("kvmclock-version-grows", versions, 0);
}

/* Both clocks run on meanwhile, so that one's readings enclose the other's. */
static void rate(void)
{
    u64 hz = pvclock_hz(pages[0].tsc_to_system_mul, pages[0].tsc_shift), said = cpuid_tsc_hz();
    if (said)
        check_range("kvmclock-multiplier-is-the-tsc-frequency", hz, said - said / 1000,
                    said + said / 1000);
    else
        skipped("kvmclock-multiplier", "CPUID has no TSC frequency");
    u64 ticks_second = apic_timer_hz(), before[2], after[2];
    apic_write(APIC_TMICT, ~0u);
    before[0] = kvmclock_ns();
    u64 first = apic_read(APIC_TMCCT);
    before[1] = kvmclock_ns();
    pause_us(20000);
    after[0] = kvmclock_ns();
    u64 last = apic_read(APIC_TMCCT);
    after[1] = kvmclock_ns();
    apic_write(APIC_TMICT, 0);
    u64 ns = (first - last) * 1000 / (ticks_second / 1000000), share = ns / 1000;
    check("kvmclock-runs-with-the-apic-timer",
          ns + share >= after[0] - before[1] && ns <= after[1] - before[0] + share);
}

/* Second, minute, hour, day, month, year. */
static void read_date(u32 *date)
{
    static const u8 regs[] = {0, 2, 4, 7, 8, 9};
    for (u32 i = 0; i < 6; i++)
        date[i] = rtc_binary(rtc_read(regs[i]));
}

/* Seconds since 1970, read twice alike, so that no update came in between. */
static u64 rtc_seconds(void)
{
    u32 date[6], again[6];
    bool same;
    do {
        read_date(date);
        read_date(again);
        same = !(rtc_read(RTC_REG_A) & RTC_UIP);
        for (u32 i = 0; i < 6; i++)
            same = same && date[i] == again[i];
    } while (!same);
    /* Days since March of the year 0, of which 719468 were before 1970. */
    u64 year = 2000 + date[5] - (date[4] <= 2), month = (date[4] + 9) % 12;
    u64 days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + date[3] - 1;
    return ((days - 719468) * 24 + date[2]) * 3600 + date[1] * 60 + date[0];
}

static void time_of_day(void)
{
    wrmsr(MSR_KVM_WALL_CLOCK, (u64)&wall);
    check("wall-clock-version-is-even", wall.version != 0 && !(wall.version & 1));
    check("wall-clock-is-below-a-second", wall.nanoseconds < SECOND);
    if (!(rtc_read(RTC_REG_D), inb(RTC_DATA) == 0x80)) {
        skipped("wall-clock-and-rtc", "there is no clock to compare with");
        return;
    }
    u64 seconds = wall.seconds + (wall.nanoseconds + kvmclock_ns()) / SECOND, rtc = rtc_seconds();
    check_range("wall-clock-and-rtc-agree", seconds, rtc - 2, rtc + 2);
}

/* A worker's life. */
static void live(u32 cpu)
{
    for (;;) {
        if (work && worker == cpu) {
            work();
            work = NULL;
        }
        sti_hlt();
        cli();
    }
}

static void start_on(u32 cpu, void (*what)(void))
{
    worker = cpu;
    work = what;
    apic_send(cpu, ICR_FIXED | VECTOR_WORK);
}

static void wait_for_worker(void)
{
    u64 start = rdtsc();
    while (work)
        if (is_over(start, 60000000))
            fail("a CPU does not come back from its work");
}

static void open_own(void)
{
    open_clock(cpu_index());
}

/* The latest time that any CPU has seen; how many have come, and are done. */
static volatile u64 latest, backwards_across;
static volatile u32 here, done;

/* Whoever reads after somebody's reading was published reads no less. */
static void read_across(void)
{
    __sync_fetch_and_add(&here, 1);
    for (u64 start = rdtsc(); here < 2 && !is_over(start, 1000000);)
        barrier();
    for (u32 i = 0; i < READS_ACROSS / (cpus - 1); i++) {
        u64 seen = latest, time = kvmclock_ns();
        if (time < seen)
            __sync_fetch_and_add(&backwards_across, 1);
        while (time > seen && !__sync_bool_compare_and_swap(&latest, seen, time))
            seen = latest;
    }
    __sync_fetch_and_add(&done, 1);
}

static void across(void)
{
    bool stable = pages[0].flags & PVCLOCK_STABLE;
    for (u32 cpu = 1; cpu < cpus; cpu++) {
        start_on(cpu, open_own);
        wait_for_worker();
        check("kvmclock-has-a-page-for-each-cpu", pages[cpu].version && !(pages[cpu].version & 1));
        stable = stable && pages[cpu].flags & PVCLOCK_STABLE;
    }
    if (!stable) {
        skipped("kvmclock-across", "it is not said to be stable");
        return;
    }
    for (u32 cpu = 1; cpu < cpus; cpu++) {
        latest = backwards_across = here = done = 0;
        start_on(cpu, read_across);
        read_across();
        wait_for_worker();
        check_is("kvmclock-across-cpus-grows", backwards_across, 0);
    }
}

/* The turn of CPU 0 (odd) or of the worker (even), and what the worker read. */
static volatile u32 turn;
static volatile u64 other_tsc;

static void answer(void)
{
    for (u32 i = 1; i < 2 * HANDSHAKES; i += 2) {
        while (turn != i)
            barrier();
        other_tsc = rdtsc();
        turn = i + 1;
    }
}

/* Each reading of the other's TSC lies between two of one's own. */
static void tscs_agree(const char *name, u32 cpu)
{
    u32 wrong = 0;
    turn = 0;
    start_on(cpu, answer);
    for (u32 i = 1; i < 2 * HANDSHAKES; i += 2) {
        u64 before = rdtsc();
        turn = i;
        while (turn != i + 1)
            barrier();
        wrong += other_tsc < before || rdtsc() < other_tsc;
    }
    wait_for_worker();
    check_is(name, wrong, 0);
}

void image_main(void)
{
    cpus = cpus_wanted(1);
    if (cpus > CPUS_MOST)
        fail("cpus is not in 1..8");
    apic_choose();
    irq_open();
    apic_open();
    /* Before the page is open: this closes it. */
    tsc_moves_open(tsc_hz());
    start_aps(cpus, live);
    has_clock = kvm_offers(FEATURE_CLOCKSOURCE2);
    if (has_clock) {
        page();
        rate();
        time_of_day();
        across();
    } else {
        skipped("kvmclock", "not offered");
        skipped("wall-clock", "not offered");
    }
    u32 last = cpus - 1;
    if (last)
        tscs_agree("cpus-have-the-same-tsc", last);
    check_tsc_moves();
    if (last) {
        start_on(last, check_tsc_moves);
        wait_for_worker();
        tscs_agree("cpus-have-the-same-tsc-again", last);
    }
    check_written_counter();
    check_end();
}
