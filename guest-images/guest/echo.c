/*
 * Sends back what the first serial port receives, and halts in between: the
 * port's interrupt is all that wakes it. A `q` ends it, with that code; a
 * Ctrl-R resets the machine.
 * Source: 16550A datasheet; ISA interrupt 4 by pin 4 of the I/O APIC.
 */
#include "legacy.h"

const char image_name[] = "echo";

#define COM1 0x3f8
#define INTERRUPT_ENABLE (COM1 + 1)
#define INTERRUPT_IDENTIFICATION (COM1 + 2)
#define LINE_STATUS (COM1 + 5)
#define RECEIVED 1
#define PIN 4
#define CTRL_R 0x12

static volatile bool ended;

static void answer(u32 vector)
{
    (void)vector;
    (void)inb(INTERRUPT_IDENTIFICATION);
    while (inb(LINE_STATUS) & RECEIVED) {
        char text[] = {(char)inb(COM1), 0};
        put(text);
        ended |= text[0] == 'q';
        if (text[0] == CTRL_R)
            outb(0x64, 0xfe);
    }
    apic_write(APIC_EOI, 0);
}

void image_main(void)
{
    apic_choose();
    irq_open();
    apic_open();
    irq_hook = answer;
    outb(PIC1_DATA, 0xff);
    ioapic_set(PIN, 0x40, 0);
    outb(INTERRUPT_ENABLE, RECEIVED);
    put(">");
    while (!ended)
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    outb(0xf4, 'q');
}
