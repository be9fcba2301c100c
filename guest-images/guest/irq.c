/*
 * A log of the interrupts that each CPU took, and waiting for them. Owns the
 * logs; each is written by its CPU alone, and read by others in x86 order.
 */
#include "check.h"

#define LOG_ENTRIES 24
#define SECOND_US 1000000
#define AFTERWARDS_US 500
#define UNUSED_PORT 0x80
/* Ends idle_us, and is in no log. */
#define VECTOR_QUIET 0xfe
#define SETTLING_HALTS 4

struct log {
    volatile u32 count;
    volatile u8 vectors[LOG_ENTRIES];
};

static struct log logs[MAX_CPUS];
static u64 cycles_per_us;
volatile u32 log_total;

void (*volatile irq_hook)(u32 vector);

extern const u8 irq_stubs[], nmi_stub[], fault_stub[];

/* Where nobody tells: the TSC's cycles in 2 ms of the APIC timer. */
static u64 measured_hz(void)
{
    u64 ticks = apic_timer_hz() / 500;
    apic_open();
    apic_write(APIC_TMICT, ~0u);
    u64 start = rdtsc();
    while (~0u - apic_read(APIC_TMCCT) < ticks)
        barrier();
    u64 cycles = rdtsc() - start;
    apic_write(APIC_TMICT, 0);
    return cycles * 500;
}

void irq_open(void)
{
    u64 hz = tsc_hz();
    cycles_per_us = (hz ? hz : measured_hz()) / 1000000;
    set_gate(VECTOR_NMI, nmi_stub);
    set_gate(13, fault_stub);
    for (u32 vector = 0x20; vector < 0x100; vector++)
        set_gate(vector, irq_stubs + 8 * (vector - 0x20));
}

u32 cpu_index(void)
{
    u32 cpu;
    __asm__ volatile("mov %%gs:%c1, %0" : "=r"(cpu) : "i"(REPORT_VCPU));
    return cpu;
}

static void note(u32 cpu, u8 entry)
{
    struct log *log = &logs[cpu];
    if (log->count < LOG_ENTRIES)
        log->vectors[log->count] = entry;
    log->count++;
}

void interrupt(u32 vector)
{
    if (vector == VECTOR_QUIET) {
        apic_eoi();
        return;
    }
    note(cpu_index(), (u8)vector);
    log_total++;
    if (irq_hook)
        irq_hook(vector);
    else if (vector != VECTOR_NMI && vector != VECTOR_SPURIOUS)
        apic_eoi();
}

void log_clear(void)
{
    for (u32 cpu = 0; cpu < MAX_CPUS; cpu++)
        logs[cpu].count = 0;
}

void log_mark(u8 mark)
{
    note(cpu_index(), mark);
}

u32 log_count(u32 cpu)
{
    u32 count = logs[cpu].count;
    return count < LOG_ENTRIES ? count : LOG_ENTRIES;
}

u8 log_at(u32 cpu, u32 index)
{
    return logs[cpu].vectors[index];
}

/* One turn of every loop that waits. A host that emulates kernel code may look for
 * interrupts only when it leaves the guest, and for those of its own timers only
 * when it does not: so some turns make it leave. */
bool is_over(u64 start, u64 us)
{
    /* Of all CPUs: which of them counts does not matter. */
    static volatile u32 turn;
    if (turn++ % 4 == 0)
        (void)inb(UNUSED_PORT);
    return rdtsc() - start > us * cycles_per_us;
}

void pause_us(u64 us)
{
    u64 start = rdtsc();
    while (!is_over(start, us))
        barrier();
}

void settle(void)
{
    for (u32 i = 0; i < SETTLING_HALTS; i++) {
        self_ipi(VECTOR_QUIET);
        sti_hlt();
        cli();
    }
}

void idle_us(u64 us)
{
    u64 start = rdtsc();
    cli();
    apic_timer_once(us * 1000, VECTOR_QUIET);
    while (!is_over(start, us)) {
        /* An interrupt may have ended the HLT: the timer still runs then. */
        sti_hlt();
        cli();
    }
    apic_write(APIC_TMICT, 0);
}

bool wait_log(u32 cpu, u32 count)
{
    u64 start = rdtsc();
    while (logs[cpu].count < count)
        if (is_over(start, SECOND_US))
            return logs[cpu].count >= count;
    return true;
}

void take(u32 count)
{
    sti();
    wait_log(cpu_index(), count);
    pause_us(AFTERWARDS_US);
    cli();
}

void serve(u32 cpu)
{
    (void)cpu;
    for (;;)
        sti_hlt();
}

bool vector_bit(u32 reg, u32 vector)
{
    return (apic_read(reg + vector / 32 * 16) >> (vector % 32)) & 1;
}

void self_ipi(u32 vector)
{
    apic_send(0, ICR_FIXED | ICR_SELF | vector);
}
