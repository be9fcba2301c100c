/* Instruction sequences of the image nmi, and the handler that notes where it
 * came in. Owns shadow_at. */
#include "abi.h"

        .text
        .globl shadow_entry
shadow_entry:
        push %rax
        push %rcx
        push %rdx
        mov 24(%rsp), %rax
        mov %rax, shadow_at
        cmpl $0, apic_is_x2
        je 1f
        mov $(MSR_X2APIC + APIC_EOI / 16), %ecx
        xor %eax, %eax
        xor %edx, %edx
        wrmsr
        jmp 2f
1:      mov $(XAPIC_BASE + APIC_EOI), %ecx
        movl $0, (%rcx)
2:      pop %rdx
        pop %rcx
        pop %rax
        iretq

        .globl sti_nop, after_sti
sti_nop:
        sti
        nop
after_sti:
        mov $0x80, %edx
        in %dx, %al
        in %dx, %al
        nop
        cli
        ret

        .globl sti_cli
sti_cli:
        sti
        cli
        ret

/* IF is set by POPF, which has no shadow, behind MOV SS, which has one. */
        .globl mov_ss, after_ss
mov_ss:
        pushfq
        orq $0x200, (%rsp)
        mov $SEL_DATA, %eax
        mov %eax, %ss
        popfq
after_ss:
        mov $0x80, %edx
        in %dx, %al
        in %dx, %al
        nop
        ret

        .bss
        .balign 8
        .globl shadow_at
shadow_at: .skip 8

        .section .note.GNU-stack, "", @progbits
