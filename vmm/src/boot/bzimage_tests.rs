//! Tests of the setup header's checks, with hand-made kernels; and random ones.

use super::*;
use crate::boot::layout::TAKEN;
use crate::memory;
use proptest::prelude::*;
use vm_memory::Bytes;

const MIB: u64 = 1 << 20;

/// What [`Image::build`] makes a bzImage of: protocol 2.15, 64-bit entry, 8 MiB unpacked at 4 MiB.
#[derive(Clone)]
pub(in crate::boot) struct Image {
    /// Offset and bytes of each field to overwrite.
    fields: Vec<(usize, Vec<u8>)>,
    /// Size of the protected-mode kernel, in bytes.
    size: usize,
}

impl Image {
    pub fn new() -> Self {
        Image { fields: vec![], size: 0x400 }
    }

    pub fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.fields.push((at, bytes.to_vec()));
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let mut file = vec![0xcc; 3 * 512];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[0; 0x77]);
        put(0x1f1, &[2]);
        put(SYSSIZE, &((self.size / 16) as u32).to_le_bytes());
        put(BOOT_FLAG, &[0x55, 0xaa, 0xeb, 0x66]);
        put(MAGIC, b"HdrS\x0f\x02");
        put(LOADFLAGS, &[1]);
        put(CODE32_START, &0x10_0000u32.to_le_bytes());
        put(INITRD_ADDR_MAX, &0x7fff_ffffu32.to_le_bytes());
        put(0x230, &0x20_0000u32.to_le_bytes());
        put(RELOCATABLE, &[1, 21, 1, 0]);
        put(CMDLINE_SIZE, &1000u32.to_le_bytes());
        put(PREF_ADDRESS, &(4 * MIB).to_le_bytes());
        put(INIT_SIZE, &(8 * MIB as u32).to_le_bytes());
        for (at, bytes) in &self.fields {
            put(*at, bytes);
        }
        file.extend((0..self.size).map(|n| n as u8));
        file
    }

    pub fn loaded(&self) -> Loaded {
        load(&guest(), &self.build()).unwrap()
    }

    fn refusal(&self) -> String {
        load(&guest(), &self.build()).unwrap_err().to_string()
    }
}

fn guest() -> GuestMemory {
    memory::create(16 * MIB).unwrap()
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    assert!(!text.contains('\n'));
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

#[test]
fn kernel_is_told_by_its_header() {
    assert!(is_one(&Image::new().build()));
    assert!(!is_one(&Image::new().with(MAGIC, b"HdrT").build()));
    assert!(!is_one(&Image::new().with(BOOT_FLAG, &[0]).build()));
    assert!(!is_one(&Image::new().build()[..0x205]));
}

#[test]
fn protected_mode_kernel_is_loaded_and_entered_at_64_bits() {
    let memory = guest();
    let loaded = load(&memory, &Image::new().build()).unwrap();
    assert_eq!(loaded.start, Start::Linux64(MIB + 0x200));
    assert_eq!(loaded.used, [MIB..MIB + 0x400, 4 * MIB..12 * MIB]);
    assert_eq!(loaded.initrd_most, 0x7fff_ffff);
    let mut found = [0; 0x400];
    memory.read_slice(&mut found, GuestAddress(MIB)).unwrap();
    assert!(found.iter().enumerate().all(|(n, byte)| *byte == n as u8));
    assert_eq!(memory.read_obj::<u8>(GuestAddress(MIB + 0x400)).unwrap(), 0);
}

#[test]
fn kernel_without_the_64_bit_entry_is_entered_at_32_bits() {
    let without = Image::new().with(XLOADFLAGS, &[0]);
    assert_eq!(without.loaded().start, Start::Linux32(MIB));
    let before = Image::new().with(VERSION, &[0x0b]);
    assert_eq!(before.loaded().start, Start::Linux32(MIB), "the field means nothing before 2.12");
}

#[test]
fn kernel_goes_where_its_header_says() {
    let image = Image::new().with(CODE32_START, &(5 * MIB as u32).to_le_bytes());
    let loaded = image.loaded();
    assert_eq!(loaded.start, Start::Linux64(5 * MIB + 0x200));
    assert_eq!(loaded.used[1], 5 * MIB..13 * MIB, "it runs where it is, if it can");
    let fixed = image.with(RELOCATABLE, &[0]).loaded();
    assert_eq!(fixed.used[1], 4 * MIB..12 * MIB);
}

#[test]
fn old_protocol_lacks_what_came_later() {
    let image = Image::new().with(VERSION, &[2]).with(MAGIC - 1, &[0x2a]);
    let loaded = image.loaded();
    assert_eq!(loaded.start, Start::Linux32(MIB));
    let kernel = MIB..MIB + 0x400;
    assert_eq!(loaded.used, [kernel]);
    assert_eq!(loaded.initrd_most, 0x37ff_ffff);
    let setup = loaded.setup.unwrap();
    assert_eq!(setup.bytes().len(), 0x22c - 0x1f1);
    assert!(setup.check_cmdline(255).is_ok());
    assert!(setup.check_cmdline(256).is_err());
}

#[test]
fn command_line_is_held_to_what_the_kernel_takes() {
    let setup = Image::new().loaded().setup.unwrap();
    assert!(setup.check_cmdline(1000).is_ok());
    says(&setup.check_cmdline(1001).unwrap_err().to_string(), &["1000 bytes", "from 1001"]);
}

#[test]
fn kernels_that_cannot_be_loaded_are_named() {
    says(&Image::new().with(VERSION, &[1, 2]).refusal(), &["boot protocol 2.01", "2.02"]);
    says(&Image::new().with(LOADFLAGS, &[0]).refusal(), &["zImage"]);
    says(&Image::new().with(MAGIC - 1, &[0x10]).refusal(), &["malformed setup header", "0x212"]);
    let far = Image::new().with(PREF_ADDRESS, &[0xff; 8]);
    says(&far.refusal(), &["malformed setup header", "unpacks itself"]);
}

#[test]
fn file_that_is_cut_short_is_named() {
    let file = Image::new().build();
    for cut in [0x210, 0x260, 1536, 1536 + 0x200, file.len() - 16] {
        let text = load(&guest(), &file[..cut]).unwrap_err().to_string();
        says(&text, &["cut short", &format!("the file at {cut}")]);
    }
    assert!(load(&guest(), &file[..file.len() - 15]).is_ok(), "sizes are in units of 16 bytes");
    says(&Image::new().with(HEADER_START, &[255]).refusal(), &["cut short", "131585"]);
}

#[test]
fn kernel_that_does_not_fit_says_how_much_memory_is_needed() {
    let large = Image::new().with(INIT_SIZE, &(60 * MIB as u32).to_le_bytes());
    says(&large.refusal(), &["outside guest memory", "--memory 64M"]);
    let high = Image::new().with(CODE32_START, &[0xff; 4]);
    says(&high.refusal(), &["device hole"]);
    let low = Image::new().with(CODE32_START, &0x7000u32.to_le_bytes());
    says(&low.refusal(), &["the zero page"]);
}

proptest! {
    #[test]
    fn mutated_headers_never_panic_and_load_only_into_memory(
        fields in prop::collection::vec((0x1f1usize..0x268, any::<u64>(), 1usize..9), 0..5),
        cut in 0usize..3000,
    ) {
        let mut file = Image::new().build();
        for (at, value, size) in fields {
            file[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        if cut < file.len() {
            file.truncate(file.len() - cut);
        }
        let memory = guest();
        if is_one(&file) && let Ok(loaded) = load(&memory, &file) {
            prop_assert!(loaded.start.address() < 16 * MIB);
            prop_assert!(loaded.used.iter().all(|range| range.end <= 16 * MIB));
            let setup = loaded.setup.unwrap();
            prop_assert!(HEADER_START + setup.bytes().len() <= HEADER_END);
            let _ = setup.check_cmdline(usize::MAX);
        }
        for (what, range) in TAKEN {
            let mut found = vec![0; (range.end - range.start) as usize];
            memory.read_slice(&mut found, GuestAddress(range.start)).unwrap();
            prop_assert!(found.iter().all(|b| *b == 0), "{what} was written");
        }
    }

    #[test]
    fn random_files_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        let mut file = bytes;
        if file.len() >= 0x206 {
            file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
            file[0x202..0x206].copy_from_slice(b"HdrS");
            let _ = load(&guest(), &file);
        }
        prop_assert_eq!(is_one(&file), file.len() >= 0x206);
    }
}
