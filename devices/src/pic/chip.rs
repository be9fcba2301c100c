//! One 8259A.
//!
//! Owns its registers, its eight inputs and the order of their priorities. Must not know the other
//! chip, but for which of its inputs the other one drives.

/// ICW1, by bit 4 of the first address.
const ICW1: u8 = 1 << 4;
const ICW1_IC4: u8 = 1 << 0;
const ICW1_SNGL: u8 = 1 << 1;
const ICW1_LTIM: u8 = 1 << 3;

const ICW2_BASE: u8 = 0xf8;

const ICW4_AEOI: u8 = 1 << 1;
const ICW4_SFNM: u8 = 1 << 4;

/// OCW3 rather than OCW2, by bit 3 of the first address.
const OCW3: u8 = 1 << 3;
const OCW3_RIS: u8 = 1 << 0;
const OCW3_RR: u8 = 1 << 1;
const OCW3_P: u8 = 1 << 2;
const OCW3_SMM: u8 = 1 << 5;
const OCW3_ESMM: u8 = 1 << 6;

const POLL_INTERRUPT: u8 = 1 << 7;
/// What stands in for the number of a request that is not there ("default IR7").
const DEFAULT_IR: u8 = 7;

/// What is next written to the second address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// OCW1, to a chip that was never initialised: it asks for no interrupt.
    NeverInitialised,
    /// OCW1.
    Ocw1,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, Debug)]
pub(super) struct Chip {
    /// Which input is the INT output of another chip. It needs no latch: that output falls at each
    /// acknowledgement, so that whenever it is high, it has risen since.
    cascade: u8,
    /// Which inputs have a trigger mode at all.
    elcr_writable: u8,
    /// Inputs that are high.
    lines: u8,
    /// Inputs that have risen since their last acknowledgement, whether or not they fell again.
    edges: u8,
    imr: u8,
    isr: u8,
    elcr: u8,
    /// The input that has the lowest priority; the one after it has the highest.
    lowest: u8,
    vector_base: u8,
    expect: Expect,
    /// ICW1 said so.
    icw3_follows: bool,
    icw4_follows: bool,
    level_triggered: bool,
    auto_eoi: bool,
    rotate_in_auto_eoi: bool,
    special_fully_nested: bool,
    special_mask: bool,
    read_isr: bool,
    /// The next read is a poll.
    poll: bool,
}

impl Chip {
    pub(super) fn new(cascade: u8, elcr_writable: u8) -> Self {
        Chip {
            cascade,
            elcr_writable,
            lines: 0,
            edges: 0,
            imr: 0,
            isr: 0,
            elcr: 0,
            lowest: 7,
            vector_base: 0,
            expect: Expect::NeverInitialised,
            icw3_follows: false,
            icw4_follows: false,
            level_triggered: false,
            auto_eoi: false,
            rotate_in_auto_eoi: false,
            special_fully_nested: false,
            special_mask: false,
            read_isr: false,
            poll: false,
        }
    }

    /// As after power-up, but the inputs stay as they are.
    pub(super) fn reset(&mut self) {
        let lines = self.lines;
        *self = Chip { lines, ..Chip::new(self.cascade, self.elcr_writable) };
    }

    pub(super) fn set_line(&mut self, ir: u8, high: bool) {
        let bit = 1 << (ir & 7);
        if !high {
            self.lines &= !bit;
        } else if self.lines & bit == 0 {
            self.lines |= bit;
            self.edges |= bit;
        }
    }

    /// The interrupt request register.
    pub(super) fn irr(&self) -> u8 {
        self.lines & (self.edges | self.levels())
    }

    /// Inputs whose state is the request.
    fn levels(&self) -> u8 {
        if self.level_triggered { 0xff } else { self.elcr | self.cascade }
    }

    /// Whether a rising edge would be a new request that is not masked.
    pub(super) fn edge_matters(&self, ir: u8) -> bool {
        self.is_ready() && (self.imr | self.irr()) & 1 << (ir & 7) == 0
    }

    pub(super) fn is_masked(&self, ir: u8) -> bool {
        self.imr & 1 << (ir & 7) != 0
    }

    pub(super) fn is_ready(&self) -> bool {
        self.expect == Expect::Ocw1
    }

    /// The request for which INT is high: the first one in the order of priorities, unless something
    /// of its priority or a higher one is in service.
    pub(super) fn request(&self) -> Option<u8> {
        if !self.is_ready() {
            return None;
        }
        let first = self.first_of(self.irr() & !self.imr)?;
        let mut in_the_way = self.isr_that_counts();
        if self.special_fully_nested && 1 << first & self.cascade != 0 {
            // Within the other chip's priorities, which this one does not know, it may be a higher
            // one than that in service.
            in_the_way &= !self.cascade;
        }
        match self.first_of(in_the_way) {
            Some(served) if self.rank(served) <= self.rank(first) => None,
            _ => Some(first),
        }
    }

    /// The special mask mode takes masked inputs out of the order of service.
    fn isr_that_counts(&self) -> u8 {
        if self.special_mask { self.isr & !self.imr } else { self.isr }
    }

    /// The one of these inputs that has the highest priority.
    fn first_of(&self, set: u8) -> Option<u8> {
        (0..8).filter(|ir| set & 1 << ir != 0).min_by_key(|ir| self.rank(*ir))
    }

    /// 0: highest priority, to 7.
    fn rank(&self, ir: u8) -> u8 {
        ir.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }

    /// INTA: which request is served, from now on. `None`: none was left, the bus shows IR7, and
    /// nothing is in service.
    pub(super) fn acknowledge(&mut self) -> Option<u8> {
        let ir = self.request()?;
        self.edges &= !(1 << ir);
        if !self.auto_eoi {
            self.isr |= 1 << ir;
        } else if self.rotate_in_auto_eoi {
            self.lowest = ir;
        }
        Some(ir)
    }

    /// What is on the bus in the second INTA cycle.
    pub(super) fn vector(&self, acknowledged: Option<u8>) -> u8 {
        self.vector_base | acknowledged.unwrap_or(DEFAULT_IR)
    }

    /// Reads the first address (`second` false) or the second.
    pub(super) fn read(&mut self, second: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return self.acknowledge().map_or(DEFAULT_IR, |ir| POLL_INTERRUPT | ir);
        }
        match second {
            true => self.imr,
            false if self.read_isr => self.isr,
            false => self.irr(),
        }
    }

    /// Writes the first address (`second` false) or the second.
    pub(super) fn write(&mut self, second: bool, value: u8) {
        match second {
            true => self.write_second(value),
            false if value & ICW1 != 0 => self.icw1(value),
            false if value & OCW3 != 0 => self.ocw3(value),
            false => self.ocw2(value),
        }
    }

    pub(super) fn elcr(&self) -> u8 {
        self.elcr
    }

    /// An input that changes its mode while it is high needs a new edge, if edges count then.
    pub(super) fn set_elcr(&mut self, value: u8) {
        let value = value & self.elcr_writable;
        self.edges &= !(self.elcr ^ value);
        self.elcr = value;
    }

    fn icw1(&mut self, value: u8) {
        self.edges = 0;
        self.imr = 0;
        self.isr = 0;
        self.lowest = 7;
        self.icw3_follows = value & ICW1_SNGL == 0;
        self.icw4_follows = value & ICW1_IC4 != 0;
        self.level_triggered = value & ICW1_LTIM != 0;
        self.auto_eoi = false;
        self.rotate_in_auto_eoi = false;
        self.special_fully_nested = false;
        self.special_mask = false;
        self.read_isr = false;
        self.poll = false;
        self.expect = Expect::Icw2;
    }

    fn write_second(&mut self, value: u8) {
        let after_icw3 = if self.icw4_follows { Expect::Icw4 } else { Expect::Ocw1 };
        self.expect = match self.expect {
            Expect::NeverInitialised | Expect::Ocw1 => {
                self.imr = value;
                return;
            }
            Expect::Icw2 => {
                self.vector_base = value & ICW2_BASE;
                if self.icw3_follows { Expect::Icw3 } else { after_icw3 }
            }
            Expect::Icw3 => after_icw3,
            Expect::Icw4 => {
                self.auto_eoi = value & ICW4_AEOI != 0;
                self.special_fully_nested = value & ICW4_SFNM != 0;
                Expect::Ocw1
            }
        };
    }

    /// R, SL and EOI are bits 7 to 5; the input is bits 2 to 0.
    fn ocw2(&mut self, value: u8) {
        let ir = value & 7;
        match value >> 5 {
            0b000 => self.rotate_in_auto_eoi = false,
            0b100 => self.rotate_in_auto_eoi = true,
            0b001 => {
                let _ = self.end_first();
            }
            0b101 => {
                if let Some(ended) = self.end_first() {
                    self.lowest = ended;
                }
            }
            0b011 => self.isr &= !(1 << ir),
            0b111 => {
                self.isr &= !(1 << ir);
                self.lowest = ir;
            }
            0b110 => self.lowest = ir,
            _ => {}
        }
    }

    /// Non-specific EOI: ends what has the highest priority, and says what that was.
    fn end_first(&mut self) -> Option<u8> {
        let ir = self.first_of(self.isr_that_counts())?;
        self.isr &= !(1 << ir);
        Some(ir)
    }

    fn ocw3(&mut self, value: u8) {
        self.poll = value & OCW3_P != 0;
        if value & OCW3_RR != 0 {
            self.read_isr = value & OCW3_RIS != 0;
        }
        if value & OCW3_ESMM != 0 {
            self.special_mask = value & OCW3_SMM != 0;
        }
    }
}
