/* Says hello and leaves, or fails in the way that `fault=` asks for. */
#include "kernel.h"
#include "user.h"

const char image_name[] = "hello";

static void fault(void)
{
    if (param_is("fault", "triple"))
        triple_fault();
    if (param_is("fault", "unmapped"))
        (void)*(volatile u32 *)UNMAPPED_GPA;
    if (param_is("fault", "ud")) {
        /* POPCNT of a place without memory: KVM must emulate it and cannot.
         * Where the CPU answers with #UD, the empty IDT ends it. */
        empty_idt();
        __asm__ volatile("popcntl (%0), %%eax; ud2" : : "r"((u64)UNMAPPED_GPA) : "eax", "memory");
    }
    if (param_is("fault", "hang")) {
        user_open();
        user_enter(user_hang, 0, 0);
    }
    if (param_is("fault", "cli-hlt"))
        for (;;) {
            cli();
            hlt();
        }
}

void image_main(void)
{
    put("hello from ");
    put(image_name);
    put(" \"");
    put(cmdline);
    put("\"\n");
    fault();
}
