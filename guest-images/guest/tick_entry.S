/*
 * The tick: timer interrupt, histogram, next arming, EOI. Guest kernel code
 * costs about a microsecond an instruction where the host must emulate it, and
 * more where it touches memory: the usual way from entry to IRETQ is 23
 * instructions, of which three do, and the longest is held at 40 (a test
 * counts them). Knows nothing of how the timer was set up.
 *
 * The state is kept in registers, which are tick_idle's, the only code that is
 * interrupted; the host sees what is stored to this vCPU's report page, which
 * %gs points to:
 *
 *   r8   period                       r11  APIC timer ticks a TSC cycle, 32.32
 *   r9   next deadline                rsi  ticks handled
 *   r10  largest lateness less 15, or 0 where it is below 16
 *   rax, rcx, rdx  free
 */
#include "abi.h"

#define DEADLINE 0
#define ONESHOT 1
#define PERIODIC 2

#define SUB_BUCKETS (1 << HIST_SUB_BITS)

/* rax = TSC */
        .macro NOW
        rdtsc
        shl $32, %rdx
        or %rdx, %rax
        .endm

        .macro APIC_WRITE_EAX reg, x2, edx_is_0=0
        .if \x2
        mov $(MSR_X2APIC + \reg / 16), %ecx
        .ifeq \edx_is_0
        xor %edx, %edx
        .endif
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
        sub %r9, %rax                   /* rax = lateness */
        lea -SUB_BUCKETS(%rax), %rdx
        cmp %r10, %rdx
        jae .Lrare_\@                   /* early, below 16, or a new maximum */
.Lcount_\@:
        .if \mode == PERIODIC
        cmp %r8, %rax
        jae .Llost_\@
.Lcaught_up_\@:
        .endif
        add %r8, %r9
        inc %rsi
        mov %rsi, %gs:REPORT_TICKS
        bsr %rax, %rcx
        sub $HIST_SUB_BITS, %ecx
        shr %cl, %rax
        shl $(HIST_SUB_BITS + 2), %ecx
.Lbucket_\@:
        incl %gs:REPORT_HIST(%rcx, %rax, 4)

        .if \mode == DEADLINE
        mov %r9d, %eax
        mov %r9, %rdx
        shr $32, %rdx
        mov $MSR_TSC_DEADLINE, %ecx
        wrmsr
        .endif
        .if \mode == ONESHOT
        mov %r9, %rcx
        NOW
        sub %rax, %rcx
        jbe .Lpast_\@
        imul %r11, %rcx
        shr $32, %rcx
        lea 1(%rcx), %eax               /* rounded up: never early */
.Larm_\@:
        APIC_WRITE_EAX APIC_TMICT, \x2
        .endif

        /* Paravirtual EOI: clearing a bit that the host has set is one. */
        btrl $0, %gs:REPORT_PV_EOI
        jc .Ldone_\@
        xor %eax, %eax
        .if \mode == ONESHOT
        APIC_WRITE_EAX APIC_EOI, \x2, edx_is_0=1       /* since TMICT */
        .else
        APIC_WRITE_EAX APIC_EOI, \x2
        .endif
.Ldone_\@:
        iretq

.Lrare_\@:
        test %rax, %rax
        js .Learly_\@
        cmp $SUB_BUCKETS, %rax
        jb .Lsmall_\@
        mov %rax, %gs:REPORT_MAX
        lea (1 - SUB_BUCKETS)(%rax), %r10
        jmp .Lcount_\@

.Learly_\@:
        .if \mode == PERIODIC
        mov %rax, %rdx
        neg %rdx
        shl $4, %rdx
        cmp %r8, %rdx
        jbe .Ltruly_early_\@
        cmpq $0, %gs:REPORT_LOST
        je .Ltruly_early_\@
        add %r8, %rax
        jnc .Ltruly_early_\@
        decq %gs:REPORT_LOST
        sub %r8, %r9
        cmp $SUB_BUCKETS, %rax
        jb .Lsmall_\@
        jmp .Lcaught_up_\@
.Ltruly_early_\@:
        .endif
        incq %gs:REPORT_EARLY
        xor %eax, %eax
.Lsmall_\@:
        cmp %gs:REPORT_MAX, %rax
        jbe .Lnot_largest_\@
        mov %rax, %gs:REPORT_MAX
.Lnot_largest_\@:
        add %r8, %r9
        inc %rsi
        mov %rsi, %gs:REPORT_TICKS
        xor %ecx, %ecx
        jmp .Lbucket_\@

        .if \mode == ONESHOT
.Lpast_\@:
        mov $1, %eax                    /* 0 would stop the timer */
        jmp .Larm_\@
        .endif
        .if \mode == PERIODIC
/* The APIC holds one pending tick: those of further periods are lost, and the
 * grid moves on without them. One of them may be pending all the same, behind
 * the tick in service; it then comes well before the moved grid's deadline,
 * and is counted for the one before (.Learly). */
.Llost_\@:
        mov %rax, %rdx
        sub %r8, %rdx
.Lnext_lost_\@:
        incq %gs:REPORT_LOST
        add %r8, %r9
        sub %r8, %rdx
        jae .Lnext_lost_\@
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
        mov %gs:REPORT_PERIOD, %r8
        mov %gs:REPORT_NEXT, %r9
        xor %r10d, %r10d
        mov %gs:REPORT_RATIO, %r11
        xor %esi, %esi
        sti
        test %rdi, %rdi
        jz 2f
1:      hlt
        cmp %rdi, %rsi
        jb 1b
        cli
        ret
2:      .rept 63                        /* saves a jump after each */
        hlt
        .endr
        jmp 2b

        .section .note.GNU-stack, "", @progbits
