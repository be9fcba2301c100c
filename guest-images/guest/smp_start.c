/*
 * Starting, stopping and restarting CPUs: INIT, SIPI and what they leave behind
 * (SDM vol. 3A, "Multiple-Processor Initialization", "Processor State After
 * Reset", "Local APIC State After It Receives an INIT").
 */
#include "check.h"
#include "probe.h"

const char image_name[] = "smp-start";

#define BASE_BSP (1ul << 8)
#define BASE_EXTD (1ul << 10)
#define BASE_EN (1ul << 11)
#define LVT_MASKED 0x10000

static u32 cpus;

static u32 noted(u32 offset)
{
    return *(volatile u32 *)(u64)(PROBE_PAGE + offset);
}

static void real_mode(void)
{
    u32 last = cpus - 1;
    probe_at(PROBE_PAGE);
    probe_at(PROBE_OTHER_PAGE);
    apic_send(last, ICR_INIT);
    pause_us(1000);
    check_is("init-alone-starts-nothing", count_at(PROBE_PAGE), 0);
    apic_send(last, ICR_SIPI | PROBE_PAGE >> 12);
    check("sipi-starts", wait_count(PROBE_PAGE, 1));
    check_is("cs-is-the-page", noted(PROBE_CS) & 0xffff, PROBE_PAGE >> 4);
    check_is("ds-is-zero", noted(PROBE_DS) & 0xffff, 0);
    check_is("es-is-zero", noted(PROBE_ES) & 0xffff, 0);
    check_is("ss-is-zero", noted(PROBE_SS) & 0xffff, 0);
    check_is("eax-is-zero", noted(PROBE_EAX), 0);
    check_is("edx-is-the-signature", noted(PROBE_EDX), cpuid(1).eax);
    /* INIT leaves CD and NW as they were. */
    check_is("cr0-is-reset", noted(PROBE_CR0) & ~0x60000000u, 0x10);
    apic_send(last, ICR_SIPI | PROBE_PAGE >> 12);
    pause_us(1000);
    check_is("second-sipi-does-nothing", count_at(PROBE_PAGE), 1);
    apic_send(last, ICR_FIXED | 0x50);
    pause_us(1000);
    check_is("disabled-apic-takes-no-interrupt", count_at(PROBE_PAGE), 1);
    apic_send(last, ICR_INIT);
    apic_send(last, ICR_SIPI | PROBE_OTHER_PAGE >> 12);
    check("sipi-starts-at-the-page-it-names", wait_count(PROBE_OTHER_PAGE, 1));
    apic_send(last, ICR_INIT);
    apic_send(last, ICR_SIPI | PROBE_PAGE >> 12);
    check("init-and-sipi-restart", wait_count(PROBE_PAGE, 2));
    apic_send(last, ICR_SIPI | PROBE_OTHER_PAGE >> 12);
    pause_us(2000);
    check("sipi-does-not-move-a-running-cpu", count_at(PROBE_PAGE) == 2 && count_at(PROBE_OTHER_PAGE) == 1);
}

static void everyone(void)
{
    probe_at(PROBE_PAGE);
    apic_send(0, ICR_INIT | ICR_OTHERS);
    apic_send(0, ICR_SIPI | ICR_OTHERS | PROBE_PAGE >> 12);
    check("broadcast-starts-all-others", wait_count(PROBE_PAGE, cpus - 1));
    apic_send(0, ICR_INIT | ICR_OTHERS);
    apic_send(0, ICR_SIPI | ICR_OTHERS | PROBE_PAGE >> 12);
    check("broadcast-restarts-all-others", wait_count(PROBE_PAGE, 2 * (cpus - 1)));
}

/* What an AP found before it touched its APIC: written by the one that starts. */
static volatile u64 base;
static volatile u32 svr, tpr, ldr, tmict, tdcr, lvts, requests;

static u32 own(u32 reg)
{
    if (base & BASE_EXTD)
        return (u32)rdmsr(MSR_X2APIC + reg / 16);
    return *(volatile u32 *)(u64)(XAPIC_BASE + reg);
}

static void look(u32 cpu)
{
    (void)cpu;
    base = rdmsr(MSR_APIC_BASE);
    svr = own(APIC_SVR);
    tpr = own(APIC_TPR);
    ldr = own(APIC_LDR);
    tmict = own(APIC_TMICT) | own(APIC_TMCCT);
    tdcr = own(APIC_TDCR);
    lvts = 0;
    for (u32 reg = APIC_LVT_TIMER; reg <= APIC_LVT_ERROR; reg += 0x10)
        lvts += own(reg) == LVT_MASKED;
    requests = 0;
    for (u32 i = 0; i < 8; i++)
        requests |= own(APIC_IRR + 0x10 * i) | own(APIC_ISR + 0x10 * i) | own(APIC_TMR + 0x10 * i);
}

static void dirty(u32 cpu)
{
    (void)cpu;
    apic_write(APIC_TPR, 0x60);
    apic_write(APIC_LVT_TIMER, 0x20040);
    apic_write(APIC_LVT_LINT0, 0x8700);
    apic_write(APIC_TMICT, 2000000000);
    apic_send(cpu, ICR_FIXED | 0x50);
    if (!apic_is_x2)
        apic_write(APIC_LDR, 0xff000000);
}

static void registers_after_init(u32 cpu)
{
    check_is("svr-is-reset", svr, 0xff);
    check_is("tpr-is-reset", tpr, 0);
    check_is("ldr-is-reset", ldr, base & BASE_EXTD ? 1u << cpu : 0);
    check_is("timer-is-stopped", tmict, 0);
    check_is("tdcr-is-reset", tdcr, 0);
    check_is("lvts-are-masked", lvts, 6);
    check_is("requests-are-gone", requests, 0);
}

static void apic_state(void)
{
    u32 last = cpus - 1;
    ap_first = look;
    check("ap-runs-c", start_ap(last, dirty));
    pause_us(1000);
    check_is("ap-is-not-the-bsp", base & BASE_BSP, 0);
    check("ap-apic-is-enabled", base & BASE_EN);
    registers_after_init(last);
    u64 mode = rdmsr(MSR_APIC_BASE) & (BASE_EN | BASE_EXTD);
    check("ap-restarts", start_ap(last, serve));
    check_is("init-keeps-the-mode", base & (BASE_EN | BASE_EXTD), mode);
    registers_after_init(last);
    ap_first = NULL;
    pause_us(1000);
    log_clear();
    apic_send(last, ICR_FIXED | 0x51);
    check_cpus("ap-takes-interrupts", cpus, 1u << last, "51");
}

void image_main(void)
{
    cpus = cpus_wanted(1);
    if (cpus > 8)
        fail("cpus is not in 1..8");
    apic_choose();
    irq_open();
    apic_open();
    check("bsp-is-the-bsp", rdmsr(MSR_APIC_BASE) & BASE_BSP);
    if (cpus > 1) {
        real_mode();
        everyone();
        apic_state();
        log_clear();
        start_aps(cpus, serve);
        pause_us(1000);
        apic_send(0, ICR_FIXED | ICR_OTHERS | 0x52);
        check_cpus("all-are-alive", cpus, (1u << cpus) - 2, "52");
    }
    check_end();
}
