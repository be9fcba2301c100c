/*
 * Leaves the machine in the way that `how=` names. `button` and `deaf` wait
 * for the ACPI power button, by its interrupt alone: the first powers off
 * then, the second only says `!`.
 * Sources: ACPI 6.5, 4.8.3 (PM1 registers); ICH datasheets (0xcf9, 0x92);
 * 8042 (0x64); QEMU's documentation of pvpanic (0x505).
 */
#include "legacy.h"

const char image_name[] = "leave";

#define PM1_STATUS 0xb000
#define PM1_ENABLE 0xb002
#define PM1_CONTROL 0xb004
#define POWER_BUTTON 0x100
#define SLEEP_S5 0x3400
#define SCI_PIN 9
#define VECTOR 0x40

static volatile bool pressed;
static bool deaf;

static void power_off(void)
{
    outw(PM1_CONTROL, SLEEP_S5);
}

static void button(u32 vector)
{
    (void)vector;
    outw(PM1_STATUS, POWER_BUTTON);
    pressed = true;
    put("!");
    apic_write(APIC_EOI, 0);
}

static void wait_for_the_button(void)
{
    apic_choose();
    irq_open();
    apic_open();
    irq_hook = button;
    outb(PIC1_DATA, 0xff);
    ioapic_set(SCI_PIN, IOAPIC_LEVEL | VECTOR, 0);
    outw(PM1_ENABLE, POWER_BUTTON);
    put(">");
    while (!pressed || deaf)
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    power_off();
}

void image_main(void)
{
    deaf = param_is("how", "deaf");
    if (deaf || param_is("how", "button"))
        wait_for_the_button();
    put("leaving\n");
    if (param_is("how", "acpi"))
        power_off();
    if (param_is("how", "8042"))
        outb(0x64, 0xfe);
    if (param_is("how", "cf9"))
        outb(0xcf9, 6);
    if (param_is("how", "port92"))
        outb(0x92, 1);
    if (param_is("how", "triple"))
        triple_fault();
    if (param_is("how", "panic"))
        outb(0x505, 1);
    if (param_is("how", "crash-kernel"))
        outb(0x505, 2);
}
