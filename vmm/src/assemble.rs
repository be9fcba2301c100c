//! Building one VM: memory, kernel, interrupt controllers, vCPUs.
//!
//! Owns the order of the steps, none of which starts anything: a failure leaves nothing behind but
//! an error. Must not know how vCPUs run.

use std::sync::Arc;

use devices::apic::{ApicConfig, LocalApic, Routing};
use devices::bus::{BusBuilder, BusError};
use devices::chipset::{Board, ChipsetConfig, SERIAL_IRQ};
use devices::debug_exit::{self, DebugExit};
use devices::debug_port::{self, DebugPort};
use devices::fw_cfg::{self, Contents, FwCfg};
use devices::i8042::{self, I8042};
use devices::pvpanic::{self, PvPanic};
use devices::rtc::RtcConfig;
use devices::serial::{self, SerialPort};
use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::VmFd;
use thiserror::Error;
use tmigr::Slot;
use vmm_sys_util::eventfd::EventFd;

use crate::boot::{self, BootError, StateError};
use crate::clock;
use crate::console::ConsoleWriter;
use crate::cpu_features::CpuFeatures;
use crate::cpuid::{self, CpuidError};
use crate::descriptors;
use crate::domain::{Domain, TimerMode};
use crate::gdb::rendezvous::Debugger;
use crate::in_kernel_lines;
use crate::kvm::{Host, KvmError};
use crate::limits::Limits;
use crate::memory::{self, MemoryError};
use crate::msr;
use crate::placement::{Placement, PlacementError};
use crate::probe::Facts;
use crate::shared_image::{self, SharedImage};
use crate::vcpu::{self, Core, Vcpu};
use crate::virtio::{self, Backend, VirtioConfig, VirtioError};
use crate::vm::{Parts, VmShared};

/// Frequency of the virtual APIC timer at divide-by-1, as KVM's and QEMU's.
const APIC_TIMER_HZ: u64 = 1_000_000_000;

/// Three pages that the guest never sees (KVM API, "KVM_SET_TSS_ADDR"), below the BIOS's place.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// Which ways of arming the APIC timer a guest is offered (`--apic-timer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ApicTimer {
    /// TSC deadline where the host hands it to user space, else the initial count alone
    Auto,
    /// TSC deadline; an error where the host cannot
    Deadline,
    /// The initial count alone: one-shot and periodic
    Oneshot,
}

/// What a VM is made of.
#[derive(Clone)]
pub struct VmConfig {
    /// The kernel file, whole.
    pub kernel: Arc<[u8]>,
    /// Its name in messages.
    pub kernel_name: String,
    /// The initial RAM disk, or multiboot module.
    pub initrd: Option<Arc<[u8]>>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Number of vCPUs.
    pub cpus: u32,
    /// Guest RAM in bytes.
    pub memory: u64,
    /// Timer modes offered.
    pub apic_timer: ApicTimer,
    /// CPU features beyond, or without, the default ones.
    pub cpu_features: CpuFeatures,
    /// A debugger is waited for.
    pub debug: bool,
    /// What it may ask of the host.
    pub limits: Limits,
    /// Where on the host it is.
    pub placement: Placement,
    /// Its virtio devices.
    pub virtio: VirtioConfig,
}

/// Why a VM could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The kernel or its place in memory.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Its place on the host.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// CPUID.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// A KVM facility.
    #[error(transparent)]
    Host(#[from] KvmError),
    /// An ioctl.
    #[error("{what}: {source}{}", descriptors::hint(Some(.source.errno())))]
    Kvm {
        /// What was tried.
        what: &'static str,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// No descriptor for the debugger.
    #[error("cannot set up the debugger: {0}{hint}", hint = descriptors::hint(.0.raw_os_error()))]
    Debugger(#[source] std::io::Error),
    /// The devices' addresses collide.
    #[error("cannot set up devices: {0}")]
    Devices(#[from] BusError),
    /// The virtio devices, or what is behind them.
    #[error(transparent)]
    Virtio(#[from] VirtioError),
    /// Registers could not be set.
    #[error(transparent)]
    State(#[from] StateError),
    /// `--apic-timer deadline` on a host where the write never arrives.
    #[error(
        "--apic-timer deadline: this host's KVM does not hand TSC-deadline writes to user space; \
         use --apic-timer oneshot or auto"
    )]
    NoDeadline,
    /// More vCPUs than KVM allows.
    #[error("--cpus {asked}: this host's KVM allows at most {most} vCPUs in a VM")]
    TooManyCpus {
        /// What was asked for.
        asked: u32,
        /// What is allowed.
        most: u32,
    },
}

fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> BuildError {
    move |source| BuildError::Kvm { what, source }
}

/// Where a VM stands among the others.
pub struct Place<'a> {
    /// Its number.
    pub id: u32,
    /// Its name; without one, `vm` and its number.
    pub name: Option<String>,
    /// The domain its vCPUs join.
    pub domain: &'a Domain,
    /// Their slots there, one for each.
    pub slots: Box<[Slot]>,
    /// Told when the VM has ended.
    pub ended: Arc<EventFd>,
    /// Its serial port's output.
    pub console: ConsoleWriter,
}

/// A VM that was built and not started.
pub struct Built {
    /// What its vCPUs share.
    pub vm: Arc<VmShared>,
    /// Its vCPUs, in order. None has a thread, or sits in the domain.
    pub vcpus: Vec<Arc<Vcpu>>,
    /// The host's ends of its virtio devices. None serves.
    pub backends: Vec<Box<dyn Backend>>,
}

/// Builds the VM.
///
/// # Errors
/// [`BuildError`], each naming what is wrong.
pub fn build(
    host: &Host,
    facts: &Facts,
    config: &VmConfig,
    place: Place<'_>,
) -> Result<Built, BuildError> {
    let most = host.max_vcpus();
    if config.cpus == 0 || config.cpus > most {
        return Err(BuildError::TooManyCpus { asked: config.cpus, most });
    }
    config.placement.check(config.cpus)?;
    let mode = place.domain.policy.mode;
    let user_apic = mode != TimerMode::Kernel;
    let tsc_deadline = offers_deadline(config.apic_timer, user_apic, facts)?;
    check_balloon(config)?;
    let devices = virtio::open(&config.virtio)?;
    let guest_memory = memory::create_placed(config.memory, &config.placement)?;
    let images = Images::of(config);
    let payload = boot::Payload {
        kernel: &config.kernel,
        name: &config.kernel_name,
        cmdline: &config.cmdline,
        initrd: config.initrd.as_deref(),
        shared: images.to_map(config),
        virtio: devices.len(),
    };
    let entry = boot::load(&guest_memory, &payload, config.cpus)?;
    let fd = create_vm(host, user_apic)?;
    memory::register(&fd, &guest_memory)?;
    let board = Arc::new(Board::new(&chipset(config, memory::low_end(&guest_memory), user_apic)));
    let bus = bus(place.console, config, &images, &board)?;
    let (bus, backends) = virtio::plug(devices, &fd, &guest_memory, bus)?;
    let debugger = match config.debug {
        true => Some(Arc::new(Debugger::new(config.cpus).map_err(BuildError::Debugger)?)),
        false => None,
    };
    let vm = Arc::new(VmShared::new(Parts {
        name: place.name.unwrap_or_else(|| format!("vm{}", place.id)),
        id: place.id,
        cpus: config.cpus,
        slots: place.slots,
        bus: bus.freeze(),
        board,
        images: [images.kernel, images.initrd].into_iter().flatten().collect(),
        user_apic,
        routing: Routing::new(config.cpus as usize),
        memory: guest_memory,
        fd,
        debugger,
        limits: config.limits,
        built_at: clock::now_ns(),
        ended: place.ended,
    }));
    let mut vcpus = Vec::with_capacity(vm.slots.len());
    for (index, slot) in (0..).zip(&vm.slots) {
        let fd = vm.fd.create_vcpu(u64::from(index)).map_err(kvm("cannot create a vCPU"))?;
        let options = cpuid::Options {
            cpus: config.cpus,
            apic_id: index,
            user_apic,
            tsc_deadline,
            tsc_adjust: facts.tsc_moves,
            tsc_khz: facts.tsc_khz,
        };
        vcpu::admit_signal(&fd).map_err(kvm("cannot set the signal mask"))?;
        let leaves = cpuid::for_vcpu(host, &options, &config.cpu_features)?;
        fd.set_cpuid2(&leaves).map_err(kvm("cannot set CPUID"))?;
        let tsc_offset = msr::tsc_offset(&fd);
        let apic = LocalApic::new(ApicConfig {
            id: index,
            bsp: index == 0,
            physical_bits: cpuid::physical_bits(&leaves),
            tsc_khz: facts.tsc_khz,
            timer_hz: APIC_TIMER_HZ,
            tsc_deadline,
            least_period_ns: config.limits.min_timer_period_ns,
            // KVM's guests have no corrected machine checks (IA32_MCG_CAP).
            cmci: false,
            pv_eoi: true,
        });
        if index == 0 {
            boot::set_entry_state(&fd, &vm.memory, &entry)?;
        } else if user_apic {
            boot::set_init_state(&fd)?;
        }
        let core = Core::new(fd, apic, tsc_offset, user_apic && index > 0);
        let vcpu = Vcpu::new(Arc::clone(&vm), index, *slot, core);
        vcpu.set_isolated(config.placement.isolate.contains(index));
        vcpus.push(Arc::new(vcpu));
    }
    Ok(Built { vm, vcpus, backends })
}

fn check_balloon(config: &VmConfig) -> Result<(), VirtioError> {
    match config.virtio.balloon {
        Some(_) if config.placement.hugepages.is_some() => Err(VirtioError::BalloonOfHugePages),
        Some(target) if target >= config.memory => {
            Err(VirtioError::BalloonTooLarge { target, memory: config.memory })
        }
        _ => Ok(()),
    }
}

fn offers_deadline(wanted: ApicTimer, user_apic: bool, facts: &Facts) -> Result<bool, BuildError> {
    let possible = !user_apic || facts.tsc_deadline_exits;
    match wanted {
        ApicTimer::Auto => Ok(possible),
        ApicTimer::Oneshot => Ok(false),
        ApicTimer::Deadline if possible => Ok(true),
        ApicTimer::Deadline => Err(BuildError::NoDeadline),
    }
}

/// The images of a VM that other VMs of the process may have, too.
struct Images {
    kernel: Option<Arc<SharedImage>>,
    initrd: Option<Arc<SharedImage>>,
}

impl Images {
    fn of(config: &VmConfig) -> Self {
        let mapped = config.placement.allows_shared_pages();
        Images {
            kernel: Some(&config.kernel).filter(|_| mapped).and_then(|k| shared_image::of(k)),
            // This one is read through fw_cfg, too.
            initrd: config.initrd.as_deref().and_then(shared_image::of),
        }
    }

    /// Those whose pages become guest memory.
    fn to_map(&self, config: &VmConfig) -> boot::Shared<'_> {
        match config.placement.allows_shared_pages() {
            true => boot::Shared { kernel: self.kernel.as_deref(), initrd: self.initrd.as_deref() },
            false => boot::Shared::default(),
        }
    }

    fn initrd_bytes(&self, config: &VmConfig) -> Option<fw_cfg::Shared> {
        match (&self.initrd, &config.initrd) {
            (Some(image), _) => Some(Arc::clone(image) as fw_cfg::Shared),
            (None, Some(bytes)) => Some(Arc::new(Arc::clone(bytes))),
            (None, None) => None,
        }
    }
}

fn create_vm(host: &Host, user_apic: bool) -> Result<VmFd, BuildError> {
    let fd = host.kvm.create_vm().map_err(kvm("cannot create a VM"))?;
    // VMX without unrestricted guests needs it for real mode; elsewhere it does no harm.
    fd.set_tss_address(TSS_ADDRESS).map_err(kvm("cannot place the TSS"))?;
    if user_apic {
        msr::enable_user_space_msrs(&fd)?;
    } else {
        fd.create_irq_chip().map_err(kvm("cannot create the in-kernel interrupt controllers"))?;
        in_kernel_lines::route(&fd).map_err(kvm("cannot route the interrupt lines"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).map_err(kvm("cannot create the in-kernel PIT"))?;
    }
    Ok(fd)
}

/// The devices that every VM has.
fn bus(
    console: ConsoleWriter,
    config: &VmConfig,
    images: &Images,
    board: &Arc<Board>,
) -> Result<BusBuilder, BusError> {
    let facts = Contents {
        ram: config.memory,
        cpus: config.cpus,
        cmdline: config.cmdline.clone(),
        initrd: images.initrd_bytes(config),
    };
    let input = Box::new(console.reader());
    let serial = SerialPort::new(console.clone(), SERIAL_IRQ).with_input(input);
    let bus = BusBuilder::new()
        .pio(serial::COM1, Box::new(serial))?
        .pio(debug_port::PORTS, Box::new(DebugPort::new(console)))?
        .pio(fw_cfg::PORTS, Box::new(FwCfg::new(facts)))?
        .pio(debug_exit::PORTS, Box::new(DebugExit))?
        .pio(pvpanic::PORT, Box::new(PvPanic))?
        .pio(i8042::DATA, Box::new(I8042::Data))?
        .pio(i8042::COMMAND, Box::new(I8042::Command))?;
    board.attach(bus)
}

/// `low`: bytes of memory below 4 GiB.
fn chipset(config: &VmConfig, low: u64, user_apic: bool) -> ChipsetConfig {
    let start_ns = clock::now_ns();
    ChipsetConfig {
        ioapic_id: boot::layout::io_apic_id(config.cpus),
        rtc: RtcConfig {
            host_ns: start_ns,
            unix_ns: clock::unix_ns(),
            memory_below_4g: low,
            memory_above_4g: config.memory.saturating_sub(low),
            least_period_ns: config.limits.min_timer_period_ns,
        },
        start_ns,
        least_period_ns: config.limits.min_timer_period_ns,
        external_controllers: !user_apic,
    }
}
