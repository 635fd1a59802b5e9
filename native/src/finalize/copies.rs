//! Finishes the stacks that the BPF programs could not walk to the end, from copies of them.

use super::address_space::Map;
use super::mapped::Place;
use super::replay::View;
use crate::unwind::{Cfa, Frame, Machine, StackMemory, Stop};
use crate::wire::{StackCopy, end_number};

/// The callers above the copied frame, and how the stack ends.
pub fn unwind(view: &mut View<'_, '_>, copy: &StackCopy<'_>, found: usize) -> (Vec<u64>, u8) {
    let memory = StackMemory { start: copy.sp, bytes: copy.bytes, machine: machine_of(copy) };
    let mut frame = Frame {
        ip: copy.ip,
        sp: copy.sp,
        fp: copy.fp,
        is_return: copy.is_return,
        bx_at: None,
        lr: (!copy.is_return).then_some(copy.lr),
    };
    let mut callers = Vec::new();
    loop {
        let address = frame.ip.wrapping_sub(u64::from(frame.is_return));
        let Some(map) = view.map_of(address) else {
            callers.pop(); // what was taken for a return address is none
            return (callers, end_number("not_code"));
        };
        match caller(view, &map, address, &frame, &memory) {
            Ok(caller) => frame = caller,
            Err(stop) => return (callers, stop as u8),
        }
        // The leaf is a frame too.
        if found + callers.len() + 1 >= view.max_user_frames() {
            return (callers, end_number("depth_limit"));
        }
        callers.push(frame.ip);
    }
}

/// A copy is finished on the machine that it was made on.
fn machine_of(copy: &StackCopy<'_>) -> Machine {
    match copy.is_32bit {
        _ if cfg!(target_arch = "aarch64") => Machine::Arm64 { address_bits: copy.address_bits },
        true => Machine::X86,
        false => Machine::X86_64,
    }
}

fn caller(
    view: &mut View<'_, '_>,
    map: &Map,
    address: u64,
    frame: &Frame,
    memory: &StackMemory<'_>,
) -> Result<Frame, Stop> {
    let (place, table) = view.table_of(map);
    let offset = match place {
        Place::File(_) => map.file_offset.wrapping_add(address - map.start),
        Place::Vdso(_) => address - map.start,
        Place::Generated(_) => return frame.caller_by_frame_pointer(memory),
    };
    match table.and_then(|table| table.rule_at(offset)) {
        Some(rule) if rule.cfa != Cfa::None => frame.caller(rule, memory),
        _ => frame.caller_by_frame_pointer(memory),
    }
}
