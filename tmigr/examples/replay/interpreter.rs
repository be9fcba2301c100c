//! The replay language: one command a line, one answer a command.
//!
//! Owns the parsing, the answers' text and each slot's list of timers. Must not do input or output.

use std::fmt::{self, Write as _};

use tmigr::{
    Expire, Expired, GroupView, Hierarchy, Next, Notice, PrepareError, Slot, SlotError, Wakeup,
};

/// A line that is no command, or not one that can be given here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    line: u64,
    why: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: line {}: {}", self.line, self.why)
    }
}

/// Runs commands on a hierarchy.
#[derive(Default)]
pub struct Interpreter {
    line: u64,
    world: Option<World>,
}

impl Interpreter {
    /// Before the first line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs one line and returns its answer, with its line ends; nothing for an empty line.
    ///
    /// # Errors
    /// The line is malformed.
    pub fn line(&mut self, line: &[u8]) -> Result<String, Malformed> {
        self.line += 1;
        self.run(line).map_err(|why| Malformed { line: self.line, why })
    }

    fn run(&mut self, line: &[u8]) -> Result<String, String> {
        let command = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let text = str::from_utf8(command).map_err(|_| "not UTF-8".to_owned())?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some((&name, arguments)) = words.split_first() else {
            return Ok(String::new());
        };
        let mut answer = match (&mut self.world, name) {
            (None, "topology") => {
                let [slots, nodes] = exactly(arguments)?;
                let world = World::new(number(slots)?, number(nodes)?)?;
                let tree = &world.tree;
                let answer =
                    format!("levels {} crossnode {}", tree.levels(), tree.crossnode_level());
                self.world = Some(world);
                answer
            }
            (Some(_), "topology") => return Err("a second topology".into()),
            (None, _) => return Err(format!("{name} before topology")),
            (Some(world), _) => world.run(name, arguments)?,
        };
        answer.push('\n');
        Ok(answer)
    }
}

fn exactly<'a, const N: usize>(arguments: &[&'a str]) -> Result<[&'a str; N], String> {
    arguments.try_into().map_err(|_| format!("{N} arguments expected, {} given", arguments.len()))
}

fn digits(word: &str) -> Result<u64, String> {
    let decimal = word.bytes().all(|byte| byte.is_ascii_digit());
    decimal
        .then(|| word.parse().ok())
        .flatten()
        .ok_or_else(|| format!("{word} is not a number in range"))
}

fn number(word: &str) -> Result<u32, String> {
    u32::try_from(digits(word)?).map_err(|_| format!("{word} is out of range"))
}

fn time(word: &str) -> Result<u64, String> {
    if word == "never" { Ok(u64::MAX) } else { digits(word) }
}

fn expiry(word: &str) -> Result<Option<u64>, String> {
    Ok(time(word)?.checked_add(1).map(|after| after - 1))
}

fn shown(expiry: Option<u64>) -> String {
    expiry.filter(|at| *at != u64::MAX).map_or("never".into(), |at| at.to_string())
}

/// What a command that may be refused prints.
fn answer(result: Result<String, SlotError>) -> String {
    result.unwrap_or_else(|why| format!("error {why}"))
}

fn first(wakeup: Wakeup) -> String {
    format!("first {}", shown(wakeup.first))
}

/// The timers of each slot, sorted, and what a pass removed from them.
struct Timers {
    lists: Vec<Vec<u64>>,
    expired: Vec<(Slot, u64)>,
}

impl Timers {
    fn list(&mut self, slot: Slot) -> &mut Vec<u64> {
        &mut self.lists[slot.0 as usize]
    }

    fn expire_due(&mut self, slot: Slot, now: u64) {
        let list = self.list(slot);
        let due = list.partition_point(|&at| at <= now);
        let gone: Vec<u64> = list.drain(..due).collect();
        self.expired.extend(gone.into_iter().map(|at| (slot, at)));
    }
}

struct Replayed<'a> {
    timers: &'a mut Timers,
    by: Slot,
}

impl Expire for Replayed<'_> {
    fn expire(&mut self, slot: Slot, now: u64) -> Expired {
        if slot != self.by {
            self.timers.expire_due(slot, now);
        }
        let next = self.timers.list(slot).first().copied();
        Expired { next: Next::Owned(next), stop: false }
    }

    fn release(&mut self, _slot: Slot) {}

    fn notify(&mut self, _notice: Notice) {}
}

struct World {
    tree: Hierarchy,
    slots: u32,
    nodes: u32,
    timers: Timers,
}

impl World {
    fn new(slots: u32, nodes: u32) -> Result<Self, String> {
        let tree = Hierarchy::new(slots, nodes).map_err(|error| error.to_string())?;
        let lists = (0..slots).map(|_| Vec::new()).collect();
        Ok(World { tree, slots, nodes, timers: Timers { lists, expired: Vec::new() } })
    }

    fn slot(&self, word: &str) -> Result<Slot, String> {
        let slot = number(word)?;
        if slot < self.slots { Ok(Slot(slot)) } else { Err(format!("there is no CPU {slot}")) }
    }

    fn node(&self, word: &str) -> Result<u32, String> {
        let node = number(word)?;
        if node < self.nodes { Ok(node) } else { Err(format!("there is no node {node}")) }
    }

    fn slot_and_expiry(&self, arguments: &[&str]) -> Result<(Slot, Option<u64>), String> {
        let [slot, at] = exactly(arguments)?;
        Ok((self.slot(slot)?, expiry(at)?))
    }

    fn slot_and_time(&self, arguments: &[&str]) -> Result<(Slot, u64), String> {
        let [slot, at] = exactly(arguments)?;
        Ok((self.slot(slot)?, time(at)?))
    }

    fn run(&mut self, name: &str, arguments: &[&str]) -> Result<String, String> {
        match name {
            "prepare" => {
                let [slot, node] = exactly(arguments)?;
                self.prepare(self.slot(slot)?, self.node(node)?)
            }
            "available" => self.available(arguments),
            "unavailable" => {
                let [slot] = exactly(arguments)?;
                let left = self.tree.unavailable(self.slot(slot)?);
                Ok(if left.trigger.is_some() { "trigger" } else { "none" }.into())
            }
            "activate" => {
                let [slot] = exactly(arguments)?;
                Ok(answer(self.tree.activate(self.slot(slot)?).map(|_not_shown| "ok".into())))
            }
            "deactivate" => {
                let (slot, next) = self.slot_and_expiry(arguments)?;
                Ok(answer(self.tree.deactivate(slot, next).map(first)))
            }
            "new_timer" => {
                let (slot, next) = self.slot_and_expiry(arguments)?;
                Ok(answer(self.tree.new_timer(slot, next).map(first)))
            }
            "quick_check" => {
                let (slot, next) = self.slot_and_expiry(arguments)?;
                let forecast = self.tree.quick_check(slot, next);
                Ok(answer(forecast.map(|at| format!("next {}", shown(at)))))
            }
            "requires" => {
                let (slot, now) = self.slot_and_time(arguments)?;
                Ok(self.tree.requires_handle_remote(slot, now).to_string())
            }
            "timer" => {
                let (slot, at) = self.slot_and_time(arguments)?;
                let list = self.timers.list(slot);
                list.insert(list.partition_point(|&other| other <= at), at);
                Ok("ok".into())
            }
            "cancel" => self.cancel(arguments),
            "handle" => self.handle(arguments),
            "groups" => {
                let [] = exactly(arguments)?;
                Ok(self.tree.groups().iter().map(group_line).chain(["end".into()]).collect())
            }
            _ => Err(format!("unknown command {name}")),
        }
    }

    fn prepare(&mut self, slot: Slot, node: u32) -> Result<String, String> {
        let all = || (0..self.slots).map(Slot);
        let by = all()
            .find(|&slot| self.tree.is_available(slot) && !self.tree.is_idle(slot))
            .unwrap_or(slot);
        match self.tree.prepare(slot, node, by) {
            Ok(_not_shown) => Ok("ok".into()),
            Err(PrepareError::NoActiveSlot(_)) => Ok("error no active cpu".into()),
            Err(PrepareError::NoRoom(_)) => Ok("error no room".into()),
            Err(PrepareError::NoMemory) => Ok("error no memory".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn available(&mut self, arguments: &[&str]) -> Result<String, String> {
        let [slot, how] = exactly(arguments)?;
        let idle = match how {
            "idle" => true,
            "active" => false,
            _ => return Err(format!("{how} is neither idle nor active")),
        };
        let answer = self.tree.available(self.slot(slot)?, idle);
        Ok(if answer.is_ok() { "ok" } else { "error not prepared" }.into())
    }

    fn cancel(&mut self, arguments: &[&str]) -> Result<String, String> {
        let (slot, at) = self.slot_and_time(arguments)?;
        let list = self.timers.list(slot);
        let Some(found) = list.iter().position(|&other| other == at) else {
            return Ok("error not armed".into());
        };
        list.remove(found);
        Ok("ok".into())
    }

    fn handle(&mut self, arguments: &[&str]) -> Result<String, String> {
        let (slot, now) = self.slot_and_time(arguments)?;
        self.timers.expired.clear();
        self.timers.expire_due(slot, now);
        let mut expire = Replayed { timers: &mut self.timers, by: slot };
        let pass = self.tree.handle_remote(slot, now, &mut expire);
        let mut answer = String::from("expired ");
        for (slot, at) in &self.timers.expired {
            let _infallible = write!(answer, "{slot}:{} ", shown(Some(*at)));
        }
        let _infallible = write!(answer, "wakeup {}", shown(pass.wakeup));
        Ok(answer)
    }
}

fn or_dash<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or("-".into(), text)
}

fn group_line(group: &GroupView) -> String {
    format!(
        "g{} level={} node={} children={} mask={:02x} parent={} migrator={:02x} active={:02x} next={}\n",
        group.id,
        group.level,
        or_dash(group.node, |node| node.to_string()),
        group.children,
        group.mask,
        or_dash(group.parent, |parent| format!("g{parent}")),
        group.migrator.unwrap_or(0xFF),
        group.active,
        shown(group.next),
    )
}
