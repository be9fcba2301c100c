/*
 * Entries of the images that check a chapter: interrupts that C logs, and MSR
 * accesses whose #GP is an answer. Owns nothing.
 */
#include "abi.h"

        .text
/* Vectors 0x20 to 0xff, eight bytes each: the vector as a signed byte. */
        .balign 8
        .globl irq_stubs
irq_stubs:
        .set vector, 0x20
        .rept 224
        .balign 8
        push $(vector - 0x100 * (vector >> 7))
        .byte 0xe9
        .long interrupt_common - . - 4
        .set vector, vector + 1
        .endr

        .balign 8
        .globl nmi_stub
nmi_stub:
        push $VECTOR_NMI
interrupt_common:
        push %rax
        push %rcx
        push %rdx
        push %rsi
        push %rdi
        push %r8
        push %r9
        push %r10
        push %r11
        push %rbp
        mov %rsp, %rbp
        movzbl 80(%rbp), %edi
        and $-16, %rsp
        call interrupt
        mov %rbp, %rsp
        pop %rbp
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rdi
        pop %rsi
        pop %rdx
        pop %rcx
        pop %rax
        add $8, %rsp
        iretq

/* bool try_rdmsr(edi = msr, rsi = where the value goes) */
        .globl try_rdmsr
try_rdmsr:
        mov %edi, %ecx
reading:
        rdmsr
        shl $32, %rdx
        or %rdx, %rax
        mov %rax, (%rsi)
        mov $1, %eax
        ret

/* bool try_wrmsr(edi = msr, rsi = value) */
        .globl try_wrmsr
try_wrmsr:
        mov %edi, %ecx
        mov %esi, %eax
        mov %rsi, %rdx
        shr $32, %rdx
writing:
        wrmsr
        mov $1, %eax
        ret

faulted:
        xor %eax, %eax
        ret

/* #GP: only the two instructions above are forgiven. */
        .globl fault_stub
fault_stub:
        cmpq $reading, 8(%rsp)
        je 1f
        cmpq $writing, 8(%rsp)
        je 1f
        pushq $13
        jmp exception_common
1:      movq $faulted, 8(%rsp)
        add $8, %rsp
        iretq

        .section .note.GNU-stack, "", @progbits
