use std::sync::Arc;

use super::*;
use crate::apic::{DeliveryMode, Target};
use crate::bus::{Bus, BusBuilder, Outcome};

const MS: u64 = 1_000_000;

fn config(external_controllers: bool) -> ChipsetConfig {
    ChipsetConfig {
        ioapic_id: 1,
        rtc: RtcConfig {
            host_ns: 0,
            unix_ns: 1_700_000_000 * 1_000_000_000,
            memory_below_4g: 64 << 20,
            memory_above_4g: 0,
            least_period_ns: 0,
        },
        start_ns: 0,
        least_period_ns: 0,
        external_controllers,
    }
}

struct Machine {
    board: Arc<Board>,
    bus: Bus,
}

impl Machine {
    fn new(external: bool) -> Self {
        let board = Arc::new(Board::new(&config(external)));
        let bus = board.attach(BusBuilder::new()).expect("no overlap").freeze();
        Machine { board, bus }
    }

    fn out(&self, port: u16, value: u8, now: u64) -> Outcome {
        self.bus.pio_write(port, &[value], now)
    }

    fn ioapic(&self, register: u8, value: u32, now: u64) {
        let _ = self.bus.mmio_write(0xfec0_0000, &u32::from(register).to_le_bytes(), now);
        let _ = self.bus.mmio_write(0xfec0_0010, &value.to_le_bytes(), now);
    }

    /// Channel 0, mode 2, 100 Hz.
    fn start_pit(&self, now: u64) {
        for (port, value) in [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)] {
            let _ = self.out(port, value, now);
        }
    }

    fn errands(&self) -> Vec<Errand> {
        std::iter::from_fn(|| self.board.take_errand()).collect()
    }

    /// The levels that external controllers are told.
    fn lines(&self) -> Vec<(u8, bool)> {
        let mut told = Vec::new();
        while let Some(errand) = self.board.take_errand() {
            if errand == Errand::Lines {
                self.board.tell_lines(|level| told.push((level.irq, level.asserted)));
            }
        }
        told
    }

    fn messages(&self) -> Vec<Ipi> {
        let message = |errand| match errand {
            Errand::Message(ipi) => Some(ipi),
            _ => None,
        };
        self.errands().into_iter().filter_map(message).collect()
    }

    fn advance(&self, now: u64) {
        let _ = self.board.with(now, |_| ());
    }
}

#[test]
fn pit_that_nobody_hears_has_no_deadline_and_one_that_is_heard_has() {
    let machine = Machine::new(false);
    let _ = machine.out(0x21, 0xff, 0);
    machine.start_pit(0);
    assert_eq!(machine.board.deadline(), None);
    machine.ioapic(0x14, 0x30, 1);
    let first = machine.board.deadline().expect("pin 2 is unmasked");
    assert!((9 * MS..11 * MS).contains(&first), "{first}");
    assert!(machine.errands().contains(&Errand::Earlier));
}

#[test]
fn pit_tick_is_a_message_of_pin_2_and_late_ones_are_one() {
    let machine = Machine::new(false);
    let _ = machine.out(0x21, 0xff, 0);
    machine.ioapic(0x15, 3 << 24, 0);
    machine.ioapic(0x14, 0x30, 0);
    machine.start_pit(0);
    let _ = machine.errands();
    for now in [11 * MS, 21 * MS, 95 * MS] {
        machine.advance(now);
        let sent = Ipi {
            mode: DeliveryMode::Fixed,
            vector: 0x30,
            target: Target::Physical { destination: 3, x2apic: false },
            level: false,
        };
        assert_eq!(machine.messages(), [sent], "at {now}");
        assert!(machine.board.deadline().expect("it goes on") > now);
    }
}

fn start_pics(machine: &Machine, master_mask: u8) {
    for (port, values) in [(0x20, [0x11, 0x20, 0x04, 0x01]), (0xa0, [0x11, 0x28, 0x02, 0x01])] {
        let _ = machine.out(port, values[0], 0);
        for value in &values[1..] {
            let _ = machine.out(port + 1, *value, 0);
        }
    }
    let _ = machine.out(0x21, master_mask, 0);
    let _ = machine.out(0xa1, 0, 0);
}

#[test]
fn pit_tick_raises_the_output_of_the_pic_until_it_is_acknowledged() {
    let machine = Machine::new(false);
    start_pics(&machine, 0);
    machine.start_pit(0);
    assert!(!machine.board.intr());
    machine.advance(11 * MS);
    assert!(machine.errands().contains(&Errand::Intr));
    assert!(machine.board.intr());
    let (vector, _) = machine.board.with(11 * MS, |chipset| chipset.acknowledge(11 * MS));
    assert_eq!(vector, 0x20);
    assert!(!machine.board.intr());
}

#[test]
fn tick_that_was_waiting_is_no_spurious_one_however_late_the_processor_comes() {
    let machine = Machine::new(false);
    start_pics(&machine, 0);
    machine.start_pit(0);
    for now in (10..100).map(|ms| ms * MS + 999_000) {
        machine.advance(now);
    }
    let (vector, _) = machine.board.with(100 * MS, |chipset| chipset.acknowledge(100 * MS));
    assert_eq!(vector, 0x20);
}

#[test]
fn pending_request_needs_no_further_timer() {
    let machine = Machine::new(false);
    start_pics(&machine, 0);
    machine.start_pit(0);
    machine.advance(11 * MS);
    assert_eq!(machine.board.deadline(), None);
    let _ = machine.board.with(12 * MS, |chipset| chipset.acknowledge(12 * MS));
    assert!(machine.board.deadline().is_some());
}

#[test]
fn serial_edge_reaches_pin_4() {
    let machine = Machine::new(false);
    machine.ioapic(0x18, 0x44, 0);
    let _ = machine.board.with(0, |chipset| chipset.pulse(SERIAL_IRQ));
    assert_eq!(machine.messages().first().map(|ipi| ipi.vector), Some(0x44));
}

#[test]
fn serial_edges_reach_the_pic_one_by_one() {
    let machine = Machine::new(false);
    start_pics(&machine, 0);
    for _ in 0..2 {
        let _ = machine.board.with(0, |chipset| chipset.pulse(SERIAL_IRQ));
        assert!(machine.board.intr());
        let (vector, _) = machine.board.with(1, |chipset| chipset.acknowledge(1));
        assert_eq!(vector, 0x24);
        let _ = machine.out(0x20, 0x20, 2);
    }
}

#[test]
fn external_controllers_are_told_of_lines_and_of_each_edge() {
    let machine = Machine::new(true);
    assert_eq!(machine.out(0x20, 0x11, 0), Outcome::Unclaimed);
    assert_eq!(machine.out(0x43, 0x34, 0), Outcome::Unclaimed);
    let _ = machine.board.with(0, |chipset| chipset.pulse(4));
    assert_eq!(machine.lines(), [(4, true), (4, false)]);
    // The clock's update-ended interrupt.
    let _ = machine.out(0x70, 0x0b, 0);
    let _ = machine.out(0x71, 0x12, 0);
    let due = machine.board.deadline().expect("an update comes");
    let _ = machine.lines();
    machine.advance(due);
    assert_eq!(machine.lines(), [(8, true)]);
    let _ = machine.out(0x70, 0x0c, due);
    let mut flags = [0];
    let _ = machine.bus.pio_read(0x71, &mut flags, due);
    assert_eq!(flags[0] & 0x90, 0x90);
    assert!(machine.lines().contains(&(8, false)));
}

#[test]
fn lines_of_the_io_apic_alone_give_edges_to_either_controller() {
    let machine = Machine::new(true);
    for irq in [16, 23, 24, 255] {
        let _ = machine.board.with(0, |chipset| chipset.pulse(irq));
    }
    assert_eq!(machine.lines(), [(16, true), (16, false), (23, true), (23, false)]);
    let machine = Machine::new(false);
    machine.ioapic(0x10 + 2 * 17, 0x61, 0);
    for _ in 0..2 {
        let _ = machine.board.with(0, |chipset| chipset.pulse(17));
        let vectors: Vec<_> = machine.messages().iter().map(|ipi| ipi.vector).collect();
        assert_eq!(vectors, [0x61]);
    }
}

#[test]
fn each_edge_that_comes_while_another_is_told_is_one() {
    let machine = Machine::new(true);
    let _ = machine.board.with(0, |chipset| chipset.pulse(16));
    let mut told = Vec::new();
    machine.board.tell_lines(|level| {
        if told.is_empty() {
            let _ = machine.board.with(0, |chipset| chipset.pulse(16));
        }
        told.push((level.irq, level.asserted));
    });
    assert_eq!(told, [(16, true), (16, false), (16, true), (16, false)]);
}

#[test]
fn level_triggered_interrupt_is_sent_again_after_the_guest_ended_it() {
    let machine = Machine::new(false);
    machine.ioapic(0x22, 0x8000 | 0x51, 0);
    let (heard, _) = machine.board.with(0, |chipset| chipset.press_power_button(0));
    assert!(!heard);
    // PWRBTN_EN.
    let _ = machine.bus.pio_write(crate::acpi_pm::PM1A_EVENT + 2, &[0x00, 0x01], 0);
    let (heard, _) = machine.board.with(0, |chipset| chipset.press_power_button(0));
    assert!(heard);
    assert_eq!(machine.messages().len(), 1);
    let _ = machine.board.with(1, |chipset| chipset.end_of_interrupt(0x51));
    assert_eq!(machine.messages().len(), 1, "the line is still asserted");
    // Written back, the status is clear and the line falls.
    let _ = machine.bus.pio_write(crate::acpi_pm::PM1A_EVENT, &[0x00, 0x01], 2);
    let _ = machine.board.with(3, |chipset| chipset.end_of_interrupt(0x51));
    assert!(machine.messages().is_empty());
}

#[test]
fn clock_wakes_a_machine_that_listens_to_the_sci_alone() {
    let machine = Machine::new(false);
    let _ = machine.out(0x21, 0xff, 0);
    machine.ioapic(0x22, 0x8000 | 0x51, 0);
    // An alarm that matches each second, and its interrupt.
    for (register, value) in [(1, 0xff), (3, 0xff), (5, 0xff), (0x0b, 0x22)] {
        let _ = machine.out(0x70, register, 0);
        let _ = machine.out(0x71, value, 0);
    }
    assert_eq!(machine.board.deadline(), None, "nobody listens");
    // RTC_EN.
    let _ = machine.bus.pio_write(crate::acpi_pm::PM1A_EVENT + 2, &[0x00, 0x04], 0);
    let due = machine.board.deadline().expect("the alarm comes");
    let _ = machine.errands();
    machine.advance(due);
    assert_eq!(machine.messages().first().map(|ipi| ipi.vector), Some(0x51));
    let mut status = [0; 2];
    let _ = machine.bus.pio_read(crate::acpi_pm::PM1A_EVENT, &mut status, due);
    assert_eq!(status, [0, 4]);
    let _ = machine.bus.pio_write(crate::acpi_pm::PM1A_EVENT, &[0x00, 0x04], due);
    // The clock's own line is up until its register C is read, and gives no second event.
    machine.advance(due + 1);
    let _ = machine.bus.pio_read(crate::acpi_pm::PM1A_EVENT, &mut status, due + 1);
    assert_eq!(status, [0, 0]);
}

#[test]
fn ways_to_end_the_machine() {
    let machine = Machine::new(false);
    assert_eq!(machine.bus.pio_write(0x600, &[0x34, 0], 0), Outcome::PowerOff);
    assert_eq!(machine.bus.pio_write(0x604, &[0x00, 0x20], 0), Outcome::PowerOff);
    assert_eq!(machine.bus.pio_write(0x604, &[0x00], 0), Outcome::None);
    assert_eq!(machine.out(0x92, 0x01, 0), Outcome::Reset);
    assert_eq!(machine.out(0xcf9, 0x06, 0), Outcome::Reset);
}

#[test]
fn word_access_reaches_both_ports() {
    let machine = Machine::new(false);
    let _ = machine.bus.pio_write(0x4d0, &[0xff, 0xff], 0);
    let mut elcr = [0; 2];
    let _ = machine.bus.pio_read(0x4d0, &mut elcr, 0);
    // IRQ 0, 1, 2, 8 and 13 are always edge-triggered.
    assert_eq!(elcr, [0xf8, 0xde]);
}

#[test]
fn guest_drives_lines_by_hand() {
    let machine = Machine::new(false);
    machine.ioapic(0x10 + 2 * 14, 0x70, 0);
    machine.ioapic(0x10 + 2 * 23, 0x71, 0);
    for (port, vector) in [(0x200e, 0x70), (0x2017, 0x71)] {
        assert_eq!(machine.out(port, 1, 0), Outcome::Errands);
        let vectors: Vec<_> = machine.messages().iter().map(|message| message.vector).collect();
        assert_eq!(vectors, [vector]);
        assert_eq!(machine.out(port, 2, 0), Outcome::None, "no new edge");
        assert_eq!(machine.out(port, 0, 0), Outcome::None);
        assert_eq!(machine.out(port, 1, 0), Outcome::Errands);
        assert_eq!(machine.messages().len(), 1);
    }
    let mut data = [0];
    assert_eq!(machine.bus.pio_read(0x200e, &mut data, 0), Outcome::None);
    assert_eq!(data, [0xff]);
}

#[test]
fn line_that_the_guest_holds_stays_asserted_when_its_device_lets_go() {
    let machine = Machine::new(false);
    machine.ioapic(0x10 + 2 * 9, 0x8050, 0);
    let _ = machine.out(0x2009, 1, 0);
    assert_eq!(machine.messages().len(), 1);
    // Any access settles the lines that follow a device's state.
    machine.advance(1);
    let (_, _) = machine.board.with(2, |chipset| chipset.end_of_interrupt(0x50));
    assert_eq!(machine.messages().len(), 1, "still asserted");
    let _ = machine.out(0x2009, 0, 3);
    let (_, _) = machine.board.with(4, |chipset| chipset.end_of_interrupt(0x50));
    assert!(machine.messages().is_empty());
}

#[test]
fn lines_driven_by_hand_reach_external_controllers() {
    let machine = Machine::new(true);
    let _ = machine.out(0x2010, 1, 0);
    assert_eq!(machine.lines(), [(16, true)]);
    let _ = machine.out(0x2010, 0, 0);
    assert_eq!(machine.lines(), [(16, false)]);
}
