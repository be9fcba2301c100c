/*
 * The task state segment, which exists for one thing: where the stack lies when
 * CPL 3 traps into the kernel. Owns the TSS and its descriptor.
 */
#include "user.h"

struct tss {
    u32 reserved0;
    u64 rsp[3];
    u64 unused[8];
    u32 reserved1;
    u32 io_map;
} __attribute__((packed));

static struct tss tss;
static u8 trap_stack[1024] __attribute__((aligned(16)));

extern u64 gdt[];
extern const u8 user_leave[];

void user_open(void)
{
    u64 base = (u64)&tss;
    u64 limit = sizeof(tss) - 1;
    tss.rsp[0] = (u64)trap_stack + sizeof(trap_stack);
    tss.io_map = sizeof(tss) << 16;
    gdt[SEL_TSS / 8] = limit | (base & 0xffffff) << 16 | 0x89ul << 40 | (base >> 24 & 0xff) << 56;
    gdt[SEL_TSS / 8 + 1] = base >> 32;
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS) : "memory");
    set_gate(VECTOR_INVALID_OPCODE, user_leave);
}
