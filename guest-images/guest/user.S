/*
 * CPL 3: how to enter it, how it comes back, and the two loops that run there.
 * Interrupts stay off; the one trap is UD2, the way
 * back. (SYSCALL would be shorter, but hosts that emulate kernel code get it
 * wrong.)
 */
#include "abi.h"

        .text
/* user_enter(rdi = code, rsi = a, rdx = b) */
        .globl user_enter
user_enter:
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rdi, %r8
        mov %rsi, %rdi
        mov %rdx, %rsi
        mov %rsp, user_kernel_rsp
        pushq $SEL_USER_DATA
        pushq $0
        pushq $2
        pushq $SEL_USER_CODE
        pushq %r8
        iretq

        .globl user_leave
user_leave:
        mov user_kernel_rsp, %rsp
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret

        .globl user_hang
user_hang:
        jmp user_hang

/* rdi: a u64 that counts the iterations, 1024 at a time; rsi: the TSC value at
 * which to stop. */
        .globl user_count
user_count:
        mov $1024, %ecx
1:      dec %ecx
        jnz 1b
        addq $1024, (%rdi)
        rdtsc
        shl $32, %rdx
        or %rdx, %rax
        cmp %rsi, %rax
        jb user_count
        ud2

        .bss
        .balign 8
user_kernel_rsp: .skip 8

        .section .note.GNU-stack, "", @progbits
