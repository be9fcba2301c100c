//! A driver's accesses to the registers of a virtio device: those of the fuzz targets that are the driver.

use devices::virtio::Model;
use devices::virtio::mmio::Transport;

/// Offset of the status register (Virtio 1.2, section 4.2.2).
pub(crate) const STATUS: u64 = 0x70;

/// Writes a register; what that leads to is nobody's business here.
pub(crate) fn set<D: Model>(transport: &Transport<D>, register: u64, value: u32) {
    let _ = transport.write(register, &value.to_le_bytes());
}

/// Reads a register.
pub(crate) fn get<D: Model>(transport: &Transport<D>, register: u64) -> u32 {
    let mut data = [0; 4];
    transport.read(register, &mut data);
    u32::from_le_bytes(data)
}
