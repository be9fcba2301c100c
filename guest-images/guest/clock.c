/*
 * How fast the TSC and the APIC timer run, asked once at start. Owns the
 * kvmclock page for the time of the question.
 */
#include "kvmclock.h"

#define LEAF_HYPERVISOR 0x40000000u
#define LEAF_KVM_FEATURES 0x40000001u
#define LEAF_FREQUENCIES 0x40000010u

static volatile struct pvclock pvclock __attribute__((aligned(64)));

static bool plausible(u64 hz)
{
    return hz >= 100000000ul && hz <= 20000000000ul;
}

static bool is_kvm(void)
{
    struct cpuid r = cpuid(LEAF_HYPERVISOR);
    return r.ebx == 0x4b4d564b && r.ecx == 0x564b4d56 && r.edx == 0x4d;
}

bool kvm_offers(u32 feature)
{
    return is_kvm() && ((cpuid(LEAF_KVM_FEATURES).eax >> feature) & 1);
}

u64 pvclock_hz(u32 mul, int shift)
{
    if (mul == 0 || shift < -31 || shift > 31)
        return 0;
    u64 hz = (1000000000ul << 32) / mul;
    return shift < 0 ? hz << -shift : hz >> shift;
}

static u64 kvmclock_hz(void)
{
    if (!kvm_offers(FEATURE_CLOCKSOURCE2))
        return 0;
    wrmsr(MSR_KVMCLOCK, (u64)&pvclock | 1);
    u32 mul = pvclock.tsc_to_system_mul;
    int shift = pvclock.tsc_shift;
    bool stable = pvclock.version != 0 && !(pvclock.version & 1);
    wrmsr(MSR_KVMCLOCK, 0);
    return stable ? pvclock_hz(mul, shift) : 0;
}

static struct cpuid frequencies(void)
{
    struct cpuid none = {0, 0, 0, 0};
    if (!(cpuid(1).ecx >> 31))
        return none;
    u32 top = cpuid(LEAF_HYPERVISOR).eax;
    return top >= LEAF_FREQUENCIES && top < LEAF_HYPERVISOR + 0x10000 ? cpuid(LEAF_FREQUENCIES) : none;
}

u64 cpuid_tsc_hz(void)
{
    u64 hz = frequencies().eax * 1000ul;
    if (plausible(hz))
        return hz;
    u32 top = cpuid(0).eax;
    if (top >= 0x15) {
        struct cpuid r = cpuid(0x15);
        hz = r.eax ? (u64)r.ecx * r.ebx / r.eax : 0;
        if (plausible(hz))
            return hz;
    }
    hz = top >= 0x16 ? (cpuid(0x16).eax & 0xffff) * 1000000ul : 0;
    return plausible(hz) ? hz : 0;
}

u64 tsc_hz(void)
{
    u64 hz = kvmclock_hz();
    return plausible(hz) ? hz : cpuid_tsc_hz();
}

/* At divide-by-1. */
u64 apic_timer_hz(void)
{
    u64 hz = frequencies().ebx * 1000ul;
    return hz >= 1000000ul && hz < 1ul << 32 ? hz : 1000000000ul;
}
