/*
 * Real-mode code for a page of its own: notes what SIPI left in the registers,
 * counts, and halts with IF as it is.
 */
#include "probe.h"

        .section .rodata
        .code16
        .globl probe_start, probe_end
probe_start:
        movl %eax, %cs:PROBE_EAX
        mov %edx, %cs:PROBE_EDX
        mov %ds, %ax
        mov %ax, %cs:PROBE_DS
        mov %es, %ax
        mov %ax, %cs:PROBE_ES
        mov %ss, %ax
        mov %ax, %cs:PROBE_SS
        mov %cs, %ax
        mov %ax, %cs:PROBE_CS
        mov %ax, %ds
        mov %cr0, %eax
        mov %eax, PROBE_CR0
        lock incl PROBE_COUNT
1:      hlt
        jmp 1b
probe_end:
        .code64

        .section .note.GNU-stack, "", @progbits
