/*
 * Addresses, offsets and vectors that the assembly, the C code and the host
 * agree on. Owns numbers only. The host's copy of the report page is
 * src/report.rs; docs/guest-abi.md describes both.
 */
#ifndef ABI_H
#define ABI_H

/* Report page of vCPU i: REPORT_BASE + i * REPORT_BYTES. */
#define REPORT_BASE     0x280000
#define REPORT_BYTES    0x1000
#define MAX_CPUS        64

#define REPORT_MAGIC_VALUE 0x5450525453454953 /* "SIESTRPT" in memory order */
#define REPORT_VERSION_VALUE 1

#define REPORT_MAGIC    0x00
#define REPORT_VERSION  0x08
#define REPORT_VCPU     0x0c
#define REPORT_TICKS    0x10
#define REPORT_PROGRESS 0x18
#define REPORT_EARLY    0x20
#define REPORT_LOST     0x28
#define REPORT_MAX      0x30
#define REPORT_TSC_KHZ  0x38
#define REPORT_PERIOD   0x40
#define REPORT_NEXT     0x48
#define REPORT_BUCKETS  0x50
#define REPORT_SUB_BITS 0x54
#define REPORT_RATIO    0x58
#define REPORT_STATE    0x60
#define REPORT_PV_EOI   0x68
#define REPORT_HIST     0x80

/* Lateness histogram: exact below 16 cycles, then 16 buckets an octave, for
 * every 64-bit value: the handler need not clamp. */
#define HIST_SUB_BITS   4
#define HIST_BUCKETS    976

#define STATE_RUNNING   1
#define STATE_DONE      2

#define VECTOR_NMI      2
#define VECTOR_INVALID_OPCODE 6
#define VECTOR_TIMER    0x40
#define VECTOR_IPI      0x50
#define VECTOR_SPURIOUS 0xff

#define SEL_CODE64      0x08
#define SEL_DATA        0x10
#define SEL_USER_DATA   0x1b
#define SEL_USER_CODE   0x23
#define SEL_CODE32      0x28
#define SEL_TSS         0x30

#define TRAMPOLINE      0x8000
#define STACK_BYTES     0x1000
#define IDENTITY_BYTES  0x40000000
/* Mapped by the page tables, backed by nothing on the machines we boot on. */
#define UNMAPPED_GPA    0xd0000000
#define XAPIC_BASE      0xfee00000
#define IOAPIC_GPA      0xfec00000

#define MSR_TSC         0x10
#define MSR_APIC_BASE   0x1b
#define MSR_TSC_ADJUST  0x3b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC      0x800
#define MSR_EFER        0xc0000080
#define MSR_GS_BASE     0xc0000101
#define MSR_KVM_WALL_CLOCK 0x4b564d00
#define MSR_KVMCLOCK    0x4b564d01
#define MSR_KVM_PV_EOI  0x4b564d04

/* xAPIC register offsets; the x2APIC MSR is MSR_X2APIC + offset / 16. */
#define APIC_ID         0x020
#define APIC_VERSION    0x030
#define APIC_TPR        0x080
#define APIC_PPR        0x0a0
#define APIC_EOI        0x0b0
#define APIC_LDR        0x0d0
#define APIC_DFR        0x0e0
#define APIC_SVR        0x0f0
#define APIC_ISR        0x100
#define APIC_TMR        0x180
#define APIC_IRR        0x200
#define APIC_ESR        0x280
#define APIC_ICR        0x300
#define APIC_ICR_HIGH   0x310
#define APIC_LVT_TIMER  0x320
#define APIC_LVT_THERMAL 0x330
#define APIC_LVT_PERF   0x340
#define APIC_LVT_LINT0  0x350
#define APIC_LVT_LINT1  0x360
#define APIC_LVT_ERROR  0x370
#define APIC_TMICT      0x380
#define APIC_TMCCT      0x390
#define APIC_TDCR       0x3e0
#define APIC_SELF_IPI   0x3f0

#endif
