//! The walk of bpf/unwind.bpf.h over a copy of the stack, for those whose tables were not there in time.

use super::rule::{Cfa, Rule, SavedFp};

/// A frame: registers as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub ip: u64,
    pub sp: u64,
    pub fp: u64,
    /// `ip` is where a call returns to.
    pub is_return: bool,
    /// Where rbx was saved last.
    pub bx_at: Option<u64>,
    /// arm64: the link register, which is known until a call may have overwritten it.
    pub lr: Option<u64>,
}

/// Whose stack it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    X86,
    X86_64,
    /// The bits of an address; above them a return address may be signed.  0: none is.
    Arm64 {
        address_bits: u8,
    },
}

/// The part of a stack that was copied.
#[derive(Debug, Clone, Copy)]
pub struct StackMemory<'a> {
    pub start: u64,
    pub bytes: &'a [u8],
    pub machine: Machine,
}

/// Why a walk ends; the names are those of `wire::STACK_ENDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Entry = 0,
    Unreadable = 2,
    BadFrame = 3,
    NoTable = 8,
    UnsupportedRule = 9,
}

impl StackMemory<'_> {
    pub fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        if self.machine == Machine::X86 {
            let bytes = self.bytes.get(at..at.checked_add(4)?)?;
            return Some(u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)));
        }
        Some(u64::from_ne_bytes(self.bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }

    fn word_len(&self) -> u64 {
        if self.machine == Machine::X86 { 4 } else { 8 }
    }
}

impl Frame {
    /// The caller's frame.
    pub fn caller(&self, rule: Rule, memory: &StackMemory<'_>) -> Result<Frame, Stop> {
        let read = |address: u64| memory.word(address).ok_or(Stop::Unreadable);
        let word = memory.word_len();
        let cfa = match rule.cfa {
            Cfa::Sp(offset) => add(self.sp, offset),
            Cfa::Fp(offset) => add(self.fp, offset),
            Cfa::SpDeref(offset, extra) => add(read(add(self.sp, offset))?, extra.into()),
            Cfa::FpDeref(offset, extra) => add(read(add(self.fp, offset))?, extra.into()),
            Cfa::Plt(from) => {
                self.sp.wrapping_add(if self.ip & 15 >= u64::from(from) { 2 * word } else { word })
            }
            Cfa::Register(Rule::BX, offset) => match self.bx_at {
                Some(at) => add(read(at)?, offset),
                None => return Err(Stop::UnsupportedRule),
            },
            Cfa::Signal(offset) => return self.interrupted(add(self.sp, offset), memory),
            Cfa::End => return Err(Stop::Entry),
            Cfa::None => return Err(Stop::NoTable),
            Cfa::Unsupported | Cfa::Register(..) | Cfa::ReturnIn(..) => return Err(Stop::UnsupportedRule),
        };
        if cfa < self.sp || !cfa.is_multiple_of(4) {
            return Err(Stop::BadFrame);
        }
        if let Machine::Arm64 { address_bits } = memory.machine {
            return self.caller_of_arm64(rule, cfa, memory, address_bits);
        }
        if cfa == self.sp {
            return Err(Stop::BadFrame);
        }
        let ip = read(cfa.wrapping_sub(word))?;
        // Compilers do not say that an epilogue has restored a register: what lies below sp was popped.
        let saved = |at: u64| Some(at).filter(|at| *at >= self.sp);
        let fp_at = match rule.fp {
            SavedFp::Same => None,
            SavedFp::AtCfa(offset) => saved(add(cfa, offset.into())),
            SavedFp::AtFp(offset) => saved(add(self.fp, offset.into())),
        };
        let fp = fp_at.map_or(Ok(self.fp), read)?;
        if ip == 0 {
            return Err(Stop::Entry);
        }
        let bx_at = Some(rule.bx).filter(|bx| *bx != 0).and_then(|bx| saved(add(cfa, bx.into())));
        Ok(Frame { ip, sp: cfa, fp, is_return: true, bx_at: bx_at.or(self.bx_at), lr: None })
    }

    /// A leaf has no frame of its own: its caller's stack pointer may be its own.
    fn caller_of_arm64(
        &self,
        rule: Rule,
        cfa: u64,
        memory: &StackMemory<'_>,
        address_bits: u8,
    ) -> Result<Frame, Stop> {
        let read = |address: u64| memory.word(address).ok_or(Stop::Unreadable);
        if cfa == self.sp && self.is_return {
            return Err(Stop::BadFrame);
        }
        let fp = match rule.fp {
            SavedFp::Same => self.fp,
            SavedFp::AtCfa(offset) => read(add(cfa, offset.into()))?,
            SavedFp::AtFp(offset) => read(add(self.fp, offset.into()))?,
        };
        let ip = match rule.lr {
            0 => self.lr.ok_or(Stop::UnsupportedRule)?,
            offset => read(add(cfa, offset.into()))?,
        };
        let ip = strip_signature(ip, address_bits);
        if ip == 0 {
            return Err(Stop::Entry);
        }
        Ok(Frame { ip, sp: cfa, fp, is_return: true, bx_at: None, lr: None })
    }

    /// By the frame pointer, for code that has no table.
    pub fn caller_by_frame_pointer(&self, memory: &StackMemory<'_>) -> Result<Frame, Stop> {
        let word = memory.word_len() as i32;
        let rule =
            Rule { cfa: Cfa::Fp(2 * word), fp: SavedFp::AtCfa(-2 * word as i16), bx: 0, lr: -word as i16 };
        self.caller(rule, memory)
    }

    /// What a signal interrupted: see `leave_signal` of bpf/unwind.bpf.h.
    fn interrupted(&self, sp_at: u64, memory: &StackMemory<'_>) -> Result<Frame, Stop> {
        let (fp_at, ip_at, lr_at) = match memory.machine {
            Machine::X86 => (-4, 28, None),
            Machine::X86_64 => (-40, 8, None),
            Machine::Arm64 { .. } => (-16, 8, Some(-8)),
        };
        let read = |offset: i32| memory.word(add(sp_at, offset)).ok_or(Stop::Unreadable);
        let lr = lr_at.map(read).transpose()?;
        Ok(Frame { ip: read(ip_at)?, sp: read(0)?, fp: read(fp_at)?, is_return: false, bx_at: None, lr })
    }
}

fn add(base: u64, offset: i32) -> u64 {
    base.wrapping_add_signed(i64::from(offset))
}

/// Return addresses are signed in the bits that no address has.
fn strip_signature(address: u64, address_bits: u8) -> u64 {
    match address_bits {
        1..64 => address & ((1 << address_bits) - 1),
        _ => address,
    }
}
