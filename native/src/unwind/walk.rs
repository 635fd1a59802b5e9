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
}

/// The part of a stack that was copied.
#[derive(Debug, Clone, Copy)]
pub struct StackMemory<'a> {
    pub start: u64,
    pub bytes: &'a [u8],
    pub is_32bit: bool,
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
        if self.is_32bit {
            let bytes = self.bytes.get(at..at.checked_add(4)?)?;
            return Some(u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)));
        }
        Some(u64::from_ne_bytes(self.bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }

    fn word_len(&self) -> u64 {
        if self.is_32bit { 4 } else { 8 }
    }
}

impl Frame {
    /// The caller's frame.
    pub fn caller(&self, rule: Rule, memory: &StackMemory<'_>) -> Result<Frame, Stop> {
        let read = |address: u64| memory.word(address).ok_or(Stop::Unreadable);
        let add = |base: u64, offset: i32| base.wrapping_add_signed(i64::from(offset));
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
        if cfa <= self.sp || !cfa.is_multiple_of(4) {
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
        Ok(Frame { ip, sp: cfa, fp, is_return: true, bx_at: bx_at.or(self.bx_at) })
    }

    /// By the frame pointer, for code that has no table.
    pub fn caller_by_frame_pointer(&self, memory: &StackMemory<'_>) -> Result<Frame, Stop> {
        let word = memory.word_len() as i32;
        let rule = Rule { cfa: Cfa::Fp(2 * word), fp: SavedFp::AtCfa(-2 * word as i16), bx: 0 };
        self.caller(rule, memory)
    }

    /// What a signal interrupted: see `leave_signal` of bpf/unwind.bpf.h.
    fn interrupted(&self, sp_at: u64, memory: &StackMemory<'_>) -> Result<Frame, Stop> {
        let (fp_at, ip_at) = if memory.is_32bit { (-4, 28) } else { (-40, 8) };
        let read = |offset: i64| memory.word(sp_at.wrapping_add_signed(offset)).ok_or(Stop::Unreadable);
        Ok(Frame { ip: read(ip_at)?, sp: read(0)?, fp: read(fp_at)?, is_return: false, bx_at: None })
    }
}
