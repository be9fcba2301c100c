/*
 * The local APIC of one CPU: modes, registers, priorities, the timer. What is
 * checked is in the SDM, vol. 3A, chapter "Advanced Programmable Interrupt
 * Controller", section by section.
 */
#include "check.h"

const char image_name[] = "apic-modes";

#define BASE_BSP (1ul << 8)
#define BASE_EXTD (1ul << 10)
#define BASE_EN (1ul << 11)
#define SVR_ON 0x100
#define LVT_MASKED 0x10000
#define LVT_PERIODIC 0x20000
#define LVT_DEADLINE 0x40000
/* Delivery status and remote IRR, which may read as anything here. */
#define LVT_STATUS 0x5000
#define MILLISECOND 1000000

static void base_transitions(void)
{
    u64 value, base = rdmsr(MSR_APIC_BASE) & ~(BASE_EN | BASE_EXTD);
    bool has_x2 = (cpuid(1).ecx >> 21) & 1;
    check("base-says-bsp", base & BASE_BSP);
    check_is("base-address", base & ~0xffful, XAPIC_BASE);
    check("to-disabled", try_wrmsr(MSR_APIC_BASE, base));
    check_is("disabled-clears-cpuid-apic", (cpuid(1).edx >> 9) & 1, 0);
    check("disabled-to-x2apic-faults", !try_wrmsr(MSR_APIC_BASE, base | BASE_EN | BASE_EXTD));
    check("extd-without-en-faults", !try_wrmsr(MSR_APIC_BASE, base | BASE_EXTD));
    check("disabled-to-xapic", try_wrmsr(MSR_APIC_BASE, base | BASE_EN));
    check_is("enabled-sets-cpuid-apic", (cpuid(1).edx >> 9) & 1, 1);
    check("base-bit-9-faults", !try_wrmsr(MSR_APIC_BASE, base | BASE_EN | 1 << 9));
    check("base-bit-0-faults", !try_wrmsr(MSR_APIC_BASE, base | BASE_EN | 1));
    check("base-bit-62-faults", !try_wrmsr(MSR_APIC_BASE, base | BASE_EN | 1ul << 62));
    check("base-beyond-physical-faults",
          !try_wrmsr(MSR_APIC_BASE, base | BASE_EN | 1ul << (cpuid(0x80000008).eax & 0xff)));
    check("xapic-has-no-msrs", !try_rdmsr(MSR_X2APIC + APIC_ID / 16, &value));
    check("xapic-takes-no-msrs", !try_wrmsr(MSR_X2APIC + APIC_TPR / 16, 0));
    check_is("base-after-faults", rdmsr(MSR_APIC_BASE), base | BASE_EN);
    if (!has_x2) {
        skipped("x2apic", "CPUID.1:ECX[21] is clear");
        return;
    }
    check("x2apic-from-xapic", try_wrmsr(MSR_APIC_BASE, base | BASE_EN | BASE_EXTD));
    check("x2apic-has-msrs", try_rdmsr(MSR_X2APIC + APIC_ID / 16, &value));
    check("x2apic-to-xapic-faults", !try_wrmsr(MSR_APIC_BASE, base | BASE_EN));
    check("x2apic-extd-alone-faults", !try_wrmsr(MSR_APIC_BASE, base | BASE_EXTD));
    check("x2apic-stays", try_wrmsr(MSR_APIC_BASE, base | BASE_EN | BASE_EXTD));
    check("x2apic-to-disabled", try_wrmsr(MSR_APIC_BASE, base));
    check("x2apic-msrs-are-gone", !try_rdmsr(MSR_X2APIC + APIC_ID / 16, &value));
    check("x2apic-back-to-xapic", try_wrmsr(MSR_APIC_BASE, base | BASE_EN));
}

/* Clearing the enable flag and setting it again is a reset of the registers. */
static void disabling_resets(void)
{
    u64 base = rdmsr(MSR_APIC_BASE) & ~(BASE_EN | BASE_EXTD);
    apic_write(APIC_TPR, 0x20);
    apic_write(APIC_LVT_LINT1, 0x400);
    wrmsr(MSR_APIC_BASE, base);
    wrmsr(MSR_APIC_BASE, base | BASE_EN);
    if (apic_is_x2)
        wrmsr(MSR_APIC_BASE, base | BASE_EN | BASE_EXTD);
    check_is("reenabled-tpr", apic_read(APIC_TPR), 0);
    check_is("reenabled-svr", apic_read(APIC_SVR), 0xff);
    check_is("reenabled-lint1", apic_read(APIC_LVT_LINT1), LVT_MASKED);
    check_is("reenabled-timer", apic_read(APIC_LVT_TIMER), LVT_MASKED);
    apic_open();
}

static void lvt_keeps(const char *name, u32 reg, u32 writable)
{
    /* x2APIC mode faults on reserved bits, which the image x2apic checks. */
    apic_write(reg, apic_is_x2 ? writable : ~0u & ~LVT_STATUS);
    check_is(name, apic_read(reg) & ~LVT_STATUS, writable);
    apic_write(reg, LVT_MASKED);
}

static void registers(void)
{
    u32 version = apic_read(APIC_VERSION);
    check_is("id", apic_id(), 0);
    check("version-is-integrated", (version & 0xff) >= 0x10 && (version & 0xff) <= 0x15);
    check_is("version-lvt-entries", (version >> 16 & 0xff) + 1, 6);
    check_is("svr-reads-back", apic_read(APIC_SVR), SVR_ON | VECTOR_SPURIOUS);
    lvt_keeps("lvt-thermal-bits", APIC_LVT_THERMAL, 0x107ff);
    lvt_keeps("lvt-performance-bits", APIC_LVT_PERF, 0x107ff);
    lvt_keeps("lvt-lint0-bits", APIC_LVT_LINT0, 0x1a7ff);
    lvt_keeps("lvt-lint1-bits", APIC_LVT_LINT1, 0x1a7ff);
    lvt_keeps("lvt-error-bits", APIC_LVT_ERROR, 0x100ff);
    apic_write(APIC_LVT_TIMER, LVT_MASKED | LVT_PERIODIC | VECTOR_TIMER);
    check_is("lvt-timer-bits", apic_read(APIC_LVT_TIMER), LVT_MASKED | LVT_PERIODIC | VECTOR_TIMER);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    if (!apic_is_x2) {
        apic_write(APIC_LDR, 0xffffffff);
        check_is("ldr-keeps-eight-bits", apic_read(APIC_LDR), 0xff000000);
        apic_write(APIC_DFR, 0x0fffffff);
        check_is("dfr-keeps-four-bits", apic_read(APIC_DFR), 0x0fffffff);
        apic_write(APIC_DFR, 0xffffffff);
        apic_write(APIC_LDR, 0);
        apic_write(APIC_ID, 0);
    }
    u32 wrong = 0;
    for (u32 value = 0; value < 16; value++) {
        if (value & 4)
            continue;
        apic_write(APIC_TDCR, value);
        wrong += apic_read(APIC_TDCR) != value;
    }
    check_is("tdcr-reads-back", wrong, 0);
    apic_write(APIC_TDCR, 0xb);
}

static u64 cr8(void)
{
    u64 value;
    __asm__ volatile("mov %%cr8, %0" : "=r"(value));
    return value;
}

static void set_cr8(u64 value)
{
    __asm__ volatile("mov %0, %%cr8" : : "r"(value) : "memory");
}

static void task_priority(void)
{
    apic_write(APIC_TPR, 0x35);
    check_is("tpr-reads-back", apic_read(APIC_TPR), 0x35);
    check_is("tpr-shows-in-cr8", cr8(), 3);
    check_is("ppr-is-tpr", apic_read(APIC_PPR), 0x35);
    set_cr8(7);
    check_is("cr8-shows-in-tpr", apic_read(APIC_TPR), 0x70);
    check_is("cr8-shows-in-ppr", apic_read(APIC_PPR), 0x70);
    log_clear();
    self_ipi(0x71);
    self_ipi(0x81);
    take(1);
    check_log("tpr-holds-its-own-class", 0, "81");
    set_cr8(6);
    take(2);
    check_log("lower-cr8-lets-it-in", 0, "81 71");
    self_ipi(0x61);
    take(2);
    check("cr8-holds-its-own-class", log_count(0) == 2);
    apic_write(APIC_TPR, 0);
    take(3);
    check_log("lower-tpr-lets-it-in", 0, "81 71 61");
    self_ipi(0x61);
    apic_write(APIC_TPR, 0x60);
    take(3);
    check("higher-tpr-holds-a-pending-one", log_count(0) == 3);
    check("held-one-stays-in-irr", vector_bit(APIC_IRR, 0x61));
    apic_write(APIC_TPR, 0);
    take(4);
    check_log("no-spurious-vector", 0, "81 71 61 61");
}

/* What the handler saw: written by it, then read. */
static volatile u32 seen_isr, seen_irr, seen_ppr;

static void look(u32 vector)
{
    seen_isr = vector_bit(APIC_ISR, vector);
    seen_irr = vector_bit(APIC_IRR, vector);
    seen_ppr = apic_read(APIC_PPR);
    apic_eoi();
}

static void requests_and_service(void)
{
    cli();
    log_clear();
    self_ipi(0x6a);
    check("irr-holds-the-request", vector_bit(APIC_IRR, 0x6a));
    check("isr-is-clear-before", !vector_bit(APIC_ISR, 0x6a));
    check("tmr-is-clear-for-an-edge", !vector_bit(APIC_TMR, 0x6a));
    check_is("ppr-counts-no-request", apic_read(APIC_PPR), 0);
    irq_hook = look;
    take(1);
    irq_hook = NULL;
    check_log("request-is-served-once", 0, "6a");
    check_is("isr-in-handler", seen_isr, 1);
    check_is("irr-in-handler", seen_irr, 0);
    check_is("ppr-in-handler", seen_ppr, 0x60);
    check("isr-is-clear-after-eoi", !vector_bit(APIC_ISR, 0x6a));
    check_is("ppr-after-eoi", apic_read(APIC_PPR), 0);
    apic_eoi();
    check_is("eoi-without-service", apic_read(APIC_PPR), 0);
}

static void nesting(u32 vector)
{
    static const u8 next[] = {0x62, 0x41, 0x69, 0x51};
    if (vector != 0x52 && vector != 0x60) {
        apic_eoi();
        return;
    }
    /* 0x52: one above it, one below it; 0x60: its own class, then itself. */
    u32 first = vector == 0x52 ? 0 : 2;
    for (u32 step = first; step < first + 2; step++)
        self_ipi(next[step]);
    sti();
    pause_us(1000);
    cli();
    log_mark(1);
    apic_eoi();
}

static void repeating(u32 vector)
{
    if (log_count(0) == 1)
        for (u32 i = 0; i < 3; i++)
            self_ipi(vector);
    log_mark(2);
    apic_eoi();
}

static void priorities(void)
{
    cli();
    log_clear();
    self_ipi(0x41);
    self_ipi(0x61);
    self_ipi(0x51);
    self_ipi(0x51);
    take(3);
    check_log("highest-first-and-merged", 0, "61 51 41");
    irq_hook = nesting;
    log_clear();
    self_ipi(0x52);
    take(4);
    check_log("higher-class-nests", 0, "52 62 01 41");
    log_clear();
    self_ipi(0x60);
    take(4);
    check_log("own-class-does-not-nest", 0, "60 01 69 51");
    irq_hook = repeating;
    log_clear();
    self_ipi(0x66);
    take(4);
    check_log("one-in-service-one-requested", 0, "66 02 66 02");
    irq_hook = NULL;
    if (apic_is_x2) {
        log_clear();
        apic_write(APIC_SELF_IPI, 0x77);
        take(1);
        check_log("self-ipi-register", 0, "77");
    }
}

static void software_disable(void)
{
    cli();
    log_clear();
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    apic_write(APIC_LVT_ERROR, 0x33);
    self_ipi(0x55);
    apic_write(APIC_SVR, VECTOR_SPURIOUS);
    check_is("disabling-masks-the-timer", apic_read(APIC_LVT_TIMER), LVT_MASKED | VECTOR_TIMER);
    check_is("disabling-masks-the-error", apic_read(APIC_LVT_ERROR), LVT_MASKED | 0x33);
    apic_write(APIC_LVT_ERROR, 0x34);
    check_is("disabled-keeps-the-mask", apic_read(APIC_LVT_ERROR), LVT_MASKED | 0x34);
    self_ipi(0x56);
    check("disabled-takes-no-request", !vector_bit(APIC_IRR, 0x56));
    check("disabled-keeps-requests", vector_bit(APIC_IRR, 0x55));
    apic_write(APIC_SVR, SVR_ON | VECTOR_SPURIOUS);
    check_is("enabling-keeps-the-mask", apic_read(APIC_LVT_ERROR), LVT_MASKED | 0x34);
    take(1);
    check_log("request-outlives-disabling", 0, "55");
    apic_write(APIC_LVT_ERROR, LVT_MASKED);
}

static void errors(void)
{
    apic_write(APIC_ESR, 0);
    apic_write(APIC_ESR, 0);
    check_is("esr-is-clear", apic_read(APIC_ESR), 0);
    self_ipi(5);
    check_is("esr-changes-with-a-write-only", apic_read(APIC_ESR), 0);
    apic_write(APIC_ESR, 0);
    check_is("esr-send-illegal-vector", apic_read(APIC_ESR) & 0x20, 0x20);
    apic_write(APIC_ESR, 0);
    check_is("esr-is-clear-again", apic_read(APIC_ESR), 0);
    if (!apic_is_x2) {
        apic_write(0x3f0, 0);
        apic_write(APIC_ESR, 0);
        check_is("esr-illegal-register", apic_read(APIC_ESR) & 0x80, 0x80);
        apic_write(APIC_ESR, 0);
    }
}

static void timer_counts(void)
{
    u32 first, second, third;
    cli();
    log_clear();
    check_is("timer-is-stopped", apic_read(APIC_TMCCT), 0);
    apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
    apic_write(APIC_TMICT, 4000000000u);
    first = apic_read(APIC_TMCCT);
    second = apic_read(APIC_TMCCT);
    third = apic_read(APIC_TMCCT);
    check("timer-counts-down", 4000000000u >= first && first > second && second > third && third);
    check_is("timer-keeps-its-initial-count", apic_read(APIC_TMICT), 4000000000u);
    u32 spans[2];
    for (u32 i = 0; i < 2; i++) {
        apic_write(APIC_TDCR, i ? 3 : 0xb);
        apic_write(APIC_TMICT, 4000000000u);
        first = apic_read(APIC_TMCCT);
        pause_us(3000);
        spans[i] = first - apic_read(APIC_TMCCT);
    }
    check("timer-divides-by-16", spans[0] / 16 < spans[1] * 3 && spans[1] < spans[0] / 16 * 3);
    first = apic_read(APIC_TMCCT);
    apic_write(APIC_TDCR, 0xb);
    second = apic_read(APIC_TMCCT);
    check("timer-keeps-its-count-when-the-divisor-changes", second < first && second > first / 2);
    apic_write(APIC_TMICT, 0);
    check_is("timer-stops-with-zero", apic_read(APIC_TMCCT), 0);
}

static void timer_fires(void)
{
    cli();
    log_clear();
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    apic_write(APIC_TMICT, MILLISECOND);
    take(1);
    check_is("oneshot-ends-at-zero", apic_read(APIC_TMCCT), 0);
    sti();
    pause_us(3000);
    cli();
    check_log("oneshot-fires-once", 0, "40");
    apic_write(APIC_TMICT, 30 * MILLISECOND);
    apic_write(APIC_TMICT, 0);
    sti();
    pause_us(35000);
    cli();
    check_log("stopped-timer-does-not-fire", 0, "40");
    apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
    apic_write(APIC_TMICT, MILLISECOND);
    pause_us(8000);
    settle();
    check_is("masked-timer-counts", apic_read(APIC_TMCCT), 0);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    take(1);
    check_log("masked-expiry-is-lost", 0, "40");
}

static void timer_repeats(void)
{
    cli();
    log_clear();
    apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VECTOR_TIMER);
    apic_write(APIC_TMICT, 3 * MILLISECOND);
    sti();
    wait_log(0, 4);
    cli();
    check("periodic-goes-on", log_count(0) >= 4);
    check("periodic-reloads", apic_read(APIC_TMCCT) != 0);
    apic_write(APIC_TMICT, 0);
    take(1);
    log_clear();
    sti();
    pause_us(8000);
    cli();
    check_log("periodic-stops-with-zero", 0, "");
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    self_ipi(0x31);
    apic_write(APIC_TMICT, 1000);
    pause_us(1000);
    self_ipi(0x51);
    take(3);
    check_log("timer-has-the-priority-of-its-vector", 0, "51 40 31");
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

static void deadlines(void)
{
    u64 hz = tsc_hz();
    if (!((cpuid(1).ecx >> 24) & 1) || !hz) {
        skipped("deadline", "not offered");
        return;
    }
    u64 millisecond = hz / 1000;
    cli();
    log_clear();
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    wrmsr(MSR_TSC_DEADLINE, rdtsc());
    take(1);
    check_is("deadline-is-ignored-in-oneshot-mode", rdmsr(MSR_TSC_DEADLINE), 0);
    check_log("deadline-needs-its-mode", 0, "");
    apic_write(APIC_LVT_TIMER, LVT_DEADLINE | VECTOR_TIMER);
    __asm__ volatile("mfence" : : : "memory");
    u64 at = rdtsc() + 1000 * millisecond;
    wrmsr(MSR_TSC_DEADLINE, at);
    check_is("deadline-reads-back", rdmsr(MSR_TSC_DEADLINE), at);
    check_is("deadline-has-no-count", apic_read(APIC_TMCCT), 0);
    apic_write(APIC_TMICT, 1000);
    check_is("deadline-takes-no-initial-count", apic_read(APIC_TMICT), 0);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + millisecond);
    take(1);
    check_log("deadline-fires", 0, "40");
    check_is("deadline-is-disarmed-by-firing", rdmsr(MSR_TSC_DEADLINE), 0);
    wrmsr(MSR_TSC_DEADLINE, 1);
    take(2);
    check_log("deadline-in-the-past-fires-at-once", 0, "40 40");
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 30 * millisecond);
    wrmsr(MSR_TSC_DEADLINE, 0);
    sti();
    pause_us(35000);
    cli();
    check_log("deadline-zero-disarms", 0, "40 40");
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 30 * millisecond);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    sti();
    pause_us(35000);
    cli();
    check_log("deadline-mode-left-disarms", 0, "40 40");
    check_is("deadline-mode-left-reads-zero", rdmsr(MSR_TSC_DEADLINE), 0);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

void image_main(void)
{
    apic_choose();
    irq_open();
    base_transitions();
    apic_open();
    disabling_resets();
    registers();
    task_priority();
    requests_and_service();
    priorities();
    software_disable();
    timer_counts();
    timer_fires();
    timer_repeats();
    deadlines();
    errors();
    check_end();
}
