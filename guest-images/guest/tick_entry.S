/*
 * The tick: timer interrupt, histogram, next arming, EOI. Guest kernel code
 * costs 0.6 us an instruction where the host must emulate it, so the longest
 * way from entry to IRETQ is held at 40 instructions (a test counts them).
 * All state is in this vCPU's report page, which %gs points to. Knows nothing
 * of how the timer was set up.
 *
 * No register is saved: the only code interrupted is tick_idle, which keeps
 * nothing in rax, rcx and rdx.
 */
#include "abi.h"

#define DEADLINE 0
#define ONESHOT 1
#define PERIODIC 2

/* rax = TSC */
        .macro NOW
        rdtsc
        shl $32, %rdx
        or %rdx, %rax
        .endm

        .macro APIC_WRITE_EAX reg, x2
        .if \x2
        mov $(MSR_X2APIC + \reg / 16), %ecx
        xor %edx, %edx
        wrmsr
        .else
        mov $(XAPIC_BASE + \reg), %ecx
        mov %eax, (%rcx)
        .endif
        .endm

        .macro TICK name, mode, x2
        .globl \name
        .balign 16
\name:
        NOW
        mov %gs:REPORT_NEXT, %rcx
        sub %rcx, %rax                  /* rax = lateness */
        jb .Learly_\@
.Lon_time_\@:
        add %gs:REPORT_PERIOD, %rcx
        mov %rcx, %gs:REPORT_NEXT
        incq %gs:REPORT_TICKS
        .if \mode == PERIODIC
        mov %rax, %rdx
        sub %gs:REPORT_PERIOD, %rdx
        jae .Llost_\@
.Lcaught_up_\@:
        .endif
        cmp %gs:REPORT_MAX, %rax
        jbe .Lbucket_\@
        mov %rax, %gs:REPORT_MAX
.Lbucket_\@:
        mov %rax, %rdx
        or $(1 << HIST_SUB_BITS), %rdx
        bsr %rdx, %rcx
        sub $HIST_SUB_BITS, %ecx
        shr %cl, %rax
        shl $HIST_SUB_BITS, %ecx
        add %ecx, %eax
        incl %gs:REPORT_HIST(, %rax, 4)

        .if \mode == DEADLINE
        mov %gs:REPORT_NEXT, %rax
        mov %rax, %rdx
        shr $32, %rdx
        mov $MSR_TSC_DEADLINE, %ecx
        wrmsr
        .endif
        .if \mode == ONESHOT
        mov %gs:REPORT_NEXT, %rcx
        NOW
        sub %rax, %rcx
        jbe .Lpast_\@
        imul %gs:REPORT_RATIO, %rcx
        shr $32, %rcx
        lea 1(%rcx), %eax               /* rounded up: never early */
.Larm_\@:
        APIC_WRITE_EAX APIC_TMICT, \x2
        .endif

        xor %eax, %eax
        APIC_WRITE_EAX APIC_EOI, \x2
        iretq

.Learly_\@:
        .if \mode == PERIODIC
        mov %rax, %rdx
        neg %rdx
        shl $4, %rdx
        cmp %gs:REPORT_PERIOD, %rdx
        jbe .Ltruly_early_\@
        cmpq $0, %gs:REPORT_LOST
        je .Ltruly_early_\@
        add %gs:REPORT_PERIOD, %rax
        jnc .Ltruly_early_\@
        decq %gs:REPORT_LOST
        incq %gs:REPORT_TICKS
        jmp .Lcaught_up_\@
.Ltruly_early_\@:
        incq %gs:REPORT_EARLY
        incq %gs:REPORT_TICKS
        add %gs:REPORT_PERIOD, %rcx
        mov %rcx, %gs:REPORT_NEXT
        xor %eax, %eax
        jmp .Lcaught_up_\@
        .else
        incq %gs:REPORT_EARLY
        xor %eax, %eax
        jmp .Lon_time_\@
        .endif
        .if \mode == ONESHOT
.Lpast_\@:
        mov $1, %eax                    /* 0 would stop the timer */
        jmp .Larm_\@
        .endif
        .if \mode == PERIODIC
/* The APIC holds one pending tick: those of further periods are lost, and the
 * grid moves on without them. rdx = lateness left. One of them may be
 * pending all the same, behind the tick in service; it then comes well before
 * the moved grid's deadline, and is counted for the one before (.Learly). */
.Llost_\@:
        incq %gs:REPORT_LOST
        add %gs:REPORT_PERIOD, %rcx
        mov %rcx, %gs:REPORT_NEXT
        sub %gs:REPORT_PERIOD, %rdx
        jae .Llost_\@
        jmp .Lcaught_up_\@
        .endif
        .globl \name\()_end
\name\()_end:
        .endm

        .text
        TICK tick_deadline_x2apic, DEADLINE, 1
        TICK tick_deadline_xapic, DEADLINE, 0
        TICK tick_oneshot_x2apic, ONESHOT, 1
        TICK tick_oneshot_xapic, ONESHOT, 0
        TICK tick_periodic_x2apic, PERIODIC, 1
        TICK tick_periodic_xapic, PERIODIC, 0

        .globl tick_idle
tick_idle:
        sti
        test %rdi, %rdi
        jz 2f
1:      hlt
        cmp %rdi, %gs:REPORT_TICKS
        jb 1b
        cli
        ret
2:      hlt
        jmp 2b

        .section .note.GNU-stack, "", @progbits
