//! Synthetic spools with known answers, finalised and read back.

mod benchmark;
mod builder;
mod containers;
mod damage;
mod jitdumps;
mod lives;
mod losses;
mod names;
mod recording;
