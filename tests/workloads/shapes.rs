//! A generic function and a trait's method, each computing: names to demangle.
use std::hint::black_box;
use std::time::{Duration, Instant};

mod shapes {
    use std::hint::black_box;

    pub trait Area {
        fn measure(&self) -> u64;
    }

    pub struct Square(pub u64);

    impl Area for Square {
        #[inline(never)]
        fn measure(&self) -> u64 {
            (0..500_000).fold(self.0, |sum, i| black_box(sum + i))
        }
    }

    #[inline(never)]
    pub fn add_up<T: Copy + Into<u64>>(number: T) -> u64 {
        (0..500_000).fold(number.into(), |sum, i| black_box(sum + i))
    }
}

fn main() {
    use shapes::Area;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        black_box(shapes::Square(2).measure());
        black_box(shapes::add_up(3u32));
    }
}
