/*
 * NMI, HLT and the shadows of instructions: what is taken when
 * (SDM vol. 3A, "Nonmaskable Interrupt", "Masking Maskable Hardware Interrupts",
 * vol. 2, STI and HLT).
 */
#include "check.h"

const char image_name[] = "nmi";

#define MILLISECOND 1000000
#define PATIENCE_CYCLES 3000000000ul

static void send_nmi(void)
{
    apic_send(0, ICR_NMI);
}

/* In an NMI handler: two more NMIs, which wait for IRET and are one then. */
static void nmi_in_nmi(u32 vector)
{
    if (vector != VECTOR_NMI) {
        apic_eoi();
        return;
    }
    if (log_count(0) == 1) {
        send_nmi();
        send_nmi();
        pause_us(1000);
    }
    log_mark(1);
}

/* An NMI handler may take interrupts if it sets IF; its IRET ends both. */
static void interrupt_in_nmi(u32 vector)
{
    if (vector != VECTOR_NMI) {
        apic_eoi();
        return;
    }
    self_ipi(0x50);
    pause_us(1000);
    log_mark(1);
    sti();
    pause_us(1000);
    cli();
    log_mark(2);
}

/* The IRET of an interrupt inside an NMI handler unblocks NMIs. */
static void iret_in_nmi(u32 vector)
{
    if (vector != VECTOR_NMI) {
        apic_eoi();
        return;
    }
    if (log_count(0) == 1) {
        send_nmi();
        self_ipi(0x50);
        sti();
        wait_log(0, 4);
        cli();
    }
    log_mark(1);
}

/* An NMI comes into a handler of whatever priority. */
static void nmi_in_interrupt(u32 vector)
{
    if (vector == VECTOR_NMI)
        return;
    send_nmi();
    pause_us(1000);
    log_mark(1);
    apic_eoi();
}

static void run(const char *name, void (*hook)(u32), void (*send)(void), u32 count, const char *want)
{
    cli();
    log_clear();
    irq_hook = hook;
    send();
    take(count);
    irq_hook = NULL;
    check_log(name, 0, want);
}

static void send_interrupt(void)
{
    self_ipi(0xf0);
}

static void blocking(void)
{
    run("nmi-waits-for-iret-and-merges", nmi_in_nmi, send_nmi, 4, "02 01 02 01");
    run("nmi-handler-may-take-interrupts", interrupt_in_nmi, send_nmi, 4, "02 01 50 02");
    run("iret-of-a-nested-interrupt-ends-the-blocking", iret_in_nmi, send_nmi, 5, "02 50 02 01 01");
    run("nmi-enters-an-interrupt-handler", nmi_in_interrupt, send_interrupt, 3, "f0 02 01");
    cli();
    log_clear();
    apic_write(APIC_TPR, 0xff);
    send_nmi();
    wait_log(0, 1);
    check_log("nmi-heeds-no-tpr-and-no-if", 0, "02");
    apic_write(APIC_TPR, 0);
    apic_write(APIC_SVR, VECTOR_SPURIOUS);
    apic_write(APIC_SVR, 0x100 | VECTOR_SPURIOUS);
}

/* Of CPU 0: written by it, read by CPU 1. */
static volatile u64 asleep, awake;

/* CPU 1: a fixed interrupt, which CPU 0 must not wake for, then an NMI. */
static void other(u32 cpu)
{
    while (!asleep)
        pause_us(100);
    pause_us(3000);
    apic_send(0, ICR_FIXED | 0x50);
    pause_us(3000);
    log_mark(1);
    /* Again where CPU 0 took it before it came to its HLT. */
    do
        apic_send(0, ICR_NMI);
    while (!wait_tsc(PATIENCE_CYCLES, &awake, 1));
    serve(cpu);
}

static void halting_with_if_clear(void)
{
    cli();
    log_clear();
    if (!start_ap(1, other))
        fail("CPU 1 did not answer INIT and SIPI");
    asleep = 1;
    hlt();
    awake = 1;
    check("fixed-interrupt-ends-no-halt-with-if-clear", log_count(1) == 1);
    check_log("nmi-ends-a-halt-with-if-clear", 0, "02");
    take(2);
    check_log("interrupt-was-kept-meanwhile", 0, "02 50");
}

/* When an NMI handler, having sent itself another, set a timer; when that was taken. */
static volatile u64 armed_at, second_at;

static void nmi_and_timer(u32 vector)
{
    if (vector != VECTOR_NMI) {
        apic_eoi();
    } else if (log_count(0) == 1) {
        send_nmi();
        apic_write(APIC_TMICT, 40 * MILLISECOND);
        armed_at = rdtsc();
    } else {
        second_at = rdtsc();
    }
}

/* The HLT comes behind the first one's IRET, with nothing in between that leaves the
 * guest: it sleeps until the timer, which the second NMI must not wait for. */
static void halt_behind_nmi(void)
{
    cli();
    log_clear();
    second_at = 0;
    irq_hook = nmi_and_timer;
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    if (!apic_is_x2)
        apic_write(APIC_ICR_HIGH, 0);
    apic_write(APIC_ICR, ICR_NMI);
    sti_hlt();
    take(3);
    irq_hook = NULL;
    check_log("nmi-behind-another-in-a-halt", 0, "02 02 40");
    check("nmi-behind-another-needs-no-timer",
          second_at - armed_at < (u64)20 * MILLISECOND * (tsc_hz() / 1000000) / 1000);
}

static void halting(void)
{
    cli();
    log_clear();
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    self_ipi(0x50);
    sti_hlt();
    cli();
    check_log("pending-interrupt-ends-the-halt-behind-sti", 0, "50");
    apic_write(APIC_TMICT, 2 * MILLISECOND);
    sti_hlt();
    cli();
    check_log("timer-ends-a-halt", 0, "50 40");
    log_clear();
    send_interrupt();
    send_nmi();
    sti_hlt();
    cli();
    take(2);
    check_log("nmi-comes-before-an-interrupt", 0, "02 f0");
}

/* What a handler found on the stack: written by it, then read. */
extern volatile u64 shadow_at;
extern const u8 shadow_entry[], after_sti[], after_cli[], after_ss[];
bool sti_nop(void);
bool sti_cli(void);
bool mov_ss(void);

static void shadows(void)
{
    set_gate(0x66, shadow_entry);
    cli();
    shadow_at = 0;
    self_ipi(0x66);
    sti_nop();
    check("sti-shadows-one-instruction", shadow_at >= (u64)after_sti);
    shadow_at = 0;
    self_ipi(0x66);
    sti_cli();
    pause_us(1000);
    check_is("sti-cli-has-no-window", shadow_at, 0);
    check("request-behind-sti-cli-stays", vector_bit(APIC_IRR, 0x66));
    sti_nop();
    shadow_at = 0;
    self_ipi(0x66);
    mov_ss();
    check("mov-ss-shadows-one-instruction", shadow_at >= (u64)after_ss);
    pause_us(1000);
    cli();
    check("interrupt-follows-the-shadow", shadow_at != 0);
}

void image_main(void)
{
    apic_choose();
    irq_open();
    apic_open();
    blocking();
    shadows();
    halting();
    halt_behind_nmi();
    if (cpus_wanted(1) > 1)
        halting_with_if_clear();
    check_end();
}
