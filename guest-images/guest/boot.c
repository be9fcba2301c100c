/*
 * From the entry assembly to the image: command line, IDT, report page.
 * Owns the IDT. Knows nothing of the APIC.
 */
#include "kernel.h"

struct gate {
    u16 low;
    u16 selector;
    u16 flags;
    u16 middle;
    u64 high;
};

static struct gate idt[256];

extern const u8 exception_stubs[];

void set_gate(u32 vector, const void *entry)
{
    u64 at = (u64)entry;
    idt[vector] = (struct gate){
        .low = (u16)at,
        .selector = SEL_CODE64,
        .flags = 0x8e00,
        .middle = (u16)(at >> 16),
        .high = 0,
    };
}

void load_idt(void)
{
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (u64)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

/* frame: vector, then the error code where the vector has one, then RIP. */
void exception(const u64 *frame)
{
    u64 vector = frame[0];
    bool has_code = vector < 32 && ((0x60227d00u >> vector) & 1);
    put(image_name);
    put(": exception ");
    put_u64(vector);
    put(" at ");
    put_hex(frame[has_code ? 2 : 1]);
    put("\n");
    fail("unexpected exception");
}

/* Clears the page of vCPU `cpu`, makes it this CPU's %gs, and publishes it:
 * the magic is written last. */
void report_open(u32 cpu)
{
    volatile struct report *report = report_of(cpu);
    void *at = (void *)report;
    u64 words = REPORT_BYTES / 8;
    __asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(0ul) : "memory");
    report->version = REPORT_VERSION_VALUE;
    report->vcpu = cpu;
    report->buckets = HIST_BUCKETS;
    report->sub_bits = HIST_SUB_BITS;
    report->state = STATE_RUNNING;
    report->magic = REPORT_MAGIC_VALUE;
    wrmsr(MSR_GS_BASE, (u64)report);
}

#define PAGE_SIZES_LEAF 0x80000001u
#define GIGABYTE_PAGES 26

/* One page for the first GiB where the CPU has such pages: a host that emulates
 * kernel code walks the tables for every instruction. */
static void shorten_page_tables(void)
{
    extern volatile u64 pdpt[];
    if (cpuid(0x80000000u).eax < PAGE_SIZES_LEAF ||
        !((cpuid(PAGE_SIZES_LEAF).edx >> GIGABYTE_PAGES) & 1))
        return;
    pdpt[0] = 0x87;
    __asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" : : : "rax", "memory");
}

void bsp_main(u64 kind, u64 info)
{
    cmdline_load(kind, info);
    for (u32 vector = 0; vector < 32; vector++)
        set_gate(vector, exception_stubs + 8 * vector);
    load_idt();
    shorten_page_tables();
    /* Both 8259s: a firmware may have left lines open. */
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    report_open(0);
    image_main();
    finish();
}
