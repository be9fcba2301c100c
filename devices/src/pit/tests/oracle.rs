//! A channel that is clocked tick by tick, written from the datasheet's prose: what the real one,
//! which never is, must agree with.

pub(super) struct Oracle {
    pub(super) mode: u8,
    gate: bool,
    trigger: bool,
    /// Count register and whether it was written since the control word.
    register: u32,
    written: bool,
    /// Written since the last tick, in a mode that takes the count at once.
    fresh: bool,
    pub(super) null: bool,
    /// Mode 0 between the two bytes, or any mode before its count.
    halted: bool,
    pub(super) element: u16,
    /// Modes 0, 1, 4, 5: zero has not been reached. Mode 3: this half has the odd count's extra tick.
    waiting: bool,
    /// Mode 3: in that extra tick.
    expired: bool,
    pub(super) out: bool,
    pub(super) rises: u32,
}

impl Oracle {
    pub(super) fn new(gate: bool) -> Self {
        Oracle {
            mode: 3,
            gate,
            trigger: false,
            register: 0,
            written: false,
            fresh: false,
            null: true,
            halted: true,
            element: 0,
            waiting: false,
            expired: false,
            out: true,
            rises: 0,
        }
    }

    fn set_out(&mut self, out: bool) {
        self.rises += u32::from(out && !self.out);
        self.out = out;
    }

    pub(super) fn control(&mut self, mode: u8) {
        self.mode = mode;
        self.written = false;
        self.fresh = false;
        self.trigger = false;
        self.null = true;
        self.halted = true;
        self.waiting = false;
        self.set_out(mode != 0);
    }

    pub(super) fn first_byte(&mut self) {
        if self.mode == 0 {
            self.halted = true;
            self.fresh = false;
            self.set_out(false);
        }
    }

    pub(super) fn count(&mut self, count: u16) {
        let illegal = count == 1 && matches!(self.mode, 2 | 3);
        self.register = if illegal { 2 } else { u32::from(count) };
        self.null = true;
        self.fresh |= match self.mode {
            0 | 4 => true,
            2 | 3 => !self.written,
            _ => false,
        };
        self.written = true;
        if self.mode == 0 {
            self.set_out(false);
        }
    }

    pub(super) fn gate(&mut self, gate: bool) {
        self.trigger |= gate && !self.gate && matches!(self.mode, 1 | 2 | 3 | 5) && self.written;
        self.gate = gate;
        if !gate && matches!(self.mode, 2 | 3) {
            self.set_out(true);
        }
    }

    fn load(&mut self) {
        let even = if self.mode == 3 { self.register & !1 } else { self.register };
        self.element = even as u16;
        self.null = false;
        self.halted = false;
        self.expired = false;
        self.waiting = self.mode != 3 || (self.register & 1 == 1 && self.out);
    }

    pub(super) fn tick(&mut self) {
        if matches!(self.mode, 4 | 5) {
            self.set_out(true);
        }
        if self.fresh || self.trigger {
            self.fresh = false;
            self.trigger = false;
            if self.mode == 1 {
                self.set_out(false);
            }
            return self.load();
        }
        if self.halted || (!self.gate && matches!(self.mode, 0 | 2 | 3 | 4)) {
            return;
        }
        match self.mode {
            2 if self.element == 1 => {
                self.set_out(true);
                self.load();
            }
            2 => {
                self.element = self.element.wrapping_sub(1);
                self.set_out(self.element != 1);
            }
            3 => self.tick_square(),
            _ => {
                self.element = self.element.wrapping_sub(1);
                if self.element == 0 && self.waiting {
                    self.waiting = false;
                    self.set_out(matches!(self.mode, 0 | 1));
                }
            }
        }
    }

    fn tick_square(&mut self) {
        if self.expired || (self.element == 2 && !self.waiting) {
            self.set_out(!self.out);
            self.load();
        } else {
            self.element = self.element.wrapping_sub(2);
            self.expired = self.element == 0;
        }
    }
}
