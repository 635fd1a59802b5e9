//! Puts the events of many CPUs into one order of time, in bounded memory.

/// Side-band records and snapshots may lie this far behind the round that should have held them.
const MARGIN_NS: u64 = 10_000_000;
/// Without rounds (a damaged spool), half of what waits is let go when so much has gathered.
const MAX_WAITING: usize = 1 << 20;
const MAX_WAITING_BYTES: usize = 256 << 20;

/// Events wait here until nothing older can come.
pub struct TimeOrder<T> {
    /// By twice the time, plus one for what follows others of the same time.
    waiting: Vec<(u64, T)>,
    waiting_bytes: usize,
    previous_round_ns: u64,
}

impl<T> TimeOrder<T> {
    pub fn new() -> Self {
        Self { waiting: Vec::new(), waiting_bytes: 0, previous_round_ns: 0 }
    }

    /// `follows`: it comes after those of the same time that do not.  `bytes`: what it holds on the
    /// heap.  Times beyond the signed range are cut.
    pub fn push(&mut self, ts_ns: u64, follows: bool, event: T, bytes: usize) {
        self.waiting.push((ts_ns.min(i64::MAX as u64) << 1 | u64::from(follows), event));
        self.waiting_bytes += bytes;
    }

    /// After a round, hands on what is older than the round before it.
    pub fn round(&mut self, ts_ns: u64, mut emit: impl FnMut(u64, T)) {
        let horizon = self.previous_round_ns.saturating_sub(MARGIN_NS);
        self.previous_round_ns = self.previous_round_ns.max(ts_ns);
        self.waiting.sort_by_key(|(key, _)| *key);
        let count = self.waiting.partition_point(|(key, _)| key >> 1 < horizon);
        self.emit_first(count, &mut emit);
    }

    /// More waits than ever should.
    pub fn is_full(&self) -> bool {
        self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES
    }

    /// Hands on the older half.
    pub fn relieve(&mut self, mut emit: impl FnMut(u64, T)) {
        self.waiting.sort_by_key(|(key, _)| *key);
        self.emit_first(self.waiting.len().div_ceil(2), &mut emit);
    }

    /// Hands on all that still waits.
    pub fn finish(mut self, mut emit: impl FnMut(u64, T)) {
        self.waiting.sort_by_key(|(key, _)| *key);
        self.emit_first(self.waiting.len(), &mut emit);
    }

    fn emit_first(&mut self, count: usize, emit: &mut impl FnMut(u64, T)) {
        if count == 0 {
            return;
        }
        let kept_share = (self.waiting.len() - count) as f64 / self.waiting.len() as f64;
        self.waiting_bytes = (self.waiting_bytes as f64 * kept_share) as usize;
        for (key, event) in self.waiting.drain(..count) {
            emit(key >> 1, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn round(order: &mut TimeOrder<u32>, ts_ns: u64) -> Vec<u32> {
        let mut out = Vec::new();
        order.round(ts_ns, |_, event| out.push(event));
        out
    }

    #[test]
    fn events_leave_in_order_once_nothing_older_can_come() {
        let mut order = TimeOrder::new();
        order.push(30 * MS, false, 3, 0);
        order.push(10 * MS, false, 1, 0);
        assert!(round(&mut order, 50 * MS).is_empty());
        order.push(20 * MS, false, 2, 0);
        order.push(45 * MS, false, 4, 0);
        assert_eq!(round(&mut order, 60 * MS), [1, 2, 3]);
        let mut rest = Vec::new();
        order.finish(|_, event| rest.push(event));
        assert_eq!(rest, [4]);
    }

    #[test]
    fn equal_times_keep_their_order() {
        let mut order = TimeOrder::new();
        for event in 0..100 {
            order.push(5, false, event, 0);
        }
        let mut all = Vec::new();
        order.finish(|_, event| all.push(event));
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn what_follows_comes_after_others_of_its_time() {
        let mut order = TimeOrder::new();
        order.push(5, true, 1, 0);
        order.push(6, false, 2, 0);
        order.push(5, false, 0, 0);
        let mut all = Vec::new();
        order.finish(|ts_ns, event| all.push((ts_ns, event)));
        assert_eq!(all, [(5, 0), (5, 1), (6, 2)]);
    }

    #[test]
    fn without_rounds_the_memory_stays_bounded() {
        let mut order = TimeOrder::new();
        let mut emitted = 0;
        for ts_ns in 0..3 * MAX_WAITING as u64 {
            order.push(ts_ns, false, (), 0);
            if order.is_full() {
                order.relieve(|_, ()| emitted += 1);
            }
            assert!(order.waiting.len() <= MAX_WAITING);
        }
        assert!(emitted > MAX_WAITING);
    }
}
