/*
 * x2APIC mode: which registers and bits there are, and which raise #GP (SDM
 * vol. 3A, "x2APIC Register Address Space", "Reserved Bit Checking"). Six LVT
 * entries are taken for granted: there is no CMCI register.
 */
#include "check.h"

const char image_name[] = "x2apic";

#define LVT_MASKED 0x10000

static bool is_readable(u32 reg)
{
    return reg == 0x02 || reg == 0x03 || reg == 0x08 || reg == 0x0a || reg == 0x0d || reg == 0x0f ||
           (reg >= 0x10 && reg <= 0x28) || reg == 0x30 || (reg >= 0x32 && reg <= 0x39) || reg == 0x3e;
}

static bool is_writable(u32 reg)
{
    return reg == 0x08 || reg == 0x0b || reg == 0x0f || reg == 0x28 || reg == 0x30 ||
           (reg >= 0x32 && reg <= 0x38) || reg == 0x3e || reg == 0x3f;
}

/* What may be written there without consequence. */
static u64 harmless(u32 reg)
{
    if (reg == 0x0f)
        return 0x100 | VECTOR_SPURIOUS;
    if (reg == 0x30)
        return ICR_FIXED | ICR_SELF | 0x50;
    if (reg == 0x3f)
        return 0x50;
    return reg >= 0x32 && reg <= 0x37 ? LVT_MASKED : 0;
}

static void existence(void)
{
    u32 reads = 0, writes = 0;
    u64 value;
    for (u32 reg = 0; reg < 0x100; reg++) {
        if (try_rdmsr(MSR_X2APIC + reg, &value) != is_readable(reg)) {
            check_is("read-of", reg, ~0u);
            reads++;
        }
        if (try_wrmsr(MSR_X2APIC + reg, harmless(reg)) != is_writable(reg)) {
            check_is("write-of", reg, ~0u);
            writes++;
        }
    }
    take(1);
    log_clear();
    check_is("registers-that-read-amiss", reads, 0);
    check_is("registers-that-write-amiss", writes, 0);
}

static void faults(const char *name, u32 reg, u64 bits)
{
    check(name, !try_wrmsr(MSR_X2APIC + reg / 16, harmless(reg / 16) | bits));
}

static void reserved_bits(void)
{
    faults("tpr-bit-8-faults", APIC_TPR, 0x100);
    faults("tpr-high-half-faults", APIC_TPR, 1ul << 32);
    faults("eoi-other-than-zero-faults", APIC_EOI, 1);
    faults("eoi-high-half-faults", APIC_EOI, 1ul << 32);
    faults("esr-other-than-zero-faults", APIC_ESR, 1);
    faults("svr-bit-10-faults", APIC_SVR, 0x400);
    faults("svr-high-half-faults", APIC_SVR, 1ul << 63);
    faults("timer-bit-8-faults", APIC_LVT_TIMER, 0x100);
    faults("timer-bit-20-faults", APIC_LVT_TIMER, 0x100000);
    faults("timer-high-half-faults", APIC_LVT_TIMER, 1ul << 32);
    faults("thermal-bit-13-faults", APIC_LVT_THERMAL, 0x2000);
    faults("performance-bit-15-faults", APIC_LVT_PERF, 0x8000);
    faults("lint0-bit-17-faults", APIC_LVT_LINT0, 0x20000);
    faults("lint1-bit-11-faults", APIC_LVT_LINT1, 0x800);
    faults("error-bit-8-faults", APIC_LVT_ERROR, 0x100);
    faults("tmict-high-half-faults", APIC_TMICT, 1ul << 32);
    faults("tdcr-bit-2-faults", APIC_TDCR, 4);
    faults("tdcr-bit-4-faults", APIC_TDCR, 0x10);
    faults("self-ipi-bit-8-faults", APIC_SELF_IPI, 0x100);
    faults("icr-bit-13-faults", APIC_ICR, 0x2000);
    faults("icr-bit-16-faults", APIC_ICR, 0x10000);
    faults("icr-bit-20-faults", APIC_ICR, 0x100000);
    check_is("faulting-write-changes-nothing", apic_read(APIC_TPR), 0);
    take(0);
    apic_eoi();
    log_clear();
}

static void ids(u32 cpu)
{
    u32 id = apic_read(APIC_ID), ldr = apic_read(APIC_LDR);
    if (id != cpu || ldr != (cpu >> 4 << 16 | 1u << (cpu & 15)))
        log_mark(1);
    log_mark(2);
    serve(cpu);
}

static void wide_icr(u32 cpus)
{
    u64 last = cpus - 1;
    wrmsr(MSR_X2APIC + APIC_ICR / 16, last << 32 | ICR_FIXED | 0x61);
    check_cpus("icr-is-one-write", cpus, 1u << last, "61");
    check_is("icr-reads-back-whole", rdmsr(MSR_X2APIC + APIC_ICR / 16), last << 32 | ICR_FIXED | 0x61);
    wrmsr(MSR_X2APIC + APIC_ICR / 16, 0x100ul << 32 | ICR_FIXED | 0x62);
    check_cpus("icr-destination-has-32-bits", cpus, 0, "");
    wrmsr(MSR_X2APIC + APIC_ICR / 16, 0xfful << 32 | ICR_FIXED | 0x63);
    check_cpus("icr-ff-is-no-broadcast", cpus, 0, "");
    wrmsr(MSR_X2APIC + APIC_ICR / 16, 0xfffffffful << 32 | ICR_FIXED | 0x64);
    check_cpus("icr-all-ones-is-broadcast", cpus, (1u << cpus) - 1, "64");
    wrmsr(MSR_X2APIC + APIC_ICR / 16, 0x10001ul << 32 | ICR_FIXED | ICR_LOGICAL | 0x65);
    check_cpus("icr-other-cluster-gets-nothing", cpus, 0, "");
    wrmsr(MSR_X2APIC + APIC_ICR / 16, (1ul << last) << 32 | ICR_FIXED | ICR_LOGICAL | 0x66);
    check_cpus("icr-logical-id", cpus, 1u << last, "66");
    wrmsr(MSR_X2APIC + APIC_SELF_IPI / 16, 0x67);
    check_cpus("self-ipi-goes-to-itself", cpus, 1, "67");
}

void image_main(void)
{
    u32 cpus = cpus_wanted(1);
    if (cpus > 8)
        fail("cpus is not in 1..8");
    if (!((cpuid(1).ecx >> 21) & 1)) {
        skipped("x2apic", "CPUID.1:ECX[21] is clear");
        check_end();
    }
    if (param_is("apic", "xapic"))
        fail("apic=xapic has no meaning here");
    apic_choose();
    irq_open();
    apic_open();
    existence();
    apic_open();
    reserved_bits();
    apic_open();
    start_aps(cpus, ids);
    check_cpus("ids-and-logical-ids", cpus, (1u << cpus) - 2, "02");
    wide_icr(cpus);
    check_end();
}
