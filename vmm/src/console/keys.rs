//! What is typed at a guest's console: keys for the guest, and a few for whoever runs it.
//!
//! Pure. Owns the meaning of Ctrl-A. Must not know terminals.
//!
//! | typed | what it means |
//! |---|---|
//! | Ctrl-A X | the VM is ended |
//! | Ctrl-A P | the power button is pressed |
//! | Ctrl-A A, Ctrl-A Ctrl-A | the guest gets a Ctrl-A |
//! | Ctrl-A H, Ctrl-A ? | help |
//! | Ctrl-A and anything else | nothing |

/// The key that makes the next one a command.
const PREFIX: u8 = 0x01;

/// What [`Wish::Help`] is answered with.
pub const HELP: &str = "\
Ctrl-A X  ends the VM
Ctrl-A P  presses its power button
Ctrl-A A  sends Ctrl-A to the guest
Ctrl-A H  shows this
";

/// Something that whoever types wants of the VM's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The VM shall end.
    Quit,
    /// Its power button shall be pressed.
    PowerButton,
    /// These keys shall be explained.
    Help,
}

/// Which keys have been typed so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys {
    prefixed: bool,
}

impl Keys {
    /// Takes what was typed: keys for the guest are added to `guest`, the others come back in order.
    #[must_use]
    pub fn typed(&mut self, bytes: &[u8], guest: &mut Vec<u8>) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for &byte in bytes {
            if !std::mem::take(&mut self.prefixed) {
                match byte {
                    PREFIX => self.prefixed = true,
                    _ => guest.push(byte),
                }
                continue;
            }
            match byte {
                b'x' | b'X' => wishes.push(Wish::Quit),
                b'p' | b'P' => wishes.push(Wish::PowerButton),
                b'h' | b'H' | b'?' => wishes.push(Wish::Help),
                b'a' | b'A' | PREFIX => guest.push(PREFIX),
                _ => {}
            }
        }
        wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_guests_but_for_those_behind_ctrl_a() {
        for (typed, guest, wishes) in [
            (&b"ls\r\x03\x04\x1a\x1c"[..], &b"ls\r\x03\x04\x1a\x1c"[..], &[][..]),
            (b"\x01x", b"", &[Wish::Quit]),
            (b"x\x01X!", b"x!", &[Wish::Quit]),
            (b"\x01\x01x", b"\x01x", &[]),
            (b"\x01a\x01A", b"\x01\x01", &[]),
            (b"\x01h\x01?\x01p", b"", &[Wish::Help, Wish::Help, Wish::PowerButton]),
            (b"\x01zx\xff", b"x\xff", &[]),
        ] {
            let (mut keys, mut to) = (Keys::default(), Vec::new());
            assert_eq!(keys.typed(typed, &mut to), wishes, "{typed:?}");
            assert_eq!(to, guest, "{typed:?}");
            // However the keys come apart.
            let (mut keys, mut to, mut asked) = (Keys::default(), Vec::new(), Vec::new());
            for byte in typed {
                asked.extend(keys.typed(&[*byte], &mut to));
            }
            assert_eq!((&to[..], &asked[..]), (guest, wishes), "{typed:?}");
        }
    }
}
