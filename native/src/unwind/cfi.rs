//! From `.eh_frame` and `.debug_frame` to rules by address.  The bytes are a traced system's and may be
//! hostile: all work is bounded by their length and by `MAX_ROWS`.

use std::borrow::Cow;
use std::collections::HashMap;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, EndianSlice, Expression,
    Operation, Register, RegisterRule, RunTimeEndian, UnwindContext, UnwindSection, UnwindTableRow, Vendor,
};
use object::elf;

use super::marks::without_marks;
use super::rule::{Cfa, Rule, SavedFp};

/// Of one file; the largest browsers have three million.
pub const MAX_ROWS: usize = 4 << 20;

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;

/// Functions whose descriptions are this close follow one another: what lies between is padding.
const MAX_PADDING: u64 = 16;

/// Small and without allocation: gimli's own storage costs more than all the rest.
struct Storage;

impl gimli::UnwindContextStorage<usize> for Storage {
    type Rules = [(Register, RegisterRule<usize>); 34];
    type Stack = [UnwindTableRow<usize, Self>; 6];
}

/// What a file says of its call frames.
pub struct CallFrames {
    pub machine: elf::Machine,
    pub is_64: bool,
    pub big_endian: bool,
    /// Where the program begins.
    pub entry: u64,
    /// Functions that are not what the call frames say, by address: begin, end.
    pub special: Vec<(u64, u64, Special)>,
    /// Address as linked, and content.
    pub eh_frame: Option<(u64, Vec<u8>)>,
    pub debug_frame: Option<Vec<u8>>,
}

impl CallFrames {
    /// Bytes of all descriptions.
    pub fn len(&self) -> usize {
        self.eh_frame.as_ref().map_or(0, |(_, bytes)| bytes.len())
            + self.debug_frame.as_ref().map_or(0, Vec::len)
    }
}

/// What a function is, other than ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// It has no caller.
    Entry,
    /// A signal's handler returns to its begin.
    SignalReturn,
    /// arm64: stubs of the procedure linkage table, which leave the stack alone.
    Stubs,
}

/// The DWARF numbers of the registers that matter.
#[derive(Clone, Copy)]
struct Registers {
    sp: Register,
    fp: Register,
    ra: Register,
    /// The other register that code which aligns its stack is found by (x86-64's dynamic linker).
    bx: Option<Register>,
    word: i64,
    is_arm64: bool,
}

/// Rules by address as linked; each holds up to the next one's address.
#[derive(Default)]
pub struct Rules {
    pub rows: Vec<(u64, Rule)>,
    /// Functions whose description was damaged.
    pub damaged: u64,
    /// More rows than a file may have.
    pub cut: bool,
}

/// Reads all descriptions of a file.
pub fn read_rules(frames: &CallFrames) -> Rules {
    let mut functions = Functions::default();
    let Some(registers) = Registers::of(frames) else { return Rules::default() };
    let endian = if frames.big_endian { RunTimeEndian::Big } else { RunTimeEndian::Little };
    let address_size = if frames.is_64 { 8 } else { 4 };
    // The instruction that signs a return address has another meaning elsewhere.
    let vendor = if registers.is_arm64 { Vendor::AArch64 } else { Vendor::Default };
    let content = |bytes, is_eh_frame| match registers.is_arm64 {
        true => without_marks(bytes, is_eh_frame, frames.big_endian),
        false => Cow::Borrowed(bytes),
    };
    if let Some((address, bytes)) = &frames.eh_frame {
        let bytes = content(bytes, true);
        let mut section = EhFrame::new(&bytes, endian);
        section.set_address_size(address_size);
        section.set_vendor(vendor);
        functions.read(&section, &BaseAddresses::default().set_eh_frame(*address), registers);
    }
    if let Some(bytes) = &frames.debug_frame {
        let bytes = content(bytes, false);
        let mut section = DebugFrame::new(&bytes, endian);
        section.set_address_size(address_size);
        section.set_vendor(vendor);
        functions.read(&section, &BaseAddresses::default(), registers);
    }
    if functions.functions.is_empty() && frames.special.is_empty() {
        return Rules { damaged: functions.damaged, ..Rules::default() };
    }
    let mut rules = functions.into_rules();
    rules.end_at_entry(frames.entry);
    for &(start, end, special) in &frames.special {
        match special {
            Special::Entry => rules.replace(start, end, Rule::END),
            Special::Stubs => rules.replace(start, end, Rule { cfa: Cfa::Sp(0), ..Rule::NONE }),
            // Looked up one byte before, as all return addresses are.
            Special::SignalReturn => {
                let Some(sp_at) = registers.sp_in_signal_frame() else { continue };
                rules.replace(start.saturating_sub(1), end, Rule { cfa: Cfa::Signal(sp_at), ..Rule::NONE });
            }
        }
    }
    rules
}

impl Rules {
    fn replace(&mut self, start: u64, end: u64, rule: Rule) {
        let from = self.rows.partition_point(|row| row.0 < start);
        let to = self.rows.partition_point(|row| row.0 <= end);
        if start >= end {
            return;
        }
        let after = to.checked_sub(1).map_or(Rule::NONE, |last| self.rows[last].1);
        self.rows.splice(from..to, [(start, rule), (end, after)]);
    }

    /// The code at the program's entry has no caller; glibc's dynamic linker does not say so.
    fn end_at_entry(&mut self, entry: u64) {
        let at = self.rows.partition_point(|row| row.0 <= entry);
        let described = at.checked_sub(1).is_some_and(|before| self.rows[before].1 != Rule::NONE);
        if entry != 0 && !described {
            self.rows.insert(at, (entry, Rule::END));
        }
    }
}

impl Registers {
    fn of(frames: &CallFrames) -> Option<Self> {
        let (sp, fp, ra, word) = match frames.machine {
            elf::EM_X86_64 => (7, 6, 16, if frames.is_64 { 8 } else { return None }),
            elf::EM_386 => (4, 5, 8, 4),
            elf::EM_AARCH64 => (31, 29, 30, 8),
            _ => return None,
        };
        let is_arm64 = frames.machine == elf::EM_AARCH64;
        let bx = (frames.machine == elf::EM_X86_64).then_some(Register(3));
        Some(Self { sp: Register(sp), fp: Register(fp), ra: Register(ra), bx, word, is_arm64 })
    }

    /// Where a register lies in the kernel's `struct pt_regs`, in words.
    fn saved_at(self, register: u16) -> Option<u8> {
        // rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 ... r15
        const PLACES: [u8; 16] = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0];
        match (self.is_arm64, self.word) {
            (true, _) => u8::try_from(register).ok().filter(|number| *number < 31),
            (false, 8) => PLACES.get(usize::from(register)).copied(),
            _ => None,
        }
    }

    /// [`Rule::lr`] of a return address; None when it is where no rule can say.
    fn saved_lr(self, saved: Option<RegisterRule<usize>>) -> Option<i16> {
        match saved {
            None | Some(RegisterRule::SameValue) if self.is_arm64 => Some(0),
            Some(RegisterRule::Offset(offset @ ..0)) if self.is_arm64 => i16::try_from(offset).ok(),
            Some(RegisterRule::Offset(offset)) if !self.is_arm64 && offset == -self.word => Some(0),
            _ => None,
        }
    }

    /// How far above the stack pointer the kernel saves the one that a signal interrupts.
    fn sp_in_signal_frame(self) -> Option<i32> {
        match (self.is_arm64, self.word) {
            (true, _) => Some(560), // 128 of siginfo, 176 before struct sigcontext, 256 in it
            (false, 8) => Some(160),
            _ => None,
        }
    }
}

/// One function: where it is, and its rows in `Functions::rows`.
struct Function {
    start: u64,
    end: u64,
    first: usize,
    len: usize,
}

#[derive(Default)]
struct Functions {
    functions: Vec<Function>,
    rows: Vec<(u64, Rule)>,
    damaged: u64,
    cut: bool,
}

impl Functions {
    fn read<'a, S>(&mut self, section: &S, bases: &BaseAddresses, registers: Registers)
    where
        S: UnwindSection<Slice<'a>>,
        S::Offset: std::hash::Hash + Eq,
    {
        let mut cies: HashMap<S::Offset, CommonInformationEntry<Slice<'a>>, ahash::RandomState> =
            HashMap::default();
        let mut context = UnwindContext::<usize, Storage>::new_in();
        let mut entries = section.entries(bases);
        // An error ends the iteration.
        while let Some(entry) = entries.next().unwrap_or_else(|_| {
            self.damaged += 1;
            None
        }) {
            let CieOrFde::Fde(partial) = entry else { continue };
            let fde = partial.parse(|section, bases, offset| {
                if let Some(cie) = cies.get(&offset) {
                    return Ok(cie.clone());
                }
                let cie = section.cie_from_offset(bases, offset)?;
                cies.insert(offset, cie.clone());
                Ok(cie)
            });
            let Ok(fde) = fde else {
                self.damaged += 1;
                continue;
            };
            // Address 0: a function that the linker has left out.
            if fde.initial_address() == 0 || fde.len() == 0 {
                continue;
            }
            let first = self.rows.len();
            let is_signal = fde.is_signal_trampoline();
            let mut reached = fde.initial_address();
            let complete = fde.rows(section, bases, &mut context).and_then(|mut table| {
                while let Some(row) = table.next_row()? {
                    if self.rows.len() >= MAX_ROWS {
                        self.cut = true;
                        break;
                    }
                    reached = row.end_address();
                    let rule = rule_of(row, section, registers, is_signal, fde.cie().encoding());
                    self.rows.push((row.start_address(), rule));
                }
                Ok(())
            });
            // What was true before the damage need not be true after it.
            if complete.is_err() || self.cut {
                self.rows.push((reached, Rule::UNSUPPORTED));
            }
            self.damaged += u64::from(complete.is_err());
            let (start, end) = (fde.initial_address(), fde.end_address());
            self.functions.push(Function { start, end, first, len: self.rows.len() - first });
            if self.cut {
                break;
            }
        }
    }

    /// Puts the functions in the order of their addresses; where two overlap the first one counts.
    fn into_rules(mut self) -> Rules {
        self.functions.sort_by_key(|function| function.start);
        let mut rows: Vec<(u64, Rule)> = Vec::with_capacity(self.rows.len() + self.functions.len() / 8);
        let mut reached = 0;
        for function in &self.functions {
            if function.start < reached || function.end <= function.start {
                continue;
            }
            let mut at = reached;
            if function.start.saturating_sub(at) >= MAX_PADDING && !rows.is_empty() {
                push(&mut rows, at, Rule::NONE);
            }
            for &(address, rule) in &self.rows[function.first..function.first + function.len] {
                at = address.clamp(function.start.max(at), function.end);
                push(&mut rows, at, rule);
            }
            reached = function.end;
        }
        push(&mut rows, reached, Rule::NONE);
        Rules { rows, damaged: self.damaged, cut: self.cut }
    }
}

/// Appends a row unless it says what the last one did; a row at the same address replaces it.
fn push(rows: &mut Vec<(u64, Rule)>, address: u64, rule: Rule) {
    if rows.last().is_some_and(|last| last.0 == address) {
        rows.pop();
    }
    if rows.last().is_none_or(|last| last.1 != rule) {
        rows.push((address, rule));
    }
}

fn rule_of<'a, S: UnwindSection<Slice<'a>>>(
    row: &UnwindTableRow<usize, Storage>,
    section: &S,
    registers: Registers,
    is_signal: bool,
    encoding: gimli::Encoding,
) -> Rule {
    if is_signal {
        return signal_rule(row.cfa(), section, registers, encoding);
    }
    let lr = match row.register(registers.ra) {
        Some(RegisterRule::Undefined) => return Rule::END,
        Some(RegisterRule::Register(register)) => return return_in(register, row.cfa(), registers),
        saved => registers.saved_lr(saved),
    };
    let cfa = cfa_of(row.cfa(), section, registers, encoding);
    let fp = match row.register(registers.fp) {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => Some(SavedFp::Same),
        Some(RegisterRule::Offset(offset)) => i16::try_from(offset).ok().map(SavedFp::AtCfa),
        Some(RegisterRule::Expression(expression)) => {
            let expression = expression.get(section).ok();
            expression.and_then(|expression| match operations(expression, encoding)[..] {
                [Operation::RegisterOffset { register, offset, .. }] if register == registers.fp => {
                    i16::try_from(offset).ok().map(SavedFp::AtFp)
                }
                _ => None,
            })
        }
        _ => None,
    };
    let bx = match registers.bx.map(|bx| row.register(bx)) {
        Some(Some(RegisterRule::Offset(offset))) => i16::try_from(offset).unwrap_or(0),
        _ => 0,
    };
    let (Some(cfa), Some(fp), Some(lr)) = (cfa, fp, lr) else { return Rule::UNSUPPORTED };
    Rule { cfa, fp, bx, lr }
}

/// The return address is in another register, as it is around a vfork of x86-64.
fn return_in(register: Register, cfa: &CfaRule<usize>, registers: Registers) -> Rule {
    let CfaRule::RegisterAndOffset { register: base, offset } = cfa else { return Rule::UNSUPPORTED };
    match (registers.saved_at(register.0), i32::try_from(*offset)) {
        (Some(place), Ok(offset)) if *base == registers.sp && !registers.is_arm64 => {
            Rule { cfa: Cfa::ReturnIn(place, offset), ..Rule::NONE }
        }
        _ => Rule::UNSUPPORTED,
    }
}

/// The kernel's frame lies at the stack pointer; the description tells where sp is in it.
fn signal_rule<'a, S: UnwindSection<Slice<'a>>>(
    cfa: &CfaRule<usize>,
    section: &S,
    registers: Registers,
    encoding: gimli::Encoding,
) -> Rule {
    match cfa_of(cfa, section, registers, encoding) {
        Some(Cfa::SpDeref(offset, 0)) if !registers.is_arm64 => {
            Rule { cfa: Cfa::Signal(offset), ..Rule::NONE }
        }
        _ => Rule::UNSUPPORTED,
    }
}

fn cfa_of<'a, S: UnwindSection<Slice<'a>>>(
    rule: &CfaRule<usize>,
    section: &S,
    registers: Registers,
    encoding: gimli::Encoding,
) -> Option<Cfa> {
    match rule {
        CfaRule::RegisterAndOffset { register, offset } => {
            let offset = i32::try_from(*offset).ok()?;
            Some(match *register {
                register if register == registers.sp => Cfa::Sp(offset),
                register if register == registers.fp => Cfa::Fp(offset),
                Register(number) => Cfa::Register(registers.saved_at(number)?, offset),
            })
        }
        CfaRule::Expression(expression) => {
            let operations = operations(expression.get(section).ok()?, encoding);
            deref(&operations, registers).or_else(|| plt(&operations, registers))
        }
    }
}

/// `breg N; deref [; plus_uconst N]`
fn deref(operations: &[Operation<Slice<'_>>], registers: Registers) -> Option<Cfa> {
    let (register, offset, add) = match *operations {
        [Operation::RegisterOffset { register, offset, .. }, Operation::Deref { .. }] => {
            (register, offset, 0)
        }
        [
            Operation::RegisterOffset { register, offset, .. },
            Operation::Deref { .. },
            Operation::PlusConstant { value },
        ] => (register, offset, value),
        _ => return None,
    };
    let (offset, add) = (i32::try_from(offset).ok()?, i8::try_from(add).ok()?);
    if offset.abs() >= 1 << 23 {
        return None; // the wire form has 24 bits
    }
    match register {
        register if register == registers.sp => Some(Cfa::SpDeref(offset, add)),
        register if register == registers.fp => Some(Cfa::FpDeref(offset, add)),
        _ => None,
    }
}

/// `breg sp: word; breg ip: 0; lit15; and; lit11; ge; lit3; shl; plus`: what linkers write for the PLT.
fn plt(operations: &[Operation<Slice<'_>>], registers: Registers) -> Option<Cfa> {
    match *operations {
        [
            Operation::RegisterOffset { register, offset, .. },
            Operation::RegisterOffset { register: ip, offset: 0, .. },
            Operation::UnsignedConstant { value: 15 },
            Operation::And,
            Operation::UnsignedConstant { value: from },
            Operation::Ge,
            Operation::UnsignedConstant { value: shift },
            Operation::Shl,
            Operation::Plus,
        ] => {
            let usual = !registers.is_arm64
                && register == registers.sp
                && offset == registers.word
                && ip == registers.ra
                && 1 << shift == registers.word;
            (usual && from < 16).then_some(Cfa::Plt(from as u8))
        }
        _ => None,
    }
}

/// At most ten operations: no expression that is understood has more.
fn operations(expression: Expression<Slice<'_>>, encoding: gimli::Encoding) -> Vec<Operation<Slice<'_>>> {
    let mut iter = expression.operations(encoding);
    let mut found = Vec::new();
    while let Ok(Some(operation)) = iter.next() {
        found.push(operation);
        if found.len() > 9 {
            break;
        }
    }
    found
}
