//! What to do in one frame.

/// Where the canonical frame address is: the stack pointer's value before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cfa {
    /// There is no description of this code.
    None,
    /// A description that is none of the others.
    Unsupported,
    /// No caller: the thread's outermost function.
    End,
    Sp(i32),
    Fp(i32),
    /// Another register, by its place in the kernel's `struct pt_regs`; known only in the innermost frame.
    Register(u8, i32),
    /// `*(sp + offset) + add`: code that aligns its stack (OpenSSL).
    SpDeref(i32, i8),
    /// `*(fp + offset) + add`: code that aligns its stack (gcc's main, AVX).
    FpDeref(i32, i8),
    /// A stub of the procedure linkage table: `sp + word`, one more word from this byte of the stub on.
    Plt(u8),
    /// The kernel's frame of a signal; the stack pointer is saved at sp + offset.
    Signal(i32),
    /// `sp + offset`, but the return address is in the register at this place of `struct pt_regs` (vfork).
    ReturnIn(u8, i32),
}

/// Where the caller's frame pointer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SavedFp {
    /// Still in its register.
    Same,
    /// Saved at CFA + offset.
    AtCfa(i16),
    /// Saved at the frame pointer + offset.
    AtFp(i16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    pub cfa: Cfa,
    pub fp: SavedFp,
    /// x86-64: rbx is saved at CFA + offset.  0: it is not.
    pub bx: i16,
    /// arm64: the return address is saved at CFA + offset.  0: it is still in lr.
    pub lr: i16,
}

/// The last place of `struct pt_regs` that a rule may name.
const MAX_REGISTER: u8 = 30;

/// A rule as `struct sberf_rule` of bpf/tables.h has it.
pub type WireRule = [u64; 2];

impl Rule {
    pub const NONE: Rule = Rule { cfa: Cfa::None, fp: SavedFp::Same, bx: 0, lr: 0 };
    pub const UNSUPPORTED: Rule = Rule { cfa: Cfa::Unsupported, ..Rule::NONE };
    pub const END: Rule = Rule { cfa: Cfa::End, ..Rule::NONE };

    /// The place of rbx in `struct pt_regs`, in words.
    pub const BX: u8 = 5;

    /// `{s32 cfa_offset, s16 fp_offset, u8 cfa, u8 fp, s16 bx_offset, s16 lr_offset, s16 unused[2]}`,
    /// little-endian.
    pub fn to_wire(self) -> WireRule {
        let (kind, offset) = match self.cfa {
            Cfa::None => (0, 0),
            Cfa::Unsupported => (1, 0),
            Cfa::End => (2, 0),
            Cfa::Sp(offset) => (3, offset),
            Cfa::Fp(offset) => (4, offset),
            Cfa::SpDeref(offset, add) => (5, offset << 8 | i32::from(add as u8)),
            Cfa::FpDeref(offset, add) => (6, offset << 8 | i32::from(add as u8)),
            Cfa::Plt(from) => (7, i32::from(from)),
            Cfa::Signal(offset) => (8, offset),
            Cfa::ReturnIn(_, offset) => (9, offset),
            Cfa::Register(register, offset) => (16 + u64::from(register), offset),
        };
        let (fp_kind, fp_offset) = match (self.cfa, self.fp) {
            (Cfa::ReturnIn(register, _), _) => (0, i16::from(register)),
            (_, SavedFp::Same) => (0, 0),
            (_, SavedFp::AtCfa(offset)) => (1, offset),
            (_, SavedFp::AtFp(offset)) => (2, offset),
        };
        let first = u64::from(offset as u32) | u64::from(fp_offset as u16) << 32 | kind << 48 | fp_kind << 56;
        [first, u64::from(self.bx as u16) | u64::from(self.lr as u16) << 16]
    }

    /// The reverse of [`Self::to_wire`]; None when that never makes it.
    pub fn from_wire(wire: WireRule) -> Option<Self> {
        let [first, second] = wire;
        let (offset, fp_offset, kind) = (first as u32 as i32, (first >> 32) as i16, (first >> 48) as u8);
        let register = |number: i64| u8::try_from(number).ok().filter(|number| *number <= MAX_REGISTER);
        let cfa = match kind {
            0 => Cfa::None,
            1 => Cfa::Unsupported,
            2 => Cfa::End,
            3 => Cfa::Sp(offset),
            4 => Cfa::Fp(offset),
            5 => Cfa::SpDeref(offset >> 8, offset as i8),
            6 => Cfa::FpDeref(offset >> 8, offset as i8),
            7 => Cfa::Plt(u8::try_from(offset).ok()?),
            8 => Cfa::Signal(offset),
            9 => Cfa::ReturnIn(register(fp_offset.into())?, offset),
            _ => Cfa::Register(register(i64::from(kind) - 16)?, offset),
        };
        let fp = match first >> 56 {
            0 => SavedFp::Same,
            1 => SavedFp::AtCfa(fp_offset),
            _ => SavedFp::AtFp(fp_offset),
        };
        Some(Self { cfa, fp, bx: second as i16, lr: (second >> 16) as i16 })
            .filter(|rule| rule.to_wire() == wire)
    }
}
