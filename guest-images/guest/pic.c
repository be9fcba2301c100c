/*
 * The pair of 8259A interrupt controllers, by way of LINT0 as ExtINT (Intel 8259A
 * datasheet). The one line that every machine can raise at will is IRQ 0, by the
 * PIT.
 */
#include "legacy.h"

const char image_name[] = "pic";

static bool is_there(void)
{
    pic_open(0x20, 0x28);
    outb(PIC1_DATA, 0xa5);
    outb(PIC2_DATA, 0x5a);
    bool there = inb(PIC1_DATA) == 0xa5 && inb(PIC2_DATA) == 0x5a;
    outb(PIC1_DATA, 0xff);
    outb(PIC2_DATA, 0xff);
    return there;
}

static void registers(void)
{
    outb(PIC1_DATA, 0xff);
    pic_open(0x20, 0x28);
    check_is("irr-is-empty", pic_irr(PIC2), 0);
    check_is("isr-is-empty", pic_isr(PIC1), 0);
    /* IRQs 0 to 2, 8 and 13 are always edges; the others keep what is written. */
    outb(ELCR1, 0x00);
    outb(ELCR1 + 1, 0x00);
    check_is("elcr-keeps-edges", inb(ELCR1) | inb(ELCR1 + 1), 0);
    outb(ELCR1, 0x20);
    outb(ELCR1 + 1, 0x0c);
    check_is("elcr-keeps-level-5", inb(ELCR1), 0x20);
    check_is("elcr-keeps-level-10-11", inb(ELCR1 + 1), 0x0c);
    outb(ELCR1, 0xff);
    outb(ELCR1 + 1, 0xff);
    check_is("elcr-refuses-0-1-2", inb(ELCR1), 0xf8);
    check_is("elcr-refuses-8-13", inb(ELCR1 + 1), 0xde);
    outb(ELCR1, 0);
    outb(ELCR1 + 1, 0);
}

static void masking(void)
{
    log_clear();
    irq0_raise();
    check("masked-line-shows-in-irr", pic_wait_irr(1));
    take(0);
    check_log("masked-line-is-silent", 0, "");
    outb(PIC1_DATA, 0xfe);
    take(1);
    check_log("unmasking-lets-it-in", 0, "20");
    check_is("irr-is-clear-after-service", pic_irr(PIC1) & 1, 0);
    check_is("isr-is-clear-after-eoi", pic_isr(PIC1), 0);
    outb(PIC1_DATA, 0xff);
}

/* What the handler saw: written by it, then read. */
static volatile u32 seen_isr;

static void without_eoi(u32 vector)
{
    (void)vector;
    seen_isr = pic_isr(PIC1);
}

static void ends(void)
{
    log_clear();
    irq_hook = without_eoi;
    outb(PIC1_DATA, 0xfe);
    irq0_raise();
    take(1);
    check_is("isr-in-handler", seen_isr, 1);
    irq0_raise();
    take(1);
    check("waiting-line-shows-in-irr", pic_wait_irr(1));
    take(1);
    check_log("in-service-line-waits", 0, "20");
    outb(PIC1, 0x61);
    take(1);
    check_log("eoi-of-another-line-does-nothing", 0, "20");
    outb(PIC1, 0x60);
    take(2);
    check_log("specific-eoi-lets-it-in", 0, "20 20");
    outb(PIC1, 0x20);
    check_is("non-specific-eoi-clears", pic_isr(PIC1), 0);
    outb(PIC1, 0x20);
    check_is("eoi-without-service", pic_isr(PIC1), 0);
    irq_hook = pic_hook;
    outb(PIC1_DATA, 0xff);
}

static void automatic(void)
{
    log_clear();
    outb(PIC1, 0x11);
    outb(PIC1_DATA, 0x20);
    outb(PIC1_DATA, 4);
    outb(PIC1_DATA, 3);
    outb(PIC1_DATA, 0xfe);
    irq_hook = without_eoi;
    irq0_raise();
    take(1);
    check_is("aeoi-isr-is-clear-in-handler", seen_isr, 0);
    irq0_raise();
    take(2);
    check_log("aeoi-needs-no-command", 0, "20 20");
    irq_hook = pic_hook;
    pic_open(0x20, 0x28);
}

static void polling(void)
{
    log_clear();
    outb(PIC1_DATA, 0xfe);
    irq0_raise();
    pic_wait_irr(1);
    outb(PIC1, 0x0c);
    check_is("poll-names-the-line", inb(PIC1) & 0x87, 0x80);
    check_is("poll-acknowledges", pic_isr(PIC1), 1);
    outb(PIC1, 0x20);
    outb(PIC1, 0x0c);
    check_is("poll-finds-nothing", inb(PIC1) & 0x80, 0);
    take(0);
    check_log("polled-line-is-not-delivered", 0, "");
    outb(PIC1_DATA, 0xff);
}

static void vectors(void)
{
    log_clear();
    pic_open(0x70, 0x78);
    irq_hook = without_eoi;
    outb(PIC1_DATA, 0xfe);
    irq0_raise();
    take(1);
    check_log("icw2-sets-the-base", 0, "70");
    outb(PIC1, 0x20);
    outb(PIC1_DATA, 0);
    outb(PIC1, 0x11);
    outb(PIC1_DATA, 0x20);
    outb(PIC1_DATA, 4);
    outb(PIC1_DATA, 1);
    check_is("icw1-clears-the-mask", inb(PIC1_DATA), 0);
    pic_open(0x20, 0x28);
    irq_hook = pic_hook;
    irq0_raise();
    pic_open(0x20, 0x28);
    check_is("icw1-clears-requests", pic_irr(PIC1) & 1, 0);
}

static void rotation(void)
{
    log_clear();
    /* Lowest priority 0: a line in service blocks nothing above it but itself. */
    outb(PIC1, 0xc0);
    outb(PIC1_DATA, 0xfe);
    irq0_raise();
    take(1);
    check_log("lowest-line-is-served", 0, "20");
    outb(PIC1, 0xc7);
    outb(PIC1_DATA, 0xff);
}

static void through_lint0(void)
{
    log_clear();
    outb(PIC1_DATA, 0xfe);
    lint0_close();
    irq0_raise();
    take(0);
    check_log("masked-lint0-is-silent", 0, "");
    lint0_open();
    take(1);
    check_log("unmasked-lint0-lets-it-in", 0, "20");
    apic_write(APIC_TPR, 0xf0);
    irq0_raise();
    take(2);
    check_log("extint-heeds-no-tpr", 0, "20 20");
    apic_write(APIC_TPR, 0);
    check("extint-is-in-no-isr", !vector_bit(APIC_ISR, 0x20) && !vector_bit(APIC_IRR, 0x20));
    outb(PIC1_DATA, 0xff);
    pic_open(0x20, 0x28);
    outb(PIC1_DATA, 0xfe);
    log_clear();
    /* With IF=0 the request may be withdrawn by the mask before it is taken. */
    irq0_raise();
    outb(PIC1_DATA, 0xff);
    take(0);
    check("withdrawn-request-is-nothing-or-spurious",
          log_count(0) == 0 || (log_count(0) == 1 && log_at(0, 0) == 0x27));
    log_clear();
    irq0_raise();
    outb(PIC1_DATA, 0xfe);
    sti_hlt();
    cli();
    check("pic-ends-a-halt", log_count(0) == 1);
    outb(PIC1_DATA, 0xff);
}

void image_main(void)
{
    apic_choose();
    irq_open();
    apic_open();
    check("present", is_there());
    if (!is_there())
        check_end();
    registers();
    irq_hook = pic_hook;
    lint0_open();
    masking();
    ends();
    automatic();
    polling();
    vectors();
    rotation();
    through_lint0();
    check_end();
}
