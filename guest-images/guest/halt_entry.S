/* Interrupt entries of the image halt: they count, and take no EOI (an NMI
 * needs none; after a timeout nothing more is expected). */
        .text
        .globl nmi_entry
nmi_entry:
        incq nmis
        iretq
        .globl timeout_entry
timeout_entry:
        incq timeouts
        iretq

        .section .note.GNU-stack, "", @progbits
