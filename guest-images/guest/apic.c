/*
 * The local APIC of the calling vCPU, as x2APIC MSRs or xAPIC memory. Owns the
 * choice between the two, made once by vCPU 0 for all.
 */
#include "kernel.h"

#define BASE_EXTD (1ul << 10)
#define BASE_EN (1ul << 11)
#define SVR_ENABLE 0x100
#define LVT_MASKED 0x10000
#define ICR_PENDING 0x1000
#define FEATURE_PV_EOI 6

u32 apic_is_x2;

void apic_choose(void)
{
    bool can = (cpuid(1).ecx >> 21) & 1;
    if (param_is("apic", "x2apic") && !can)
        fail("apic=x2apic, but CPUID.1:ECX[21] is clear");
    apic_is_x2 = can && !param_is("apic", "xapic");
    set_gate(VECTOR_SPURIOUS, spurious_entry);
}

u32 apic_read(u32 reg)
{
    if (apic_is_x2)
        return (u32)rdmsr(MSR_X2APIC + reg / 16);
    return *(volatile u32 *)(u64)(XAPIC_BASE + reg);
}

void apic_write(u32 reg, u32 value)
{
    if (apic_is_x2)
        wrmsr(MSR_X2APIC + reg / 16, value);
    else
        *(volatile u32 *)(u64)(XAPIC_BASE + reg) = value;
}

/* Leaves the timer masked, at divide-by-1, and TPR at 0. */
void apic_open(void)
{
    u64 base = rdmsr(MSR_APIC_BASE);
    if (apic_is_x2) {
        wrmsr(MSR_APIC_BASE, base | BASE_EN);
        wrmsr(MSR_APIC_BASE, base | BASE_EN | BASE_EXTD);
    } else {
        /* x2APIC to xAPIC only goes by way of disabled. */
        if (base & BASE_EXTD)
            wrmsr(MSR_APIC_BASE, base & ~(BASE_EN | BASE_EXTD));
        wrmsr(MSR_APIC_BASE, (base & ~BASE_EXTD) | BASE_EN);
    }
    apic_write(APIC_TPR, 0);
    apic_write(APIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_TDCR, 0xb);
}

u32 apic_id(void)
{
    u32 id = apic_read(APIC_ID);
    return apic_is_x2 ? id : id >> 24;
}

void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

/* From now on the host may set bit 0 of the report's pv_eoi: clearing it is an
 * EOI then. Not all handlers look at it; those that write EOI are right, too. */
void pv_eoi_open(volatile struct report *report)
{
    if (kvm_offers(FEATURE_PV_EOI) && !param_is("eoi", "apic"))
        wrmsr(MSR_KVM_PV_EOI, (u64)&report->pv_eoi | 1);
}

void apic_send(u32 target, u32 command)
{
    if (apic_is_x2) {
        wrmsr(MSR_X2APIC + APIC_ICR / 16, (u64)target << 32 | command);
        return;
    }
    apic_write(APIC_ICR_HIGH, target << 24);
    apic_write(APIC_ICR, command);
    for (u32 tries = 0; tries < 1000 && (apic_read(APIC_ICR) & ICR_PENDING); tries++)
        barrier();
}

/* One-shot; the caller's `nanoseconds` are at most a few seconds. */
void apic_timer_once(u64 nanoseconds, u32 vector)
{
    u64 count = nanoseconds * (apic_timer_hz() / 1000000) / 1000;
    apic_write(APIC_LVT_TIMER, vector);
    apic_write(APIC_TMICT, count ? (u32)count : 1);
}
