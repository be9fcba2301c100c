//! The firmware configuration device, against a list of what each item must hold.

use std::sync::Arc;

use devices::bus::{Device, Outcome};
use devices::fw_cfg::{Contents, FwCfg, Shared};
use rand::Rng;
use rand::rngs::SmallRng;

const KEYS: [u16; 12] = [0, 1, 3, 5, 0xb, 0xf, 0x12, 0x14, 0x15, 0x19, 0x8000, 0xffff];

struct Oracle {
    cmdline: Vec<u8>,
    initrd: Vec<u8>,
    ram: u64,
    cpus: u32,
}

impl Oracle {
    fn item(&self, key: u16) -> Vec<u8> {
        match key {
            0 => b"QEMU".to_vec(),
            1 => vec![1, 0, 0, 0],
            3 => self.ram.to_le_bytes().to_vec(),
            5 | 0xf => (self.cpus.min(65535) as u16).to_le_bytes().to_vec(),
            0xb => (self.initrd.len() as u32).to_le_bytes().to_vec(),
            0x12 => self.initrd.clone(),
            0x14 => (self.cmdline.len() as u32 + 1).to_le_bytes().to_vec(),
            0x15 => [&self.cmdline[..], &[0]].concat(),
            _ => vec![],
        }
    }
}

fn once(random: &mut SmallRng) {
    let oracle = Oracle {
        cmdline: (0..random.random_range(0..40)).map(|_| random.random_range(1..128)).collect(),
        initrd: (0..random.random_range(0..40)).map(|_| random.random()).collect(),
        ram: random.random(),
        cpus: random.random_range(0..100_000),
    };
    let mut device = FwCfg::new(Contents {
        ram: oracle.ram,
        cpus: oracle.cpus,
        cmdline: String::from_utf8(oracle.cmdline.clone()).expect("ASCII"),
        initrd: random.random::<bool>().then(|| Arc::new(oracle.initrd.clone()) as Shared),
    });
    let oracle = if device_has_initrd(&mut device) {
        oracle
    } else {
        Oracle { initrd: Vec::new(), ..oracle }
    };
    let mut item = oracle.item(0);
    let mut at = 0;
    select(&mut device, 0);
    for _ in 0..500 {
        // Mostly where the registers are, sometimes where no bus would send an access.
        let offset =
            if random.random_ratio(1, 20) { random.random() } else { random.random_range(0..2) };
        let mut data = vec![0xaa; random.random_range(1..9)];
        let now = random.random();
        if random.random_ratio(1, 4) {
            let key = KEYS[random.random_range(0..KEYS.len())];
            for (byte, of_key) in data.iter_mut().zip(key.to_le_bytes()) {
                *byte = of_key;
            }
            assert_eq!(device.write(offset, &data, now), Outcome::None);
            if offset == 0 && data.len() == 2 {
                (item, at) = (oracle.item(key), 0);
            }
            continue;
        }
        assert_eq!(device.read(offset, &mut data, now), Outcome::None);
        for (i, byte) in data.iter().enumerate() {
            let expected = if offset.saturating_add(i as u64) == 1 {
                at += 1;
                item.get(at - 1).copied().unwrap_or(0)
            } else {
                0xff
            };
            assert_eq!(*byte, expected, "byte {i} of a read at {offset:#x}");
        }
    }
}

fn select(device: &mut FwCfg, key: u16) {
    assert_eq!(device.write(0, &key.to_le_bytes(), 0), Outcome::None);
}

fn device_has_initrd(device: &mut FwCfg) -> bool {
    select(device, 0xb);
    let mut sum = 0;
    for _ in 0..4 {
        let mut byte = [0];
        assert_eq!(device.read(1, &mut byte, 0), Outcome::None);
        sum += u32::from(byte[0]);
    }
    sum > 0
}

#[test]
fn any_accesses_give_the_items_bytes_in_order() {
    crate::run("fw_cfg", once);
}
