//! A VM as it is described in a request or a configuration file.
//!
//! Owns the defaults, the limits and the reading of the files that it names. Must not know fleets.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::assemble::{ApicTimer, VmConfig};
use crate::boot;
use crate::cli::options::MOST_CAP;
use crate::cli::values;
use crate::console::{Sink, socket};
use crate::cpu_features::CpuFeatures;
use crate::fleet::OnReboot;
use crate::kvm::LARGEST_VM;
use crate::limits::Limits;
use crate::placement::numbers::Numbers;
use crate::placement::sched::Sched;
use crate::placement::{self, HugePages, Isolated, Placement};
use crate::virtio::VirtioConfig;
use crate::virtio::disk::DiskConfig;
use crate::virtio::net::NetConfig;
use crate::virtio::terminal::TerminalConfig;
use crate::virtio::vsock::VsockConfig;

/// Most VMs of one description.
pub const MOST: u32 = 4096;
/// Longest name of a VM, in bytes.
const LONGEST_NAME: usize = 64;

/// One VM, or several that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmSpec {
    /// Its name; with a count `NAME-0`, `NAME-1`, ... Without, `vm0`, `vm1`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// An embedded kernel. Either this or `kernel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A kernel file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// An initial RAM disk or multiboot module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line; without, what [`boot::usual_cmdline`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// Number of vCPUs.
    #[serde(default = "one")]
    pub cpus: u32,
    /// Memory in bytes; written as `64M`, `2G`, or a number of MiB.
    #[serde(default = "memory", with = "size")]
    pub memory: u64,
    /// CPU features to add or to take away, as `+rdrand,-avx2`.
    #[serde(default, skip_serializing_if = "CpuFeatures::is_empty")]
    pub cpu_features: CpuFeatures,
    /// How many VMs.
    #[serde(default = "one")]
    pub count: u32,
    /// Where serial output goes: a file, or `unix:SOCKET`; with a count `.0`, `.1`, ... is appended.
    /// Without, nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// What a guest's reset of its machine leads to.
    #[serde(default)]
    pub on_reboot: OnReboot,
    /// Its vCPUs neither serve others nor are served: `isolate = "all"`.
    #[serde(default)]
    pub isolated: bool,
    /// Most CPU time, in percent of one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cap: Option<u32>,
    /// Most CPU time on other vCPUs' threads, in percent of one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_share: Option<u32>,
    /// Shortest period of its timers, written as `200us`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_timer_period: Option<String>,
    /// How much later its timers may expire than others', written as `1ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer_slack: Option<String>,
    /// Those of its vCPUs that neither serve others nor are served.
    #[serde(default, skip_serializing_if = "Isolated::is_none")]
    pub isolate: Isolated,
    /// Host CPUs of its vCPUs' threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Numbers>,
    /// Scheduling policy of its vCPUs' threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sched: Option<Sched>,
    /// Nice value of its vCPUs' threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// NUMA nodes of its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<Numbers>,
    /// Huge pages that its memory is made of: `true` (2 MiB) or a size.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "placement::hugepages"
    )]
    pub hugepages: Option<HugePages>,
    /// It has an entropy device.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rng: bool,
    /// Its disks, each as `PATH[,ro][,direct]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk: Vec<DiskConfig>,
    /// Its network devices, each as `tap=NAME`, `socket=PATH` or `fd=N`, with `,mac=ADDRESS` if wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub net: Vec<NetConfig>,
    /// Its socket device, as `cid=N,path=PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,
    /// Where its console device's output goes: `stdio`, a file, or `unix:SOCKET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtio_console: Option<TerminalConfig>,
    /// Its balloon, with the size that it begins with, in bytes; written as `64M`, or a number of MiB.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "balloon_size")]
    pub balloon: Option<u64>,
}

fn one() -> u32 {
    1
}

fn memory() -> u64 {
    64 << 20
}

mod balloon_size {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::size::Size;
    use crate::cli::values;

    pub(super) fn serialize<S: Serializer>(bytes: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        // Absent ones are not written at all.
        let kib = bytes.unwrap_or(0) >> 10;
        to.serialize_str(&if kib == 0 { "0".to_owned() } else { format!("{kib}K") })
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<u64>, D::Error> {
        let bytes = values::balloon_size(&Size::deserialize(from)?.text());
        bytes.map(Some).map_err(|why| D::Error::custom(format!("balloon: {why}")))
    }
}

mod size {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::cli::values;

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Size {
        Mib(u64),
        Text(String),
    }

    impl Size {
        pub(super) fn text(self) -> String {
            match self {
                Size::Mib(number) => number.to_string(),
                Size::Text(text) => text,
            }
        }
    }

    pub(super) fn serialize<S: Serializer>(bytes: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{}K", bytes >> 10))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
        values::memory_size(&Size::deserialize(from)?.text())
            .map_err(|why| D::Error::custom(format!("memory: {why}")))
    }
}

/// A configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    vm: Vec<VmSpec>,
}

/// Largest configuration file, in bytes.
const LARGEST_CONFIG: u64 = 1 << 20;

/// Reads a configuration file: TOML, with a `[[vm]]` for each kind of VM.
///
/// # Errors
/// One line: it cannot be read, or what is wrong in it, and where.
pub fn read_config(path: &Path) -> Result<Vec<VmSpec>, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut text = String::new();
    let read = file.take(LARGEST_CONFIG + 1).read_to_string(&mut text);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > LARGEST_CONFIG {
        return Err(format!("longer than {LARGEST_CONFIG} bytes"));
    }
    parse_config(&text)
}

fn parse_config(text: &str) -> Result<Vec<VmSpec>, String> {
    let config: Config = toml::from_str(text).map_err(|error| {
        let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
        let line = before.matches('\n').count() + 1;
        format!("line {line}: {}", error.message().lines().collect::<Vec<_>>().join("; "))
    })?;
    let mut names = Vec::new();
    for (index, vm) in config.vm.iter().enumerate() {
        let Some(name) = &vm.name else { continue };
        if names.contains(&name) {
            return Err(format!("[[vm]] {index}: the name '{name}' is taken by another"));
        }
        names.push(name);
    }
    Ok(config.vm)
}

/// A description whose files were read.
pub struct Loaded {
    /// What each VM is made of.
    pub config: VmConfig,
    /// Names, one for each VM; none: they are numbered.
    pub names: Vec<Option<String>>,
    serial: Option<String>,
    /// Whether they start again when they reset their machines.
    pub on_reboot: OnReboot,
}

impl VmSpec {
    /// Checks the description and reads what it names.
    ///
    /// # Errors
    /// One line that names the field and says what to do.
    pub fn load(&self, apic_timer: ApicTimer) -> Result<Loaded, String> {
        if self.count == 0 || self.count > MOST {
            return Err(format!("count {}: between 1 and {MOST}", self.count));
        }
        if self.cpus == 0 || self.cpus > LARGEST_VM {
            return Err(format!("cpus {}: between 1 and {LARGEST_VM}", self.cpus));
        }
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        let limits = self.limits()?;
        let (kernel, kernel_name) = self.kernel()?;
        let initrd = match &self.initrd {
            Some(path) => {
                Some(boot::read_initrd(path).map_err(|error| format!("initrd: {error}"))?.into())
            }
            None => None,
        };
        let cmdline = match &self.cmdline {
            Some(cmdline) => cmdline.clone(),
            None => boot::usual_cmdline(&kernel).to_owned(),
        };
        let config = VmConfig {
            kernel,
            kernel_name,
            initrd,
            cmdline,
            cpus: self.cpus,
            memory: self.memory,
            apic_timer,
            cpu_features: self.cpu_features.clone(),
            debug: false,
            limits,
            placement: self.placement()?,
            virtio: self.virtio(),
        };
        let names = (0..self.count).map(|index| {
            let name = self.name.as_ref()?;
            Some(if self.count == 1 { name.clone() } else { format!("{name}-{index}") })
        });
        let (serial, on_reboot) = (self.serial.clone(), self.on_reboot);
        Ok(Loaded { config, names: names.collect(), serial, on_reboot })
    }

    fn virtio(&self) -> VirtioConfig {
        VirtioConfig {
            rng: self.rng,
            disks: self.disk.clone(),
            nets: self.net.clone(),
            vsock: self.vsock.clone(),
            console: self.virtio_console.clone(),
            balloon: self.balloon,
        }
    }

    fn placement(&self) -> Result<Placement, String> {
        let isolate = match (self.isolated, &self.isolate) {
            (true, Isolated::None) => Isolated::All,
            (true, _) => return Err("isolated: leave it out beside 'isolate'".into()),
            (false, isolate) => isolate.clone(),
        };
        Ok(Placement {
            pin: self.pin.clone(),
            sched: self.sched,
            nice: self.nice,
            numa: self.numa.clone(),
            hugepages: self.hugepages,
            isolate,
        })
    }

    fn limits(&self) -> Result<Limits, String> {
        let mut limits = Limits::default();
        if let Some(percent) = self.cpu_cap {
            if !(1..=MOST_CAP).contains(&i64::from(percent)) {
                return Err(format!(
                    "cpu-cap {percent}: between 1 and {MOST_CAP} percent of a CPU"
                ));
            }
            limits.cpu_cap_percent = Some(percent);
        }
        if let Some(percent) = self.served_share {
            if !(1..=100).contains(&percent) {
                return Err(format!("served-share {percent}: between 1 and 100 percent of a CPU"));
            }
            limits.served_share_percent = percent;
        }
        if let Some(text) = &self.min_timer_period {
            let period = values::timer_period(text);
            let period = period.map_err(|why| format!("min-timer-period '{text}': {why}"))?;
            limits.min_timer_period_ns = period.as_nanos() as u64;
        }
        if let Some(text) = &self.timer_slack {
            let slack = values::duration(text);
            let slack = slack.map_err(|why| format!("timer-slack '{text}': {why}"))?;
            limits.slack_ns = slack.as_nanos() as u64;
        }
        Ok(limits)
    }

    fn kernel(&self) -> Result<(Arc<[u8]>, String), String> {
        match (&self.kernel, &self.image) {
            (Some(path), None) => {
                let bytes = boot::read_kernel(path).map_err(|error| error.to_string())?;
                Ok((bytes.into(), path.display().to_string()))
            }
            (None, Some(name)) => {
                let image = guest_images::find(name).ok_or_else(|| no_image(name))?;
                Ok((image.elf.into(), image.name.to_owned()))
            }
            _ => Err("a VM has either 'image' or 'kernel'".into()),
        }
    }
}

impl Loaded {
    /// What VM `index` is made of.
    ///
    /// # Errors
    /// One line: it cannot have a device of its own.
    pub fn config_of(&self, index: usize) -> Result<VmConfig, String> {
        let mut config = self.config.clone();
        if self.names.len() > 1 {
            config.virtio = config.virtio.numbered(index as u32)?;
        }
        Ok(config)
    }

    /// Where the serial output of VM `index` goes. Creates the file or socket.
    ///
    /// # Errors
    /// One line: it cannot be created.
    pub fn sink(&self, index: usize) -> Result<Sink, String> {
        let Some(serial) = self.serial.as_ref().filter(|serial| *serial != "none") else {
            return Ok(Sink::Null);
        };
        if serial == "stdio" {
            let what =
                "several VMs would share standard input and output; name a file or unix:SOCKET";
            return Err(format!("serial stdio: {what}"));
        }
        let name = if self.names.len() > 1 { format!("{serial}.{index}") } else { serial.clone() };
        let refused = |what: String| format!("serial {name}: {what}");
        match name.strip_prefix("unix:") {
            Some(path) => {
                socket::Listener::bind(Path::new(path)).map(Sink::Socket).map_err(refused)
            }
            None => File::create(&name)
                .map(Sink::File)
                .map_err(|error| refused(format!("cannot be written: {error}"))),
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let numbered = name.strip_prefix("vm").is_some_and(|rest| rest.parse::<u32>().is_ok());
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(letter) || numbered {
        return Err(format!(
            "name '{name}': up to {LONGEST_NAME} letters, digits, '-', '_' and '.', and not 'vm' \
             with a number, which is the name of a VM without one"
        ));
    }
    Ok(())
}

fn no_image(name: &str) -> String {
    let names = || guest_images::all().iter().map(|image| image.name);
    match values::closest(name, names()) {
        Some(closest) => format!("no image '{name}'; did you mean '{closest}'?"),
        None => format!("no image '{name}'; there are {}", names().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> VmSpec {
        serde_json::from_str(text).expect("a description")
    }

    #[test]
    fn defaults_are_those_of_the_command_line() {
        let spec = spec(r#"{"image":"tick"}"#);
        assert_eq!((spec.cpus, spec.count, spec.memory, spec.isolated), (1, 1, 64 << 20, false));
        let loaded = spec.load(ApicTimer::Auto).expect("it is right");
        assert_eq!(loaded.names, [None]);
        assert!(matches!(loaded.sink(0), Ok(Sink::Null)));
    }

    #[test]
    fn several_vms_have_numbered_names() {
        let loaded = spec(r#"{"image":"tick","name":"a","count":2,"memory":32}"#)
            .load(ApicTimer::Auto)
            .expect("it is right");
        assert_eq!(loaded.names, [Some("a-0".into()), Some("a-1".into())]);
        assert_eq!(loaded.config.memory, 32 << 20);
    }

    #[test]
    fn configuration_is_a_list_of_vms() {
        let text = "[[vm]]\nimage = 'tick'\ncount = 64\nmemory = '16M'\n\n[[vm]]\nname = 'b'\n\
                    kernel = 'k.elf'\ncpus = 2\nisolated = true\n";
        let vms = parse_config(text).expect("it is right");
        assert_eq!((vms[0].count, vms[0].memory), (64, 16 << 20));
        assert!(vms[1].isolated && vms[1].cpus == 2);
        assert!(parse_config("").expect("no VM is right, too").is_empty());
        for (wrong, part) in [
            ("[[vm]]\nimage = 'tick'\nimgae = 'x'\n", "line 3: unknown field `imgae`"),
            ("[vm]\n", "line 1"),
            ("vms = 3\n", "unknown field `vms`"),
            ("[[vm]]\ncpus = -1\n", "line 2"),
            ("[[vm]]\nmemory = '0'\n", "line 2: memory"),
            ("[[vm]]\nname='a'\n[[vm]]\nname='a'\n", "taken"),
            ("[[vm]\n", "line 1"),
        ] {
            let error = parse_config(wrong).expect_err(wrong);
            assert!(error.contains(part) && error.lines().count() == 1, "{wrong}: {error}");
        }
    }

    #[test]
    fn placement_is_read_as_people_write_it() {
        let text = "[[vm]]\nimage = 'tick'\ncpus = 3\npin = '0-1'\nsched = 'fifo:2'\nnice = -3\n\
                    numa = 0\nhugepages = true\nisolate = [0, 2]\n\n[[vm]]\nimage = 'tick'\n\
                    pin = [1, 3]\nisolated = true\nhugepages = '1G'\n";
        let vms = parse_config(text).expect("it is right");
        let placement = |vm: usize| vms[vm].placement().expect("it is right");
        let list = |text: &str| Some(text.parse::<Numbers>().expect(text));
        assert_eq!(
            placement(0),
            Placement {
                pin: list("0-1"),
                sched: Some(Sched::Fifo(2)),
                nice: Some(-3),
                numa: list("0"),
                hugepages: Some(HugePages::Size2M),
                isolate: "0,2".parse().expect("a list"),
            }
        );
        let Placement { pin, hugepages, isolate, .. } = placement(1);
        assert_eq!((pin, hugepages), (list("1,3"), Some(HugePages::Size1G)));
        assert_eq!(isolate, Isolated::All);
        // As it goes to a running process.
        for vm in &vms {
            let again = serde_json::to_string(vm).expect("JSON");
            assert_eq!(&spec(&again), vm, "{again}");
        }
        for (wrong, part) in [
            ("pin = ''", "line 3"),
            ("pin = []", "line 3"),
            ("pin = '3-1'", "ranges"),
            ("sched = 'fifo'", "fifo:PRIO"),
            ("sched = 'fifo:100'", "1 to 99"),
            ("nice = 'low'", "line 3"),
            ("hugepages = '3M'", "2M or 1G"),
            ("hugepages = 2", "\"2M\""),
            ("isolate = 'some'", "\"all\""),
        ] {
            let text = format!("[[vm]]\nimage = 'tick'\n{wrong}\n");
            let error = parse_config(&text).expect_err(wrong);
            assert!(error.contains(part) && error.lines().count() == 1, "{wrong}: {error}");
        }
    }

    #[test]
    fn devices_are_read_as_people_write_them() {
        let text = "[[vm]]\nimage = 'tick'\nname = 'a'\ncount = 2\nrng = true\n\
                    net = ['tap=t,mac=02:00:00:00:00:01', 'fd=3']\nvsock = 'cid=3,path=v'\n\
                    virtio-console = 'unix:c'\nballoon = '8M'\n";
        let vms = parse_config(text).expect("it is right");
        let virtio = vms[0].virtio();
        assert_eq!((virtio.nets.len(), virtio.balloon), (2, Some(8 << 20)));
        // As it goes to a running process.
        let again = serde_json::to_string(&vms[0]).expect("JSON");
        assert_eq!(spec(&again), vms[0], "{again}");
        let loaded = vms[0].load(ApicTimer::Auto).expect("it is right");
        assert!(loaded.config_of(1).err().expect("a descriptor").contains("fd=N"));
        let none = parse_config("[[vm]]\nimage = 'tick'\nballoon = 0\n").expect("it is right");
        assert_eq!(none[0].virtio().balloon, Some(0));
        let again = serde_json::to_string(&none[0]).expect("JSON");
        assert_eq!(spec(&again), none[0], "{again}");
        for (wrong, part) in [
            ("net = ['tap']", "tap=NAME"),
            ("vsock = 'cid=2,path=a'", "from 3 on"),
            ("virtio-console = ''", "unix:SOCKET"),
            ("balloon = 'x'", "balloon"),
        ] {
            let text = format!("[[vm]]\nimage = 'tick'\n{wrong}\n");
            let error = parse_config(&text).expect_err(wrong);
            assert!(error.contains(part) && error.lines().count() == 1, "{wrong}: {error}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (text, part) in [
            (r#"{"image":"tick","count":0}"#, "count 0"),
            (r#"{"image":"tick","count":5000}"#, "count 5000"),
            (r#"{"image":"tick","cpus":0}"#, "cpus 0"),
            (r#"{"image":"tick","cpus":100000}"#, "cpus 100000"),
            (r#"{"image":"tock"}"#, "did you mean 'tick'"),
            (r#"{}"#, "either 'image' or 'kernel'"),
            (r#"{"image":"tick","kernel":"x"}"#, "either 'image' or 'kernel'"),
            (r#"{"kernel":"/no/such"}"#, "/no/such"),
            (r#"{"image":"tick","initrd":"/no/such"}"#, "/no/such"),
            (r#"{"image":"tick","name":""}"#, "name ''"),
            (r#"{"image":"tick","name":"vm7"}"#, "vm7"),
            (r#"{"image":"tick","name":"a b"}"#, "a b"),
            (r#"{"image":"tick","isolated":true,"isolate":[0]}"#, "isolated"),
        ] {
            let error = spec(text).load(ApicTimer::Auto).err().expect(text);
            assert!(error.contains(part) && error.lines().count() == 1, "{text}: {error}");
        }
    }
}
