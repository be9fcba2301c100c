/*
 * Ways in: PVH (32-bit, ebx -> hvm_start_info), Linux 64-bit (rsi -> zero
 * page) and SIPI (real mode, at TRAMPOLINE). All three end in C on our own
 * GDT, page tables and stack. Owns the page tables and the GDT. Knows nothing
 * of any image.
 */
#include "abi.h"

#define BOOT_PVH   0
#define BOOT_LINUX 1

        .section .note.pvh, "a", @note
        .balign 4
        .long 4, 4, 18                  /* namesz, descsz, XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .long pvh_entry

/* Works in 32-bit and in 64-bit code: every address is below 2 GiB. */
        .macro LINK_PAGE_TABLES
        movl $(pdpt + 7), pml4
        movl $(pd_low + 7), pdpt
        movl $(pd_high + 7), pdpt + 3 * 8
        movl $(UNMAPPED_GPA + 0x87), pd_high + ((UNMAPPED_GPA - 0xc0000000) >> 21) * 8
        movl $(IOAPIC_GPA + 0x9b), pd_high + ((IOAPIC_GPA - 0xc0000000) >> 21) * 8
        movl $(XAPIC_BASE + 0x9b), pd_high + ((XAPIC_BASE - 0xc0000000) >> 21) * 8
        .endm

        .section .text.boot, "ax"
        .code32
        .globl pvh_entry
pvh_entry:
        cli
        cld
        mov $0x336ec578, %edx
        cmp %edx, (%ebx)
        je 1f
        xor %ebx, %ebx
1:      mov %ebx, %esi
        LINK_PAGE_TABLES
        lgdt gdt_pointer
        mov $BOOT_PVH, %edi
        mov $bsp_long, %ebp
        jmp enter_long

        .globl ap_protected
ap_protected:
        mov $SEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $ap_long, %ebp

/* ebp: where to go in 64-bit mode; edi and esi are kept. */
enter_long:
        mov $0x20, %eax
        mov %eax, %cr4
        mov $pml4, %eax
        mov %eax, %cr3
        mov $MSR_EFER, %ecx
        rdmsr
        or $0x101, %eax
        wrmsr
        mov $0x80010031, %eax
        mov %eax, %cr0
        ljmp $SEL_CODE64, $1f
        .code64
1:      mov %ebp, %ebp
        jmp *%rbp

        .globl linux64_entry
linux64_entry:
        cli
        cld
        LINK_PAGE_TABLES
        mov $pml4, %eax
        mov %rax, %cr3
        lgdt gdt_pointer
        mov $MSR_EFER, %ecx
        rdmsr
        or $1, %eax
        wrmsr
        mov $BOOT_LINUX, %edi
        mov $stack_bsp_top, %esp
        pushq $SEL_CODE64
        pushq $bsp_long
        lretq

bsp_long:
        mov $SEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        xor %eax, %eax
        mov %eax, %fs
        mov %eax, %gs
        mov $stack_bsp_top, %esp
        call bsp_main
        ud2

ap_long:
        xor %eax, %eax
        mov %eax, %fs
        mov %eax, %gs
        mov ap_stack, %rsp
        call ap_entry
        ud2

/* Copied to TRAMPOLINE; runs there in real mode with cs = TRAMPOLINE / 16. */
        .code16
        .globl trampoline_start, trampoline_end
trampoline_start:
        cli
        cld
        xor %ax, %ax
        mov %ax, %ds
        lgdtl TRAMPOLINE + (trampoline_gdt - trampoline_start)
        mov $0x11, %eax
        mov %eax, %cr0
        ljmpl $SEL_CODE32, $ap_protected
        .balign 4
trampoline_gdt:
        .word gdt_end - gdt - 1
        .long gdt
trampoline_end:
        .code64

/* Exception entries, eight bytes each; the error code, where there is one, is
 * told apart by the vector. */
        .balign 8
        .globl exception_stubs
exception_stubs:
        .set vector, 0
        .rept 32
        .balign 8
        pushq $vector
        jmp exception_common
        .set vector, vector + 1
        .endr
        .globl exception_common
exception_common:
        mov %rsp, %rdi
        and $-16, %rsp
        call exception
        ud2

/* A counted interrupt: one more in ticks, EOI, back. */
        .globl ipi_entry
ipi_entry:
        push %rax
        push %rcx
        push %rdx
        incq %gs:REPORT_TICKS
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

        .globl spurious_entry
spurious_entry:
        iretq

        .data
        .balign 8
        .globl gdt
gdt:
        .quad 0
        .quad 0x00af9b000000ffff        /* SEL_CODE64 */
        .quad 0x00cf93000000ffff        /* SEL_DATA */
        .quad 0x00cff3000000ffff        /* SEL_USER_DATA */
        .quad 0x00affb000000ffff        /* SEL_USER_CODE */
        .quad 0x00cf9b000000ffff        /* SEL_CODE32 */
        .quad 0, 0                      /* SEL_TSS, filled in user.c */
gdt_end:
        .balign 8
gdt_pointer:
        .word gdt_end - gdt - 1
        .quad gdt

/* The first GiB in 2 MiB pages, user-accessible; filled here rather than at
 * run time because emulated stores are slow. */
        .section .data.pagetable, "aw"
        .balign 4096
pd_low:
        .set page, 0
        .rept 512
        .quad page + 0x87
        .set page, page + 0x200000
        .endr

        .bss
        .balign 4096
        .globl pdpt
pml4:   .skip 4096
pdpt:   .skip 4096
pd_high: .skip 4096
        .skip 2 * STACK_BYTES
stack_bsp_top:

        .section .note.GNU-stack, "", @progbits
